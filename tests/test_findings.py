"""The finding table: order, anatomies, prompt bank, label sets."""

import csv
from pathlib import Path

import pytest

from bundle.ctfindings import findings
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, LABEL_SETS, TEMPLATES, fill_template, finding_index

ANATOMY_OF_COLUMN = ["thorax", "aorta", "heart", "heart", "heart", "esophagus", "mediastinum"] + [
    "lung"
] * 11  # methods digest 0.1, with the two findings fVLM leaves out
CTRATE_LABELS = Path(__file__).parents[2] / "shared" / "data" / "reports" / "manual_labels_18.csv"


def _words(text: str) -> str:
    return " ".join("".join(c for c in text.lower() if c.isalnum() or c == " ").split())


def test_eighteen_distinct_findings_each_with_the_anatomy_of_its_column():
    assert len(set(FINDING_NAMES)) == len(FINDINGS) == 18
    assert [finding.anatomy for finding in FINDINGS] == ANATOMY_OF_COLUMN


def test_a_misspelled_field_of_the_table_is_an_error():
    entry = {**findings._TABLE["finding"][0], "synonym": ["x"]}
    with pytest.raises(TypeError, match="synonym"):
        findings._finding(**entry)


def test_order_is_that_of_the_ctrate_label_table():
    if not CTRATE_LABELS.exists():
        pytest.skip(f"{CTRATE_LABELS} is not there")
    with CTRATE_LABELS.open(newline="") as handle:
        columns = [name.strip() for name in next(csv.reader(handle))]
    assert [name for name in columns if name in FINDING_NAMES] == list(FINDING_NAMES)


def test_a_finding_is_found_by_its_name_in_any_case_and_an_unknown_one_is_refused():
    assert finding_index("lung NODULE") == 9
    with pytest.raises(ValueError, match="unknown"):
        finding_index("pneumothorax")


def test_localized_findings_are_those_with_a_bounded_site():
    assert [finding.name for finding in FINDINGS if finding.localized] == [
        "Hiatal hernia",
        "Lung nodule",
        "Pleural effusion",
        "Consolidation",
    ]


def test_no_training_prompt_is_a_filled_scoring_template():
    scoring = {
        _words(fill_template(text, name))
        for name in FINDING_NAMES
        for pair in TEMPLATES
        for text in (pair.positive, pair.negative)
    }
    prompts = [prompt for finding in FINDINGS for prompt in finding.positive + finding.negative]
    assert len(set(prompts)) == 18 * 6
    assert not scoring & {_words(prompt) for prompt in prompts}


def test_the_image_descriptions_do_not_name_the_finding():
    for finding in FINDINGS:
        stems = {
            word[:8]
            for word in _words(finding.name).split()
            if word not in ("lung", "wall", "artery", "pattern", "material")
        }
        for prompt in (finding.positive[2], finding.negative[2]):
            assert not [word for word in _words(prompt).split() if word[:8] in stems], prompt


def test_label_sets_have_the_sizes_of_the_published_protocols():
    assert {name: len(labels) for name, labels in LABEL_SETS.items()} == {
        "ctrate18": 18,
        "ctrate16_fvlm": 16,
        "radchest16": 16,
        "radchest14": 14,
    }
    assert set(LABEL_SETS["radchest14"]) == set(LABEL_SETS["radchest16"]) & set(LABEL_SETS["ctrate16_fvlm"])


def test_radchest_mapping_covers_all_but_mosaic_and_extends_seven_findings():
    assert [finding.name for finding in FINDINGS if not finding.radchestct] == ["Mosaic attenuation pattern"]
    assert FINDINGS[finding_index("Lung nodule")].radchestct == ("nodule", "nodulegr1cm")
    assert sum(finding.radchestct_extended is not None for finding in FINDINGS) == 7
    assert all(finding.radchestct_extended != finding.radchestct for finding in FINDINGS)
