"""Which findings a synthetic patient has: CT-RATE's rates joined by a Gaussian copula."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

from bundle.ctfindings.findings import FINDING_NAMES

# Share of scans with each finding in CT-RATE's label tables (Hamamci et al. 2024, arXiv:2403.17834), to two digits.
PREVALENCE: dict[str, float] = {
    "Medical material": 0.11,
    "Arterial wall calcification": 0.28,
    "Cardiomegaly": 0.11,
    "Pericardial effusion": 0.08,
    "Coronary artery wall calcification": 0.25,
    "Hiatal hernia": 0.14,
    "Lymphadenopathy": 0.25,
    "Emphysema": 0.19,
    "Atelectasis": 0.25,
    "Lung nodule": 0.45,
    "Lung opacity": 0.37,
    "Pulmonary fibrotic sequela": 0.27,
    "Pleural effusion": 0.12,
    "Mosaic attenuation pattern": 0.08,
    "Peribronchial thickening": 0.11,
    "Consolidation": 0.18,
    "Bronchiectasis": 0.10,
    "Interlobular septal thickening": 0.08,
}

# Every pair shares this much of the latent variable ("burden of disease"); it sets the share of entirely normal scans.
SHARED_BURDEN = 0.20

# Correlation of age with the latent variable of a finding, beyond which no age effect is modelled.
AGE_CORRELATION: dict[str, float] = {
    "Arterial wall calcification": 0.75,
    "Coronary artery wall calcification": 0.65,
    "Cardiomegaly": 0.45,
    "Hiatal hernia": 0.45,
    "Medical material": 0.40,
    "Emphysema": 0.40,
    "Pulmonary fibrotic sequela": 0.40,
    "Pleural effusion": 0.35,
    "Lung nodule": 0.25,
}

# Correlations of the latent variables of pairs that occur together in patients; other pairs have SHARED_BURDEN.
PAIR_CORRELATION: dict[tuple[str, str], float] = {
    ("Arterial wall calcification", "Coronary artery wall calcification"): 0.80,
    ("Arterial wall calcification", "Cardiomegaly"): 0.45,
    ("Cardiomegaly", "Coronary artery wall calcification"): 0.45,
    ("Cardiomegaly", "Pericardial effusion"): 0.45,
    ("Cardiomegaly", "Pleural effusion"): 0.50,
    ("Medical material", "Coronary artery wall calcification"): 0.40,
    ("Medical material", "Cardiomegaly"): 0.40,
    ("Pericardial effusion", "Pleural effusion"): 0.50,
    ("Pleural effusion", "Atelectasis"): 0.55,
    ("Pleural effusion", "Interlobular septal thickening"): 0.50,
    ("Pleural effusion", "Consolidation"): 0.50,
    ("Consolidation", "Lung opacity"): 0.60,
    ("Consolidation", "Atelectasis"): 0.40,
    ("Lung opacity", "Interlobular septal thickening"): 0.45,
    ("Lung opacity", "Lymphadenopathy"): 0.35,
    ("Bronchiectasis", "Peribronchial thickening"): 0.60,
    ("Bronchiectasis", "Pulmonary fibrotic sequela"): 0.45,
    ("Bronchiectasis", "Mosaic attenuation pattern"): 0.40,
    ("Peribronchial thickening", "Mosaic attenuation pattern"): 0.40,
    ("Emphysema", "Lung nodule"): 0.35,
    ("Emphysema", "Peribronchial thickening"): 0.35,
    ("Lymphadenopathy", "Lung nodule"): 0.35,
}


_NORMAL = NormalDist()


def _correlation_root() -> np.ndarray:
    """A root of the correlation matrix of the 18 latent variables and age, rows of unit length, (19, 19)."""
    count = len(FINDING_NAMES)
    matrix = np.full((count + 1, count + 1), SHARED_BURDEN)
    matrix[-1, :] = matrix[:, -1] = 0.1
    np.fill_diagonal(matrix, 1.0)
    for name, value in AGE_CORRELATION.items():
        row = FINDING_NAMES.index(name)
        matrix[row, -1] = matrix[-1, row] = value
    for (first, second), value in PAIR_CORRELATION.items():
        row, column = FINDING_NAMES.index(first), FINDING_NAMES.index(second)
        matrix[row, column] = matrix[column, row] = value
    values, vectors = np.linalg.eigh(matrix)
    root = vectors * np.sqrt(np.clip(values, 1e-6, None))
    # Clipping moves the diagonal a little; rows of unit length keep the marginal rates exact.
    return root / np.linalg.norm(root, axis=1, keepdims=True)


def sample_labels(rng: np.random.Generator) -> tuple[tuple[int, ...], float]:
    """Draws one patient's findings.

    Returns:
        The 18 labels (0 or 1, order of ``FINDINGS``) and the latent age, a standard normal number.
    """
    latent = _correlation_root() @ rng.standard_normal(len(FINDING_NAMES) + 1)
    labels = tuple(int(latent[i] > _NORMAL.inv_cdf(1.0 - PREVALENCE[name])) for i, name in enumerate(FINDING_NAMES))
    return labels, float(latent[-1])
