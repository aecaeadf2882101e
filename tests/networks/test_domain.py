"""The distance of a scan to the training scans."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.networks.domain import Domain, domain_features, load_domain, texture
from bundle.ctfindings.networks.image.image_encoder import ImageEmbedding


def test_texture_is_that_of_the_voxels_of_each_token() -> None:
    image = torch.rand(1, 1, 4, 4, 6, generator=torch.Generator().manual_seed(0))
    found = texture(image, (2, 4, 3))[0]
    block = image[0, 0, 2:4, 0:4, 3:6]  # the last of 2 x 1 x 2 tokens
    assert found.shape == (4, 5)
    expected = [block.mean(), (block.std(correction=0) + 1e-3).log()]
    torch.testing.assert_close(found[3, :2], torch.stack(expected))
    along_x = (image[0, 0, 3, 0:4, 3:6] - image[0, 0, 2, 0:4, 3:6]).abs()
    # The voxel at the end has no neighbour.
    torch.testing.assert_close(found[3, 2], (along_x.sum() / block.numel() + 1e-3).log())


def test_features_are_those_of_the_anatomy_within_the_body() -> None:
    generator = torch.Generator().manual_seed(0)
    image, field = torch.rand(1, 1, 8, 4, 4, generator=generator), torch.rand(1, 2, 3, generator=generator)
    logits = torch.full((1, 2, len(ANATOMIES)), -1.0)
    logits[0, :, 0], logits[0, 1, 1] = 1.0, 1.0
    encoded = ImageEmbedding(*[torch.zeros(1)] * 3, field, logits > 0, logits, [2, 1, 1], *[torch.zeros(1)] * 3)
    found = domain_features(image, encoded, (4, 4, 4), torch.tensor([[True, False]]))[0]
    assert found.shape == (len(ANATOMIES), 5 * 5 + 1 + 3)
    torch.testing.assert_close(found[0, -3:], field[0, 0])
    torch.testing.assert_close(found[0, 0], image[0, 0, :4].mean())
    assert found[0, 25] == 0  # the logarithm of one token
    assert found[1:].isnan().all()  # the second anatomy has only a token outside the body


def test_the_score_is_the_root_mean_square_over_the_anatomies_that_are_there() -> None:
    domain = Domain()
    domain.mean = torch.tensor([[1.0, 0.0], [0.0, 0.0], [torch.nan, torch.nan]])
    domain.precision = torch.stack([torch.eye(2), torch.eye(2), torch.full((2, 2), torch.nan)])
    found = domain.score(torch.tensor([[4.0, 4.0], [torch.nan, torch.nan], [1.0, 1.0]]))
    assert found.anatomy[0] == 5 and found.anatomy[1:].isnan().all() and found.score == 5
    found = domain.score(torch.tensor([[4.0, 4.0], [1.0, 0.0], [1.0, 1.0]]))
    assert float(found.score) == pytest.approx(np.sqrt((25 + 1) / 2))


def test_a_checkpoint_without_a_domain_has_an_empty_one(tmp_path: Path) -> None:
    torch.save({"bank.threshold": torch.zeros(3)}, tmp_path / "a.pt")
    assert not load_domain(tmp_path / "a.pt").fitted
    torch.save({"domain.mean": torch.ones(2, 4), "domain.scans": torch.tensor(9.0)}, tmp_path / "b.pt")
    domain = load_domain(tmp_path / "b.pt")
    assert domain.fitted and domain.mean.shape == (2, 4) and domain.scans == 9
    torch.save({"bank.threshold": torch.zeros(3)}, tmp_path / "a.pt")
    domain.load_state_dict({})
    assert not domain.fitted
