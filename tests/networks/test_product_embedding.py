"""The product of an anatomy part and a disease part: what each part of the similarity rests on."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bundle.ctfindings.losses import CrossAnatomyLoss, LocalAnatomyLoss
from bundle.ctfindings.metrics.text_collapse import TextRows, anatomy_accuracy
from bundle.ctfindings.networks.product_embedding import ProductEmbedding

DIMENSIONS, EMBEDDING = 4, 12


def rows(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, EMBEDDING, generator=torch.Generator().manual_seed(0), requires_grad=True)


def pairs(vectors: torch.Tensor) -> dict[str, torch.Tensor]:
    batch, anatomies, _ = vectors.shape
    valid = torch.ones(batch, anatomies, dtype=torch.bool)
    ids = torch.arange(batch * anatomies).view(batch, anatomies)
    return {
        "anatomy": vectors,
        "anatomy_valid": valid,
        "caption": vectors.roll(1, dims=-1),
        "caption_valid": valid,
        "caption_id": ids,
        "caption_normal": torch.zeros_like(valid),
    }


def test_the_similarity_is_the_weighted_sum_of_both_parts() -> None:
    one, two = rows(2, 5).detach()
    product = ProductEmbedding(DIMENSIONS, 0.3)
    parts = [
        torch.cosine_similarity(one[:, part], two[:, part])
        for part in (slice(0, DIMENSIONS), slice(DIMENSIONS, EMBEDDING))
    ]
    expected = 0.3 * parts[0] + 0.7 * parts[1]
    torch.testing.assert_close((product(one) * product(two)).sum(-1), expected)
    torch.testing.assert_close(product(one).norm(dim=-1), torch.ones(5))
    assert not product(torch.zeros(1, EMBEDDING)).any(), "an anatomy outside the field of view stays zero"


def test_each_objective_moves_its_own_part_only() -> None:
    for loss, moved, kept in (
        (CrossAnatomyLoss(excluded=(), dimensions=(0, DIMENSIONS)), slice(0, DIMENSIONS), slice(DIMENSIONS, None)),
        (LocalAnatomyLoss(dimensions=(DIMENSIONS, EMBEDDING)), slice(DIMENSIONS, None), slice(0, DIMENSIONS)),
    ):
        vectors = rows(3, 4)
        given = pairs(ProductEmbedding(DIMENSIONS, 0.25)(vectors)) | {"caption": ProductEmbedding(4, 0.25)(vectors)}
        loss(torch.tensor(0.1), **given).backward()
        assert vectors.grad is not None
        assert vectors.grad[..., kept].abs().max() < 1e-6 < 1e-4 < vectors.grad[..., moved].abs().max()


@pytest.mark.parametrize(
    ("objective", "part"), [(CrossAnatomyLoss, (0, DIMENSIONS)), (LocalAnatomyLoss, (DIMENSIONS, EMBEDDING))]
)
def test_an_objective_on_a_part_is_the_objective_on_the_unit_rows_of_the_part(
    objective: type[CrossAnatomyLoss | LocalAnatomyLoss], part: tuple[int, int]
) -> None:
    images, texts = rows(2, 3, 4).detach()
    product = ProductEmbedding(DIMENSIONS, 0.25)
    found = objective(dimensions=part)(torch.tensor(0.1), **pairs(product(images)) | {"caption": product(texts)})
    image_part, text_part = (F.normalize(whole[..., slice(*part)], dim=-1) for whole in (images, texts))
    expected = objective()(torch.tensor(0.1), **pairs(image_part) | {"caption": text_part})
    torch.testing.assert_close(found, expected)


def test_without_weight_the_similarity_is_that_of_the_disease_part() -> None:
    """w = 0 is fVLM on the disease part: the local objective is the same on the whole and on the part."""
    vectors = ProductEmbedding(DIMENSIONS, 0.0)(rows(3, 4))
    whole = LocalAnatomyLoss()(torch.tensor(0.1), **(pairs(vectors) | {"caption": vectors}))
    part = LocalAnatomyLoss(dimensions=(DIMENSIONS, EMBEDDING))(
        torch.tensor(0.1), **(pairs(vectors) | {"caption": vectors})
    )
    torch.testing.assert_close(whole, part)


def test_anatomies_separate_with_the_weight() -> None:
    """The anatomy part tells two anatomies apart, the disease part tells normal from abnormal only."""
    generator = np.random.default_rng(0)
    anatomy, normal = np.repeat([0, 1], 20), np.tile([True, False], 20)
    vectors = np.concatenate([np.eye(2)[anatomy], np.eye(2)[normal.astype(int)]], axis=1)
    vectors = torch.from_numpy(vectors + 0.1 * generator.standard_normal(vectors.shape))
    accuracy = []
    for weight in (0.0, 0.1, 0.5):
        embedded = ProductEmbedding(2, weight).double()(vectors).numpy()
        texts = TextRows(embedded, anatomy, normal, np.arange(40), np.arange(40))
        accuracy.append(anatomy_accuracy(texts, np.ones(40)))
    assert accuracy[0] < 0.8 and accuracy[0] < accuracy[1] <= accuracy[2] == 1


def test_a_checkpoint_with_other_parts_is_refused() -> None:
    with pytest.raises(ValueError, match=r"anatomy_dimensions 4 and anatomy_weight 0\.3"):
        ProductEmbedding(DIMENSIONS, 0.2).load_state_dict(ProductEmbedding(DIMENSIONS, 0.3).state_dict())
    for wrong in ((0, 0.2), (4, 1.0)):
        with pytest.raises(ValueError, match="expected"):
            ProductEmbedding(*wrong)
    with pytest.raises(ValueError, match="first and the end"):
        LocalAnatomyLoss(dimensions=(4, 4))
