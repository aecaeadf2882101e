"""Cache key: everything that changes a preprocessed scan changes the key, and nothing else does."""

import inspect
from functools import partial
from types import ModuleType
from typing import Any

import monai
import numpy as np
import pytest
import torch
from monai.transforms import Lambdad

from bundle.ctfindings.data import cache_key
from bundle.ctfindings.data.cache_key import describe_pipeline, version_of
from bundle.ctfindings.data.transforms import image_pipeline


@pytest.mark.parametrize(
    "change",
    [
        {"spacing": (4, 4, 2)},
        {"hu_window": (-1000, 400)},
        {"roi_size": (96, 80, 96)},
        {"mapping": {7: "aorta"}},
    ],
)
def test_every_parameter_of_the_image_pipeline_is_in_its_version(change: dict) -> None:
    usual = {"spacing": (4, 4, 3), "roi_size": (96, 80, 112)}
    assert version_of(describe_pipeline(image_pipeline(**usual))) == version_of(
        describe_pipeline(image_pipeline(**usual))
    )  # type: ignore[arg-type]
    assert version_of(describe_pipeline(image_pipeline(**{**usual, **change}))) != version_of(
        describe_pipeline(image_pipeline(**usual))
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("module", "name", "other"),
    [
        (cache_key, "__version__", "0"),
        (monai, "__version__", "0"),
        (torch, "__version__", "0"),
        (inspect, "getsource", lambda kind: f"class {kind.__name__}: ..."),
    ],
    ids=["package", "MONAI", "torch", "source"],
)
def test_other_code_of_the_steps_gives_another_version(
    monkeypatch: pytest.MonkeyPatch, module: ModuleType, name: str, other: Any
) -> None:
    steps = image_pipeline(spacing=(4, 4, 3), roi_size=(96, 80, 112))
    usual = version_of(describe_pipeline(steps))
    with monkeypatch.context() as changed:
        changed.setattr(module, name, other)
        assert version_of(describe_pipeline(steps)) != usual
    assert version_of(describe_pipeline(steps)) == usual


def test_functions_differ_by_their_code_and_by_what_they_close_over() -> None:
    def step(value: float) -> Lambdad:
        return Lambdad("image", lambda image: image + value)

    def other(value: float) -> Lambdad:
        return Lambdad("image", lambda image: image - value)

    versions = [version_of(describe_pipeline([made])) for made in (step(1), step(2), other(1), step(1))]
    assert len({*versions}) == 3 and versions[0] == versions[3]


def test_functions_of_other_libraries_differ_by_name_and_arguments() -> None:
    called = [torch.relu, torch.neg, torch.Tensor.abs, torch.Tensor.neg, np.exp, np.log, partial(torch.clip, min=0)]
    called += [partial(torch.clip, min=1), partial(torch.sub, 1)]
    assert len({version_of(describe_pipeline([Lambdad("image", each)])) for each in called}) == len(called)
