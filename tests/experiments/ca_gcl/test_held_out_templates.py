"""The held-out templates are held out, and each finding is asked of the anatomy that answers for it."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES, THORAX
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDINGS, TRAINING_TEMPLATES
from bundle.ctfindings.findings import TEMPLATES as SCORING
from bundle.ctfindings.phantom.report.sentence_frames import FRAMES
from experiments.ca_gcl.held_out_templates import TEMPLATES, template_logits


def test_no_template_is_used_elsewhere() -> None:
    scoring = [text for template in SCORING for text in (template.positive, template.negative)]
    training = [text for pair in TRAINING_TEMPLATES for text in pair]
    known = {text.lower().rstrip(".") for text in (*scoring, *training)}
    texts = [text for pair in TEMPLATES for text in pair]
    assert len(TEMPLATES) >= 30 and len(set(texts)) == len(texts)
    assert not [text for text in texts if text.lower().rstrip(".") in known or text.count("{a}") != 1]


def test_one_template_is_a_frame_of_the_synthetic_reports_and_the_docs_name_it(bundle_root: Path) -> None:
    slots = {"{np}": "{a}", "{bare_np}": "{a}", "{n}": "{a}", "{is}": "is", " {at}": ""}
    frames = set()
    for frame in (*FRAMES["positive"], *FRAMES["uncertain"], *FRAMES["impression"], *FRAMES["denial"]):
        for slot, word in slots.items():
            frame = frame.replace(slot, word)
        frames.add(frame.lower())
    assert "no {a} is identified." in frames
    known = [f"H{row}" for row, pair in enumerate(TEMPLATES, 1) if {text.lower() for text in pair} & frames]
    assert known == ["H10"]
    for page in ("diagnostics.md", "experiments/ca_gcl_whole/README.md"):
        assert "H10" in (bundle_root / "docs" / page).read_text(encoding="utf-8")


def test_a_finding_is_asked_of_its_anatomy_or_of_the_thorax_where_that_is_missing() -> None:
    anatomy = np.arange(1.0, len(ANATOMY_NAMES) + 1)[None, :, None]
    valid = np.ones((1, len(ANATOMY_NAMES)), dtype=bool)
    valid[0, FINDING_ANATOMY[0]] = False
    scores: Any = SimpleNamespace(anatomy=anatomy, anatomy_valid=valid)
    sides = iter((1.0, 0.0))  # statements, then denials

    def text(texts: list[str], role: str) -> torch.Tensor:
        assert role == "prompt"
        return torch.full((len(texts), 1), next(sides))

    logits = template_logits(text, scores)  # type: ignore[arg-type]
    expected = [
        anatomy[0, THORAX if row == FINDING_ANATOMY[0] and FINDING_ANATOMY[0] != THORAX else row, 0]
        for row in FINDING_ANATOMY
    ]
    assert logits.shape == (1, len(TEMPLATES), len(FINDINGS))
    assert logits[0, 0].tolist() == expected
