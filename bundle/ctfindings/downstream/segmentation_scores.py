"""Loss, scores and evaluation of a segmentation decoder. Shapes: B scans, C classes, X Y Z voxels."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.losses import DiceFocalLoss
from monai.metrics import compute_dice, compute_surface_dice
from torch import Tensor, nn

from bundle.ctfindings.data.loaders import StudyLoader
from bundle.ctfindings.downstream.segmentation_targets import SegmentationClasses
from bundle.ctfindings.downstream.segmenter import Segmenter
from bundle.ctfindings.metrics.classification import macro_average
from bundle.ctfindings.networks.image.token_levels import levels_of
from bundle.ctfindings.scan.coordinates import voxel_spacing

PrepareBatch = Callable[..., tuple[Any, dict[str, Tensor]]]


class KnownMaskLoss(nn.Module):
    """Dice and focal loss of each mask, averaged over the masks that are known; zero if none is."""

    def __init__(self) -> None:
        super().__init__()
        self.loss = DiceFocalLoss(sigmoid=True, reduction="none")

    def forward(self, logits: Tensor, targets: dict[str, Tensor]) -> Tensor:
        """The loss of logits ``[B, C, X, Y, Z]`` and ``masks`` of that shape with ``known``, bool ``[B, C]``."""
        known = targets["known"]
        each = self.loss(logits, targets["masks"]).flatten(2).mean(dim=2)
        return torch.where(known, each, 0.0).sum() / known.sum().clamp(min=1)


@dataclass
class OverlapScores:
    """Handler of an evaluator that collects the overlap of each scan and class, a scan a batch.

    Args:
        tolerance_mm: distance within which surfaces agree, for NSD; None computes Dice alone.
        shown: indices of the scans whose masks are kept.
    """

    tolerance_mm: float | None = None
    shown: Sequence[int] = ()
    rows: dict[str, list[np.ndarray]] = field(default_factory=dict)
    kept: list[dict[str, np.ndarray]] = field(default_factory=list)

    def attach(self, engine: Engine) -> None:
        """Collects what the engine predicts, and gives it the metric ``dice``, the mean over classes of their means."""
        engine.add_event_handler(Events.STARTED, self._start)
        engine.add_event_handler(Events.ITERATION_COMPLETED, self._collect)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self._finish)

    def scores(self) -> dict[str, np.ndarray]:
        """``dice`` and ``nsd``, NaN for an empty or unknown mask, ``truth_ml``, ``predicted_ml`` and ``known``."""
        return {name: np.stack(rows) for name, rows in self.rows.items()}

    def _start(self, engine: Engine) -> None:
        self.rows, self.kept = {}, []

    def _collect(self, engine: Engine) -> None:
        output: Any = engine.state.output
        logits, targets = output["pred"], output["label"]
        predicted, truth = (logits > 0).float(), targets["masks"]
        spacing = voxel_spacing(targets["affine"][0].cpu().numpy())
        litre_share = float(np.prod(spacing)) / 1000
        row = {
            "dice": compute_dice(predicted, truth)[0],
            "truth_ml": truth[0].flatten(1).sum(dim=1) * litre_share,
            "predicted_ml": predicted[0].flatten(1).sum(dim=1) * litre_share,
            "known": targets["known"][0],
        }
        if self.tolerance_mm is not None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # An empty mask has no surface; its value is NaN.
                limits = [self.tolerance_mm] * truth.shape[1]
                surface = compute_surface_dice(predicted, truth, limits, include_background=True, spacing=spacing)[0]
            row["nsd"] = torch.where(truth[0].flatten(1).any(dim=1), surface.to(truth.device), torch.nan)
        if engine.state.iteration - 1 in self.shown:
            volumes = {"image": targets["image"][0, 0], "truth": truth[0] > 0, "predicted": predicted[0] > 0}
            kept = {name: value.cpu().numpy() for name, value in volumes.items()}
            self.kept.append(kept | {"affine": targets["affine"][0].cpu().numpy()})
        for name, values in row.items():
            self.rows.setdefault(name, []).append(values.cpu().numpy())

    def _finish(self, engine: Engine) -> None:
        dice = self.scores()["dice"]
        means = [float(np.nanmean(column)) if (~np.isnan(column)).any() else np.nan for column in dice.T]
        engine.state.metrics["dice"] = float(np.nan_to_num(macro_average(np.array(means))))


def segmentation_batch(classes: SegmentationClasses) -> PrepareBatch:
    """``prepare_batch`` of the engines: the levels of the scans, or their images, and the targets."""

    def prepare(batch: dict[str, Any], device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
        masks, known = classes.targets(batch)
        targets = {"masks": masks, "known": known, "affine": batch["image_affine"], "image": batch["image"].float()}
        targets = {name: value.to(device, non_blocking=non_blocking) for name, value in targets.items()}
        levels = [level.to(device, non_blocking=non_blocking) for level in levels_of(batch)]
        return levels or targets["image"], targets

    return prepare


def evaluate_segmenter(
    segmenter: Segmenter, loader: StudyLoader, prepare: PrepareBatch, device: torch.device, scores: OverlapScores
) -> SupervisedEvaluator:
    """An evaluator, not run yet, that collects ``scores``."""
    evaluator = SupervisedEvaluator(
        device=device, val_data_loader=loader, network=segmenter, prepare_batch=prepare, decollate=False
    )
    scores.attach(evaluator)
    return evaluator
