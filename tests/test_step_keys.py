"""The keys of a training step: what is written and read is what ``step_keys`` names."""

from collections.abc import Callable
from typing import get_type_hints

import pytest
import torch
from torch import nn

import bundle.ctfindings.losses as losses
from bundle.ctfindings.data.batches import prepare_report_batch
from bundle.ctfindings.networks.correlation_explorer import CorrelationExplorer
from bundle.ctfindings.networks.image.observation_extractor import ObservationExtractor
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.reports.observations import Observation
from bundle.ctfindings.step_keys import NetworkInputs, NetworkOutputs, Targets, batch_axis
from tests.networks.conftest import encoder, make_image, make_model  # noqa: F401

OBJECTIVES = [getattr(losses, name) for name in losses.__all__ if name != "CompositeLoss"]


def batch(scans: int = 3) -> dict:
    """Studies with everything, on a grid of 16 x 8 x 16 voxels."""
    return {
        "image": torch.rand(scans, 1, 16, 8, 16),
        "anatomy": torch.ones(scans, 1, 16, 8, 16, dtype=torch.uint8),
        "anatomy_known": torch.ones(scans, 6, dtype=torch.bool),
        "finding_masks": torch.ones(scans, 1, 16, 8, 16, dtype=torch.int32),
        "captions": [{"lung": "a nodule"}] * scans,
        "caption_id": torch.zeros(scans, 6, dtype=torch.long),
        "caption_normal": torch.zeros(scans, 6, dtype=torch.bool),
        "caption_sentences": torch.zeros(scans, 6, 2, dtype=torch.int64),
        "labels": torch.zeros(scans, 18, dtype=torch.long),
        "report": [{"findings": "a nodule"}] * scans,
        "snippets": [[{"text": "a nodule", "z_mm": 3.0}] * 2] * scans,
        "observations": [[Observation("a nodule", 0, False), Observation("a heart", 1, True)]] * scans,
        "third_stage": torch.ones(scans, 2, 4, 2, 4),
        "fourth_stage": torch.ones(scans, 2, 2, 1, 2),
        "image_affine": torch.eye(4, dtype=torch.float64).expand(scans, 4, 4),
    }


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective.__name__)
def test_a_loss_reads_outputs_and_targets_only(objective: type[nn.Module]) -> None:
    assert set(objective.inputs) <= set(get_type_hints(NetworkOutputs)) | set(get_type_hints(Targets))


def test_a_step_writes_every_key_along_the_axis_it_is_said_to_have(
    make_model: Callable[[], VisionLanguageModel],  # noqa: F811
) -> None:
    scans, model = 3, make_model()
    tower = model.image.tower
    model.image.pathology = ObservationExtractor(tower, 8, (4, 4, 3), heads=2)
    model.correlation = CorrelationExplorer(tower, 8, (4, 4, 3), (-1000, 1000))
    image, targets, _, inputs = prepare_report_batch(batch(scans))
    assert set(inputs) == set(get_type_hints(NetworkInputs))
    assert set(targets) == set(get_type_hints(Targets))
    # The small tower has no cached outputs; tests/published/astra trains on them.
    inputs = {name: value for name, value in inputs.items() if not name.endswith("_stage")}
    outputs = {**model.train()(image, **inputs), **model.eval()(image, **inputs)}
    assert set(outputs) == set(get_type_hints(NetworkOutputs))
    for name, value in {**targets, **outputs}.items():
        if value.dim():
            along = batch_axis(name)
            assert value.shape[along.axis] == (scans if along.per_scan else 2 * scans), name
    assert {name for name, value in outputs.items() if not value.dim()} == {"temperature", "temperature_global"}
