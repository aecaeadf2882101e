"""The findings of a synthetic patient: CT-RATE's rates joined by a Gaussian copula."""

import tomllib
from pathlib import Path
from statistics import NormalDist

import numpy as np

from bundle.ctfindings.findings import FINDING_NAMES

_TABLE = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
PREVALENCE: dict[str, float] = _TABLE["prevalence"]
"""Share of scans with each finding in CT-RATE."""


def _correlation_root() -> np.ndarray:
    """A root of the correlation matrix of the 18 latent variables and age, rows of unit length, (19, 19)."""
    count = len(FINDING_NAMES)
    matrix = np.full((count + 1, count + 1), _TABLE["shared_burden"])
    matrix[-1, :] = matrix[:, -1] = 0.1
    np.fill_diagonal(matrix, 1.0)
    for name, value in _TABLE["age_correlation"].items():
        row = FINDING_NAMES.index(name)
        matrix[row, -1] = matrix[-1, row] = value
    for first, partners in _TABLE["pair_correlation"].items():
        for second, value in partners.items():
            row, column = FINDING_NAMES.index(first), FINDING_NAMES.index(second)
            matrix[row, column] = matrix[column, row] = value
    values, vectors = np.linalg.eigh(matrix)
    root = vectors * np.sqrt(np.clip(values, 1e-6, None))
    # Clipping moves the diagonal a little; rows of unit length keep the marginal rates exact.
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def sample_labels(rng: np.random.Generator) -> tuple[tuple[int, ...], float]:
    """Draws one patient's 18 labels (0 or 1, order of ``FINDINGS``) and latent age, a standard normal number."""
    latent = _correlation_root() @ rng.standard_normal(len(FINDING_NAMES) + 1)
    labels = tuple(
        int(latent[i] > NormalDist().inv_cdf(1.0 - PREVALENCE[name])) for i, name in enumerate(FINDING_NAMES)
    )
    return labels, float(latent[-1])
