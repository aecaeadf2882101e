"""The validations of a training in its evaluation: read from the checkpoint, recorded, drawn."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image

from bundle.ctfindings.evaluation.training_curve import TrainingCurve

ROWS = [{"epoch": 2, "macro_auc": 0.5, "cce_gap": 0.1}, {"epoch": 4, "macro_auc": math.nan, "cce_gap": 0.2}]


def run_of(path: Path, content: dict[str, Any]) -> Any:
    torch.save(content, path)
    return SimpleNamespace(model=SimpleNamespace(ckpt_path=path), record={}, figures=[])


def test_validations_of_a_training_are_recorded_and_drawn(tmp_path: Path) -> None:
    run = run_of(tmp_path / "best.pt", {"model": {"a": torch.zeros(1)}, "validations": ROWS})
    text = TrainingCurve()(run)
    assert text == "Validations during the training: 2; the last, after epoch 4: macro_auc -"
    assert run.record["validations"] == [ROWS[0], {**ROWS[1], "macro_auc": None}]
    (draw,) = run.figures
    draw(tmp_path)
    with Image.open(tmp_path / "training.png") as image:
        assert image.size[0] > 100


@pytest.mark.parametrize("content", [{"a": torch.zeros(1)}, {"model": {"a": torch.zeros(1)}}])
def test_other_checkpoints_have_none(tmp_path: Path, content: dict[str, Any]) -> None:
    run = run_of(tmp_path / "model.pt", content)
    assert TrainingCurve()(run) == "" and run.record == {} and run.figures == []
