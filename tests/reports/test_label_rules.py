"""The table of label rules: every finding has a rule, and every entry names things that exist."""

import tomllib
from pathlib import Path

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports import label_rules
from bundle.ctfindings.reports.body_regions import REGION_ANATOMY

TABLE = tomllib.loads(Path(label_rules.__file__).with_suffix(".toml").read_text(encoding="utf-8"))


def test_every_finding_has_rules_and_every_rule_a_known_finding() -> None:
    assert {entry["finding"] for entry in TABLE["rule"]} == set(FINDING_NAMES)
    assert {name for entry in TABLE["normal"] for name in entry["denies"]} <= set(FINDING_NAMES)


def test_fields_of_a_rule_are_known() -> None:
    fields = {"finding", "mention", "near", "unless", "not_in", "denial_only"}
    assert not [entry for entry in TABLE["rule"] if not set(entry) <= fields]


def test_regions_of_the_rules_are_known() -> None:
    regions = {region for rules in label_rules.RULES.values() for rule in rules for region in rule.not_in}
    assert regions and regions <= set(REGION_ANATOMY)
