"""Scores of three wordings that differ in noise, for tests of statistics over wordings."""

import numpy as np


def answers(scans: int = 80, noise: float = 1.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Scores (scans, 3, 4), labels (scans, 4) and patients of two scans each."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, (scans, 4))
    scores = (
        labels[:, None]
        + random.normal(size=(scans, 1, 4))
        + noise * random.normal(size=(scans, 3, 4)) * np.asarray([0.1, 1, 2])[:, None]
    )
    return scores, labels, [f"p{i // 2}" for i in range(scans)]
