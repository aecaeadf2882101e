"""A batch of anatomy and caption rows for the contrastive losses."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F


@pytest.fixture
def make_batch() -> Callable[..., dict[str, Tensor]]:
    def make(scans: int = 6, anatomies: int = 3, width: int = 5, seed: int = 0) -> dict[str, Tensor]:
        """Unit rows in double precision, some invalid, about half normal, with a few texts that occur twice."""
        generator = torch.Generator().manual_seed(seed)
        shape = (scans, anatomies)
        return {
            "anatomy": F.normalize(torch.randn(*shape, width, generator=generator, dtype=torch.float64), dim=-1),
            "anatomy_valid": torch.rand(shape, generator=generator) < 0.85,
            "caption": F.normalize(torch.randn(*shape, width, generator=generator, dtype=torch.float64), dim=-1),
            "caption_valid": torch.rand(shape, generator=generator) < 0.85,
            "caption_id": torch.randint(2**62, 2**62 + 4, shape, generator=generator),
            "caption_normal": torch.rand(shape, generator=generator) < 0.4,
        }

    return make
