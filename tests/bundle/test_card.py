"""The card of the bundle repeats what was measured, and its page of the configuration explains every key."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from bundle.ctfindings.inference.bundle_workflow import EVIDENCE_CHOICES
from bundle.ctfindings.metrics.published_protocols import PROTOCOLS

# What is computed from the knobs, and what is done with it.
NO_KNOBS = {
    *(
        "imports",
        "bundle_root",
        "datalist_path",
        "scans",
        "training_studies",
        "validation_studies",
        "cache_key",
        "preprocessing",
        "augmentation",
    ),
    *("network", "writer", "handlers", "initialize", "run"),
}


@pytest.fixture(scope="module")
def card(bundle_root: Path) -> str:
    return (bundle_root / "docs" / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def configuration(bundle_root: Path) -> str:
    return (bundle_root / "docs" / "configuration.md").read_text(encoding="utf-8")


def knobs(config: dict[str, Any]) -> list[str]:
    """Keys at the top of a configuration whose values a user may want to change; objects that are built are not among
    them.
    """
    return [key for key, value in config.items() if key not in NO_KNOBS and "_target_" not in json.dumps(value)]


@pytest.mark.parametrize(("name", "least"), [("train", 10), ("inference", 10), ("evaluate", 10), ("finetune", 5)])
def test_every_knob_is_explained(configuration: str, bundle_root: Path, name: str, least: int) -> None:
    config = json.loads((bundle_root / "configs" / f"{name}.json").read_text(encoding="utf-8"))
    keys = [key for key in knobs(config) if not key.startswith("+")]
    assert len(keys) >= least
    explained = set(re.findall(r"`([a-z_]+)`", configuration))
    assert [key for key in keys if key not in explained] == []


def test_choices_are_those_of_the_code(configuration: str) -> None:
    rows = {row.split("|")[1].strip(): row for row in configuration.splitlines() if row.startswith("| `")}
    for key, choices in (("`protocol`", PROTOCOLS), ("`evidence`", EVIDENCE_CHOICES)):
        assert {choice for choice in choices if f"`{choice}`" in rows[key]} == set(choices)


def test_the_table_holds_the_numbers_of_the_evaluation(card: str, bundle_root: Path) -> None:
    measured = json.loads(
        (bundle_root / "docs" / "evaluation" / "shipped" / "metrics.json").read_text(encoding="utf-8")
    )
    rows = {
        row.split("|")[1].strip(): [cell.strip() for cell in row.split("|")[2:-1]]
        for row in card.splitlines()
        if row.startswith("|")
    }
    for finding in measured["findings"]:
        low, high = finding["auc_interval"]
        scores = [f"{finding[name]:.3f}" for name in ("average_precision", "sensitivity", "specificity", "f1", "ece")]
        assert rows[finding["finding"]] == [
            str(finding["n"]),
            str(finding["positives"]),
            f"{finding['auc']:.3f}",
            f"{low:.3f} - {high:.3f}",
            *scores,
        ]
    low, high = measured["macro"]["auc_interval"]
    assert rows["**mean**"][2:4] == [f"{measured['macro']['auc']:.3f}", f"{low:.3f} - {high:.3f}"]
