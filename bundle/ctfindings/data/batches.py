"""What a batch means to the engines: inputs of the network, and targets of the losses."""

from __future__ import annotations

from typing import Any

import torch

from bundle.ctfindings.data.datalist import report_text, text_id


def prepare_batch(
    batch: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple, dict[str, Any]]:
    """A collated batch as ``(image, targets, args, kwargs)`` for MONAI's supervised engines.

    The network gets the masks of anatomies and findings, the captions, and the snippets that have a ``z_mm`` with the
    affine of the image (which studies keep with ``KeepGeometryd``) as keyword arguments; the losses get ``labels``,
    ``caption_id``, ``caption_normal`` and ``membership_known``, whichever the batch has.
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
    if "snippets" in batch and isinstance(batch.get("image_affine"), torch.Tensor):
        inputs["snippets"] = [
            [snippet for snippet in given or () if snippet.get("z_mm") is not None] for given in batch["snippets"]
        ]
        inputs["affine"] = move(batch["image_affine"])
    targets: dict[str, torch.Tensor] = {
        key: move(batch[key]) for key in ("labels", "caption_id", "caption_normal") if key in batch
    }
    if "anatomy_known" in inputs:
        targets["membership_known"] = inputs["anatomy_known"]
    return move(batch["image"]).float(), targets, (), inputs


def prepare_report_batch(
    batch: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor], tuple, dict[str, Any]]:
    """``prepare_batch`` with what the objectives on whole reports read.

    The network gets the text of each report; the losses get ``report_id``, the identity of each report's text. Encoding
    reports costs time, so that only objectives that need it use this.
    """
    image, targets, args, inputs = prepare_batch(batch, device, non_blocking)
    if "report" in batch:
        inputs["reports"] = [report_text(report) for report in batch["report"]]
        targets["report_id"] = torch.tensor([text_id(text) for text in inputs["reports"]]).to(
            device, non_blocking=non_blocking
        )
    return image, targets, args, inputs


def prepare_image_batch(
    batch: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The image alone with its labels: for scoring as a user would, without mask and report."""
    image, targets = prepare_batch(batch, device, non_blocking)[:2]
    return image, targets
