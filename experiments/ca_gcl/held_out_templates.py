"""Held-out templates: wordings of no training or scoring prompt, asked of every scan of an evaluation.

One of them, H10 (``{a} is demonstrated.``, ``{a} is not demonstrated.``), is also a frame of the synthetic reports,
from which captions are read.

Shapes: S scans, T templates, C findings.
"""

import tomllib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDINGS, fill_template
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.networks.scoring import answering_rows
from bundle.ctfindings.networks.text.text_tower import TextTower

LOGITS_FILE = "held_out_templates.npz"
"""In the folder of the evaluation: ``logits``, ``[S, T, C]``."""

TEMPLATES: tuple[tuple[str, str], ...] = tuple(
    (yes, no) for yes, no in tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))["templates"]
)
"""Statement and denial, T."""


class HeldOutTemplates:
    """Section of an evaluation that writes ``LOGITS_FILE``, for models that score anatomies and no tokens."""

    needs_labels = False
    needs_calibration = False

    def __call__(self, run: EvaluationRun) -> str:
        """Scores the split by each template.

        Raises:
            ValueError: The model scores tokens.
        """
        network = run.own_model.network
        if network.scorer.tokens:
            raise ValueError("held-out templates: expected a model with score_tokens false, whose scores are of rows")
        logits = template_logits(network.text, run.own_scores)
        run.figures.append(partial(_write, logits=logits))
        return f"Held-out templates: {len(TEMPLATES)} scored."


def template_logits(text: TextTower, scores: SplitScores) -> FloatArray:
    """Cosine of the row of the anatomy of each finding with the statement minus that with the denial, ``[S, T, C]``."""
    with torch.no_grad():
        sides = [
            text([fill_template(pair[side], finding.name) for pair in TEMPLATES for finding in FINDINGS], "prompt")
            for side in (0, 1)
        ]
    deltas = (sides[0] - sides[1]).double().cpu().view(len(TEMPLATES), len(FINDINGS), -1)
    rows = _answering(scores)
    return torch.einsum("sce,tce->stc", rows, deltas).numpy()


def _answering(scores: SplitScores) -> Tensor:
    """The image row that answers for each finding, ``[S, C, E]``."""
    anatomy, valid = torch.from_numpy(scores.anatomy), torch.from_numpy(np.asarray(scores.anatomy_valid))
    used = answering_rows(valid, torch.tensor(FINDING_ANATOMY))
    return anatomy.gather(1, used.unsqueeze(2).expand(-1, -1, anatomy.shape[2]))


def _write(folder: Path, logits: FloatArray) -> None:
    np.savez_compressed(folder / LOGITS_FILE, logits=logits.astype(np.float32))
