"""Scans with labels that adaptation can learn."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from bundle.ctfindings.adaptation import head_training
from bundle.ctfindings.findings import FINDINGS, TEMPLATES, Finding, fill_template, finding_index

NODULE, HERNIA = finding_index("Lung nodule"), finding_index("Hiatal hernia")


@pytest.fixture(scope="session")
def datalist(tmp_path_factory: pytest.TempPathFactory, hu: np.ndarray, affine: np.ndarray) -> Path:
    """Twelve scans of twelve patients, half of them with a dense ball in a lung, and a file that is not a scan.

    A hernia is known in three of them, too few for a head.
    """
    folder, random = tmp_path_factory.mktemp("scans"), np.random.default_rng(0)
    x, y, z = np.meshgrid(*(np.arange(size) for size in hu.shape), indexing="ij")
    studies = []
    for index in range(12):
        volume = hu + random.normal(0, 10, hu.shape)
        labels = [-1] * len(FINDINGS)
        labels[NODULE] = index % 2
        labels[HERNIA] = 1 if index == 0 else 0 if index < 3 else -1
        if index % 2:
            centre = (20 + random.integers(-3, 4), 28, 22 + random.integers(-5, 6))
            volume[(x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 < 30] = 1000
        nib.save(nib.Nifti1Image(volume.astype(np.int16), affine), folder / f"{index}.nii.gz")
        studies.append({"id": str(index), "image": f"{index}.nii.gz", "labels": labels})
    (folder / "bad.nii.gz").write_bytes(b"no scan")
    studies.append({"id": "bad", "image": "bad.nii.gz", "labels": [-1] * len(FINDINGS)})
    (folder / "datalist.json").write_text(json.dumps({"training": studies}))
    return folder / "datalist.json"


@pytest.fixture
def wordings_are_templates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trains on the templates: an untrained text tower does not know that a wording and a template mean the same."""
    monkeypatch.setattr(head_training, "training_wordings", templates_of)


def templates_of(finding: Finding) -> tuple[tuple[str, str], ...]:
    return tuple(
        (fill_template(each.positive, finding.name), fill_template(each.negative, finding.name)) for each in TEMPLATES
    )
