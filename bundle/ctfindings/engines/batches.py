"""What a batch means to the engines: inputs of the network, and targets of the losses."""

from __future__ import annotations

from typing import Any

import torch


def prepare_batch(
    batch: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple, dict[str, Any]]:
    """A collated batch as ``(image, targets, args, kwargs)`` for MONAI's supervised engines.

    The network gets the masks of anatomies and findings and the captions as keyword arguments; the losses get ``labels``, ``caption_id``,
    ``caption_normal`` and ``membership_known``, whichever the batch has.
    """

    def move(value: torch.Tensor) -> torch.Tensor:
        return torch.as_tensor(value).to(device, non_blocking=non_blocking)

    inputs: dict[str, Any] = {}
    if isinstance(batch.get("anatomy"), torch.Tensor):
        inputs["anatomy"] = move(batch["anatomy"])
        inputs["anatomy_known"] = move(batch["anatomy_known"])
    if isinstance(batch.get("finding_masks"), torch.Tensor):
        inputs["finding_masks"] = move(batch["finding_masks"])
    if "captions" in batch:
        inputs["captions"] = batch["captions"]
    targets: dict[str, torch.Tensor] = {key: move(batch[key]) for key in ("labels", "caption_id", "caption_normal") if key in batch}
    if "anatomy_known" in inputs:
        targets["membership_known"] = inputs["anatomy_known"]
    return move(batch["image"]).float(), targets, (), inputs


def prepare_image_batch(
    batch: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The image alone with its labels: for scoring as a user would, without mask and report."""
    image, targets = prepare_batch(batch, device, non_blocking)[:2]
    return image, targets
