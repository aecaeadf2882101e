"""Studies with labels and reports, and an encoder whose rows are made of the labels, without a scan or a network."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bundle.ctfindings.findings import FINDINGS

COUNTS = {"training": 80, "validation": 40, "test": 40}
EMBEDDING = 24


def _unit(text: str) -> torch.Tensor:
    """The sum of the axes of the findings that a text names, so that texts of one meaning are alike."""
    named = [1.0 if finding.name.lower() in text.lower() else 0.0 for finding in FINDINGS]
    return F.normalize(torch.tensor([*named, *[0.0] * (EMBEDDING - 19), 0.05]), dim=0)


class LabelEncoder:
    """Anatomy rows that state the findings of a scan, with noise; a pathology row for each present finding."""

    ckpt_path = None

    def __init__(self, queries: int = 18, noise: float = 0.3) -> None:
        self.queries, self.noise = queries, noise
        self.network = SimpleNamespace(encode_text=lambda texts, role: torch.stack([_unit(text) for text in texts]))

    def load(self) -> None:
        """Nothing to load."""

    def encode(self, studies: list[dict[str, Any]], name: str = "") -> dict[str, torch.Tensor]:
        """Rows in the order of the studies."""
        random = torch.Generator().manual_seed(len(studies))
        present = torch.stack([study["labels"] == 1 for study in studies]).float()
        wide = F.pad(present, (0, EMBEDDING - 18)) + self.noise * torch.randn(len(present), EMBEDDING, generator=random)
        axes = torch.eye(EMBEDDING)[: self.queries]
        return {
            "anatomy": F.normalize(wide, dim=1)[:, None].expand(-1, 6, -1),
            "anatomy_valid": torch.ones(len(present), 6, dtype=torch.bool),
            "pathology": (present[:, : self.queries, None] * axes),
            "pathology_valid": present[:, : self.queries] > 0,
            "field": torch.zeros(len(present), 2 * EMBEDDING),
            "zero_shot": torch.zeros(len(present), 18),
        }


@pytest.fixture
def datalist(tmp_path: Path) -> Path:
    """A datalist without files: labels, and reports that state the present findings."""
    random = np.random.default_rng(0)
    content: dict[str, list[dict[str, Any]]] = {}
    for split, count in COUNTS.items():
        content[split] = []
        for index in range(count):
            labels = (random.random(18) < 0.25).astype(int)
            stated = [f"There is {f.name.lower()}." for f, yes in zip(FINDINGS, labels, strict=True) if yes]
            report = {"findings": " ".join(stated) or "The lungs are clear.", "impression": ""}
            name = f"{split}-{index}"
            content[split].append(
                {"id": name, "patient": name, "image": f"{name}.nii.gz", "labels": labels.tolist(), "report": report}
            )
    path = tmp_path / "datalist.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    return path
