"""The attention at a tumour: its percentile, the distance of its peak, and the section of the page."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.findings import FINDINGS, finding_index
from experiments.place.page import _real_tumours
from experiments.place.real_tumours import tumour_attention

GRID, STRIDE = [4, 4, 4], [2, 2, 2]


def observer(peak: tuple[int, int, int]) -> Any:
    """Two queries: the second one has the row of the finding and attends to a token, the first one is even.

    The last plane of tokens along x is the margin of the body, in which no query attends.
    """
    attention = torch.full((1, 2, *GRID), 0.1)
    attention[(0, 1, *peak)] = 1.0
    body = torch.ones(1, *GRID, len(ANATOMIES), dtype=torch.bool)
    attention[:, :, 3], body[:, 3] = 0, False
    encoded = SimpleNamespace(
        pathology=torch.eye(2)[None],
        pathology_valid=torch.ones(1, 2, dtype=torch.bool),
        pathology_attention=attention.flatten(2),
        membership=torch.ones(1, 64, len(ANATOMIES), dtype=torch.bool),
        anatomy_logits=torch.zeros(1, 64, len(ANATOMIES)),
        grid=GRID,
    )

    class Encoder:
        tower = SimpleNamespace(stride=STRIDE)

        def __call__(self, image: torch.Tensor) -> Any:
            return encoded

        def own_members(self, anatomy_logits: torch.Tensor) -> torch.Tensor:
            return body.flatten(1, 3)

    prompts = torch.zeros(len(FINDINGS), 2, 2)
    prompts[finding_index("Lung nodule"), 0] = torch.tensor([0.0, 1.0])
    return SimpleNamespace(network=SimpleNamespace(image=Encoder()), prompts=prompts)


def test_attention_on_the_tumour_has_the_highest_percentile_and_no_distance() -> None:
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    image = MetaTensor(torch.zeros(1, 8, 8, 8), affine=torch.tensor(affine))
    tumour = np.array([[2 * 2 + 0.5, 2 * 1 + 0.5, 2 * 3 + 0.5]]) * 3  # Centre of token (2, 1, 3)
    on, drawn = tumour_attention(observer((2, 1, 3)), image, tumour)
    off, _ = tumour_attention(observer((0, 1, 3)), image, tumour)
    assert on == {**off, "percentile": 1.0, "peak_to_tumour_mm": 0.0} and on["query"] == 1
    assert off["percentile"] == pytest.approx(24 / 48) and off["peak_to_tumour_mm"] == pytest.approx(2 * 6)
    assert (
        drawn.shape == (8, 8, 8) and (drawn[4:6, 2:4, 6:8] == 1).all() and drawn.sum() == pytest.approx(8 + 0.1 * 376)
    )


def test_the_page_has_a_section_only_with_real_scans(tmp_path: Path) -> None:
    assert _real_tumours(tmp_path) == []
    row = {"scan": "a", "query": 1, "percentile": 0.25, "peak_to_tumour_mm": 80.2, "random_to_tumour_mm": 99.0}
    (tmp_path / "real_tumours.json").write_text(json.dumps({"finding": "Lung nodule", "scans": [row]}))
    assert "| a | 0.25 | 80 | 99 |" in _real_tumours(tmp_path)
