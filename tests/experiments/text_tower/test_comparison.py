"""The comparison of text towers reads what evaluations wrote, and its page says it."""

import json
from pathlib import Path

import pytest

from experiments.text_tower import comparison as text_tower_comparison

METRICS = {
    "macro": {"auc": 0.75, "auc_interval": [0.7, 0.8], "auc_lowest": 0.61},
    "templates": {"sd": 0.0025},
    "paraphrases": {"accuracy": 0.5, "accuracy_within_3": 0.75},
    "settings": {"text_parameters": 1_500_000},
}


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page of a comparison whose runs are done."""
    evaluation = tmp_path / "evaluation"
    evaluation.mkdir()
    (evaluation / "metrics.json").write_text(json.dumps(METRICS))
    monkeypatch.setattr(text_tower_comparison, "run_variant", lambda *_: evaluation)
    monkeypatch.setattr(text_tower_comparison, "reduced_datalist", lambda *_: tmp_path / "datalist.json")
    keys = {"cache_dir": "/elsewhere/cache"}
    return text_tower_comparison.compare_text_towers(
        [0, 1], tmp_path, tmp_path / "page", tmp_path, keys, "python experiments/x.py --epochs 3"
    )


def test_page_has_a_row_for_each_tower_and_seed(page: Path) -> None:
    rows = [line for line in page.read_text(encoding="utf-8").splitlines() if line.endswith("| 3.0 |")]
    assert len(rows) == 2 * len(text_tower_comparison.TEXT_TOWERS)
    assert "python experiments/x.py --epochs 3" in page.read_text(encoding="utf-8")
    assert "| 0 | 0.750 | 0.700 to 0.800 | 0.610 | 0.0025 | 0.50 | 0.75 |" in rows[0]


def test_folders_of_the_machine_stay_out_of_the_results(page: Path) -> None:
    assert "/elsewhere" not in page.read_text(encoding="utf-8") + (page.parent / "results.json").read_text(
        encoding="utf-8"
    )
