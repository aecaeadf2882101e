"""A collated batch as MONAI's supervised engines take it: image, targets of the losses, inputs of the network."""

from typing import Any

import torch
from torch import Tensor

from bundle.ctfindings.data.study_record import MASK_KEYS, report_text, text_id
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.reports.observations import normalise
from bundle.ctfindings.step_keys import NetworkInputs, Targets

Prepared = tuple[Tensor, Targets, tuple, NetworkInputs]
STAGES = ("third", "fourth")
"""Cached outputs of a frozen tower, see ``NetworkInputs``."""


def prepare_batch(
    batch: dict[str, Any], device: str | torch.device | None = None, non_blocking: bool = False, **_: Any
) -> Prepared:
    """A batch as ``(image, targets, args, kwargs)``, see ``step_keys``; an entry that the batch lacks is absent.

    Snippets are kept if they have a ``z_mm``, and if the batch has the affine of the image (``KeepGeometryd``).
    """

    def move(value: Any) -> Tensor:
        return torch.as_tensor(value).to(device, non_blocking=non_blocking)

    inputs: NetworkInputs = {}
    targets: Targets = {"labels": move(batch["labels"])} if "labels" in batch else {}
    if isinstance(batch.get("anatomy"), Tensor):
        inputs["anatomy"] = move(batch["anatomy"])
        inputs["anatomy_known"] = targets["anatomy_known"] = move(batch["anatomy_known"])
    if isinstance(batch.get("finding_masks"), Tensor):
        inputs["finding_masks"] = move(batch["finding_masks"])
    if isinstance(batch.get("third_stage"), Tensor):
        inputs["third_stage"], inputs["fourth_stage"] = (move(batch[f"{which}_stage"]).float() for which in STAGES)
    if "captions" in batch:
        inputs["captions"] = batch["captions"]
    for name in ("caption_id", "caption_sentences", "caption_normal"):
        if name in batch:
            targets[name] = move(batch[name])  # type: ignore[literal-required]
    if "observations" in batch:
        # As plain mappings, which the gradient cache can keep in a file.
        inputs["observations"] = [[item._asdict() for item in given] for given in batch["observations"]]
        every = [item for given in batch["observations"] for item in given]
        targets["sentence_count"] = move([len(given) for given in batch["observations"]])
        targets["sentence_id"] = move([text_id(normalise(item.text)) for item in every]).long()
        targets["sentence_normal"] = move([item.normal for item in every]).bool()
        targets["sentence_anatomy"] = move([item.anatomy for item in every]).long()
        named = [[column in item.findings for column in range(len(FINDING_NAMES))] for item in every]
        targets["sentence_findings"] = move(named).bool().reshape(-1, len(FINDING_NAMES))
    if "snippets" in batch and isinstance(batch.get("image_affine"), Tensor):
        inputs["snippets"] = [
            [snippet for snippet in given or () if snippet.get("z_mm") is not None] for given in batch["snippets"]
        ]
        inputs["affine"] = move(batch["image_affine"])
    return move(batch["image"]).float(), targets, (), inputs


def prepare_report_batch(batch: dict[str, Any], *moving: Any, **options: Any) -> Prepared:
    """``prepare_batch`` with whole reports, which cost time to encode and which few objectives read."""
    image, targets, args, inputs = prepare_batch(batch, *moving, **options)
    if "report" in batch:
        inputs["reports"] = [report_text(report) for report in batch["report"]]
        targets["report_id"] = torch.tensor([text_id(text) for text in inputs["reports"]], device=image.device)
    return image, targets, args, inputs


def prepare_unmasked_batch(batch: dict[str, Any], *moving: Any, **options: Any) -> Prepared:
    """``prepare_batch`` without masks, for objectives that learn from reports alone and for their validation."""
    return prepare_batch({key: value for key, value in batch.items() if key not in MASK_KEYS}, *moving, **options)


def prepare_image_batch(batch: dict[str, Any], *moving: Any, **options: Any) -> tuple[Tensor, Targets]:
    """The image alone with its labels, to score a scan as a user would, without mask and report."""
    return prepare_batch(batch, *moving, **options)[:2]


def prepare_token_batch(batch: dict[str, Any], *moving: Any, **options: Any) -> Prepared:
    """``prepare_image_batch`` with the cached outputs of a frozen tower, so that validation runs no encoder either.

    Observations, which a metric of the objective asked for, are kept.
    """
    kept = ("image", "labels", "observations", *(f"{which}_stage" for which in STAGES))
    return prepare_batch({key: batch[key] for key in kept if key in batch}, *moving, **options)
