"""Runs of the comparison with known faults, and their results."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundle.ctfindings.evaluation.diagnostics import HITS, Diagnostics
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS
from experiments.ca_gcl.held_out_templates import LOGITS_FILE
from experiments.ca_gcl.held_out_templates import TEMPLATES as TEMPLATES_HELD_OUT
from experiments.ca_gcl.results import experiment_results

C, T, W, SCANS, WIDTH = len(FINDING_NAMES), len(TEMPLATES), len(PERTURBATIONS), 24, 8
NAMES = ("fvlm", "ca_gcl")


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def answers(collapsed: bool, seed: int, noise: float, drop: float) -> Diagnostics:
    """A model of known faults: texts in one cone or apart, templates that differ by `noise`, and recall that falls by
    `drop`.
    """
    random = np.random.default_rng(seed)
    labels = np.random.default_rng(0).integers(0, 2, (SCANS, C))
    signal = labels + random.normal(size=(SCANS, C))
    templates = signal[:, None] + noise * random.normal(size=(SCANS, T, C)) * np.linspace(0, 1, T)[:, None]
    anatomy = np.tile(np.arange(3), SCANS)
    centre = np.ones((3, WIDTH)) if collapsed else np.eye(3, WIDTH)
    captions = unit(centre[anatomy] + 0.3 * random.normal(size=(3 * SCANS, WIDTH)))
    hits = np.zeros((SCANS, len(HITS)))
    hits[:, HITS.index("report_to_scan.whole.r1")] = 1
    hits[:, HITS.index("report_to_scan.drop_r1")] = drop
    return Diagnostics(
        ids=np.asarray([f"s{i}" for i in range(SCANS)]),
        patients=np.asarray([f"p{i}" for i in range(SCANS)]),
        labels=labels,
        logits=signal,
        calibrated=1 / (1 + np.exp(-signal)),
        tempered=1 / (1 + np.exp(-signal)),
        template_logits=templates,
        wording_logits=np.repeat(signal[:, None], W, axis=1),
        present_own=templates > 0.5,
        present_reference=templates > 0.5,
        prompts=unit(random.normal(size=(C, 2, T, WIDTH))),
        captions=captions,
        caption_anatomy=anatomy,
        caption_normal=random.random(3 * SCANS) < 0.5,
        caption_id=np.arange(3 * SCANS),
        caption_study=np.repeat(np.arange(SCANS), 3),
        distance=np.ones(3 * SCANS),
        hits=hits,
        queries=np.arange(SCANS),
    )


@pytest.fixture(scope="module")
def evaluations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[int, Path]]:
    folder = tmp_path_factory.mktemp("runs")
    made: dict[str, dict[int, Path]] = {name: {} for name in NAMES}
    for name in NAMES:
        for seed in (0, 1):
            path = folder / f"{name}{seed}"
            given = answers(name == "fvlm", seed, *((4.0, 0.6) if name == "fvlm" else (0.05, 0.1)))
            given.save(path / "diagnostics.npz")
            repeated = np.resize(given.template_logits.transpose(1, 0, 2), (len(TEMPLATES_HELD_OUT), SCANS, C))
            np.savez(path / LOGITS_FILE, logits=repeated.transpose(1, 0, 2))
            made[name][seed] = path
    return made


@pytest.fixture(scope="module")
def results(evaluations: dict[str, dict[int, Path]]) -> dict[str, Any]:
    return experiment_results(
        evaluations, dict.fromkeys(NAMES, "a variant"), {"studies": {"training": 9}}, resamples=60
    )
