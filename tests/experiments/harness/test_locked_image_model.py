"""The model over a locked image tower: its rows are those of the tower, and a score is the row of the finding's anatomy
alone.
"""

from collections.abc import Callable

import pytest
import torch

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDINGS, TEMPLATES
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.networks.image.pooling import project_rows
from bundle.ctfindings.networks.text.text_tower import TextTower
from experiments.harness.locked_image_model import LockedImageModel
from experiments.harness.pooled_features import pooled_features


@pytest.fixture
def locked(encoder: str) -> LockedImageModel:
    """A model over features of size 5."""
    torch.manual_seed(0)
    return LockedImageModel(
        TextTower(encoder, embedding=8, hidden=16), features=5, depth_features=3, embedding=8
    ).eval()


def test_pooled_features_give_the_rows_of_the_encoder(make_image: Callable[[], ImageEncoder]) -> None:
    image = make_image().eval()
    scan = torch.rand(2, 1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        encoded = image(scan)
        pooled = pooled_features(image, scan)
        pooling = image.anatomy_pooling
        torch.testing.assert_close(
            project_rows(pooled.anatomy, pooled.valid, pooling.projection, pooling.bias), encoded.anatomy
        )
    assert torch.equal(pooled.valid, encoded.anatomy_valid)


def test_score_is_the_scaled_product_of_row_and_prompt_difference(locked: LockedImageModel) -> None:
    features, valid = torch.randn(3, 6, 5), torch.ones(3, 6, dtype=torch.bool)
    deltas = torch.randn(2, len(FINDINGS), 8)
    with torch.no_grad():
        rows = locked(features, valid)["anatomy"]
        scores = locked.score(features, valid, deltas)
    finding = 7
    expected = 5.0 * rows[:, FINDING_ANATOMY[finding]] @ deltas[1, finding]
    torch.testing.assert_close(scores[:, 1, finding], expected)


def test_captions_lie_where_their_anatomy_is(locked: LockedImageModel) -> None:
    outputs = locked(torch.randn(2, 6, 5), torch.ones(2, 6, dtype=torch.bool), [{"heart": "a large heart"}, {}])
    assert outputs["caption_valid"].nonzero().tolist() == [[0, 1]]
    torch.testing.assert_close(outputs["caption"][0, 1].norm(), torch.tensor(1.0))
    assert "caption" not in locked(torch.randn(1, 6, 5), torch.ones(1, 6, dtype=torch.bool), [{}])


def test_template_differences_begin_with_those_of_the_mean(locked: LockedImageModel) -> None:
    with torch.no_grad():
        assert locked.template_deltas().shape == (1 + len(TEMPLATES), len(FINDINGS), 8)


def test_each_kind_of_text_gives_the_outputs_of_its_objective(locked: LockedImageModel) -> None:
    features, valid = torch.randn(2, 6, 5), torch.ones(2, 6, dtype=torch.bool)
    depth, depth_mm = torch.randn(2, 4, 3), torch.arange(8.0).view(2, 4)
    plain = set(locked(features, valid))
    reports = locked(features, valid, reports=["", "a report"])
    assert set(reports) - plain == {"scan", "scan_valid", "report", "report_valid"}
    assert reports["report_valid"].tolist() == [False, True] and not reports["report"][0].any()
    torch.testing.assert_close(reports["scan"], reports["anatomy"][:, THORAX])
    snippets = locked(features, valid, snippets=[[], [{"text": "here", "z_mm": 5.0}]], depth=depth, depth_mm=depth_mm)
    assert set(snippets) - plain == {"snippet", "target_mm", "depth", "depth_mm"}
    torch.testing.assert_close(snippets["depth"][0], locked.depth_rows(depth)[1])
    assert snippets["depth_mm"].tolist() == [[4.0, 5.0, 6.0, 7.0]]
    with pytest.raises(ValueError, match="expected depth and depth_mm"):
        locked(features, valid, snippets=[[], [{"text": "here", "z_mm": 5.0}]])


def test_the_logit_of_a_drawn_wording_is_its_score(locked: LockedImageModel) -> None:
    features, valid = torch.randn(2, 6, 5), torch.ones(2, 6, dtype=torch.bool)
    outputs = locked(features, valid, prompts=True)
    deltas = outputs["prompt_drawn"][0] - outputs["prompt_drawn"][1]
    for scan in range(2):
        torch.testing.assert_close(
            outputs["finding_logits_drawn"][scan], locked.score(features, valid, deltas[scan : scan + 1])[scan, 0]
        )
