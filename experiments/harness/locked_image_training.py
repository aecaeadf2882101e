"""Training and scoring over a locked image tower: every scan is encoded once, and an objective on texts trains in
minutes.

Shapes: S studies, K anatomies, D depths, F and G pooled features of an anatomy and of a depth, C findings, E embedding.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.utils import set_determinism
from numpy.typing import NDArray
from torch import Tensor

from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.data.study_record import report_text, text_id
from bundle.ctfindings.evaluation.evaluated_model import SplitScores, perturbation_pairs
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDINGS
from bundle.ctfindings.networks.image.depth import depth_positions
from bundle.ctfindings.networks.image.image_encoder import ImageEncoder
from bundle.ctfindings.reports.caption_augmentation import RandCaptionsd
from bundle.ctfindings.training.handlers import LossLog
from bundle.ctfindings.training.parameter_groups import parameter_groups
from experiments.harness.locked_image_model import LockedImageModel
from experiments.harness.pooled_features import pooled_features

SCORED_AT_ONCE = 64

ON_CAPTIONS = {"local_anatomy", "cross_anatomy", "text_separation", "anatomy_prototypes"}
"""Objectives of train.json and its overlays that read the captions of the anatomies."""
ON_PROMPTS = {"disease_prompts", "prompt_agreement"}
"""Those that read drawn wordings of the findings."""


@dataclass(frozen=True)
class LockedSplit:
    """The studies of a split as an image tower sees them.

    Attributes:
        ids: of the studies, S.
        features: pooled features of the anatomies, ``[S, K, F]``.
        valid: anatomies the scan shows, ``[S, K]``.
        depth: features of the depths, ``[S, D, G]``, zero beyond the end of a scan.
        depth_mm: their world z in mm, NaN beyond the end of a scan and where it is padding, ``[S, D]``.
    """

    ids: NDArray[np.str_]
    features: NDArray[np.float32]
    valid: NDArray[np.bool_]
    depth: NDArray[np.float32]
    depth_mm: NDArray[np.float32]

    def save(self, path: Path) -> None:
        """Writes an ``.npz`` file."""
        with atomic_path(path) as temporary:
            np.savez(temporary, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads what `save` wrote."""
        with np.load(path, allow_pickle=False) as content:
            return cls(**{field.name: content[field.name] for field in fields(cls)})


def encode_split(image: ImageEncoder, loader: Iterable[dict[str, Any]], name: str) -> LockedSplit:
    """Encodes every study of a loader, from the image alone.

    Args:
        image: the encoder, with its weights.
        loader: batches with ``id`` and ``image``, and the geometry of ``KeepGeometryd``.
        name: label of the progress bar.
    """
    image.eval()
    height: int = image.tower.stride[2]  # type: ignore[index,assignment]
    ids: list[str] = []
    parts: dict[str, list[NDArray[Any]]] = {"features": [], "valid": [], "depth": [], "depth_mm": []}
    with torch.no_grad():
        for batch in progress_bar(loader, name):
            scans = batch["image"].float()
            pooled = pooled_features(image, scans)
            ids.extend(batch["id"])
            parts["features"] += list(pooled.anatomy.numpy())
            parts["valid"] += list(pooled.valid.numpy())
            parts["depth"] += list(pooled.depth.numpy())
            parts["depth_mm"] += list(depth_positions(batch["image_affine"], scans, height).numpy())
    return LockedSplit(
        np.asarray(ids),
        np.stack(parts["features"]),
        np.stack(parts["valid"]),
        _stack_padded(parts["depth"], 0.0),
        _stack_padded(parts["depth_mm"], np.nan),
    )


def _stack_padded(rows: Sequence[NDArray[Any]], value: float) -> NDArray[Any]:
    longest = max(len(row) for row in rows)
    return np.stack(
        [np.pad(row, [(0, longest - len(row))] + [(0, 0)] * (row.ndim - 1), constant_values=value) for row in rows]
    )


class LockedBatches:
    """Batches of encoded studies with their texts, in an order of its own every epoch.

    Args:
        split: the encoded studies.
        studies: their records, from ``load_datalist``, in the same order.
        batch_size: studies of a batch; an incomplete last one is left out.
        augmentation: of the captions; None leaves them as they are.
        seed: of order and augmentation.

    Raises:
        ValueError: the records are not those that were encoded, or fewer than a batch.
    """

    def __init__(
        self,
        split: LockedSplit,
        studies: Sequence[Mapping[str, Any]],
        batch_size: int,
        augmentation: RandCaptionsd | None,
        seed: int,
    ) -> None:
        if split.ids.tolist() != [study["id"] for study in studies]:
            raise ValueError(
                "the encoded studies are not those of the datalist; remove the encoded files, and run again"
            )
        if len(studies) < batch_size:
            raise ValueError(f"{len(studies)} studies do not fill a batch of {batch_size}; give a smaller batch_size")
        self.split, self.studies, self.batch_size = split, studies, batch_size
        self.augmentation = augmentation
        self.order = np.random.default_rng(seed)
        if augmentation is not None:
            augmentation.set_random_state(seed)

    def __len__(self) -> int:
        return len(self.studies) // self.batch_size

    def __iter__(self) -> Iterator[dict[str, Any]]:
        order = self.order.permutation(len(self.studies))
        for start in range(0, len(self) * self.batch_size, self.batch_size):
            chosen = order[start : start + self.batch_size]
            studies = [self.studies[index] for index in chosen]
            if self.augmentation is not None:
                studies = [self.augmentation(study) for study in studies]
            yield {
                **{
                    name: torch.from_numpy(getattr(self.split, name)[chosen])
                    for name in ("features", "valid", "depth", "depth_mm")
                },
                "captions": [study["captions"] for study in studies],
                "reports": [report_text(study.get("report")) for study in studies],
                "snippets": [
                    [one for one in study.get("snippets") or () if one.get("z_mm") is not None] for study in studies
                ],
                **{
                    key: torch.stack([study[key] for study in studies])
                    for key in ("labels", "caption_id", "caption_sentences", "caption_normal")
                },
            }


def locked_model(parser: ConfigParser, split: LockedSplit) -> LockedImageModel:
    """The model of a configuration, its initial weights drawn by ``seed``: its text tower and embedding size.

    Args:
        parser: ``train.json`` with overlays.
        split: encoded studies, for the sizes of their features.
    """
    set_determinism(parser.get_parsed_content("seed"))
    text, embedding = parser.get_parsed_content("network_def#text"), int(parser.get_parsed_content("embedding"))
    return LockedImageModel(text, split.features.shape[2], split.depth.shape[2], embedding)


def train_locked(
    parser: ConfigParser, model: LockedImageModel, split: LockedSplit, studies: Sequence[Mapping[str, Any]]
) -> LockedImageModel:
    """Trains a model by the objective, optimizer settings and schedule of a configuration; returns it.

    Objectives on tokens and masks find no input here and take no part.

    Args:
        parser: ``train.json`` with overlays; its ``loss`` must not have been parsed yet.
        model: from ``locked_model``.
        split: encoded training studies.
        studies: their records, in the same order.

    Raises:
        ValueError: the studies do not fill a batch.
    """
    settings = {
        key: parser.get_parsed_content(key) for key in ("seed", "epochs", "batch_size", "learning_rate", "weight_decay")
    }
    augmentation = [step for step in parser.get_parsed_content("augmentation") if isinstance(step, RandCaptionsd)]
    batches = LockedBatches(
        split, studies, settings["batch_size"], augmentation[0] if augmentation else None, settings["seed"]
    )
    parser["training_studies"] = list(studies)
    # Only its length is read, for the warm-up of weights.
    parser["train"]["dataloader"] = [0] * len(batches)
    parser.parse(reset=True)
    loss = parser.get_parsed_content("loss")
    optimizer = torch.optim.AdamW(
        parameter_groups(model, loss), lr=settings["learning_rate"], weight_decay=settings["weight_decay"]
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=settings["learning_rate"],
        total_steps=settings["epochs"] * len(batches) + 1,
        pct_start=parser.get_parsed_content("warmup_fraction"),
    )
    trainer = SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=settings["epochs"],
        train_data_loader=batches,
        network=model,
        optimizer=optimizer,
        loss_function=loss,
        prepare_batch=partial(_prepare, weights=parser.get_parsed_content("loss_weights")),
        train_handlers=[LrScheduleHandler(cast(Any, scheduler), print_lr=False, epoch_level=False), LossLog(loss)],
        decollate=False,
    )
    trainer.run()
    return model.eval()


def score_locked(model: LockedImageModel, split: LockedSplit, studies: Sequence[Mapping[str, Any]]) -> SplitScores:
    """What a model says about the studies of a split; it has no tokens, so that evidence and anatomies are NaN.

    Args:
        model: trained, or not.
        split: encoded studies.
        studies: their records, in the same order.
    """
    model.eval()
    parts: dict[str, list[NDArray[np.float64]]] = {"template": [], "wording": [], "anatomy": []}
    with torch.no_grad():
        templates = model.template_deltas()
        # The text side of a wording is all that is read of the model there.
        positive, negative = perturbation_pairs(model.text)
        wordings = (positive - negative).view(-1, len(FINDINGS), templates.shape[2])
        for start in range(0, len(studies), SCORED_AT_ONCE):
            features = torch.from_numpy(split.features[start : start + SCORED_AT_ONCE])
            valid = torch.from_numpy(split.valid[start : start + SCORED_AT_ONCE])
            parts["template"].append(model.score(features, valid, templates).double().numpy())
            parts["wording"].append(model.score(features, valid, wordings).double().numpy())
            parts["anatomy"].append(model(features, valid)["anatomy"].double().numpy())
        depth = model.depth_rows(torch.from_numpy(split.depth))
    joined = {name: np.concatenate(values) for name, values in parts.items()}
    count = len(studies)
    return SplitScores(
        ids=[str(study["id"]) for study in studies],
        patients=[str(study["patient"]) for study in studies],
        labels=label_rows(studies),
        logits=joined["template"][:, 0],
        template_logits=joined["template"][:, 1:],
        wording_logits=joined["wording"],
        anatomy=joined["anatomy"],
        anatomy_valid=split.valid,
        domain_features=np.full((count, len(ANATOMIES), 0), np.nan),
        peaks_mm=np.full((count, len(FINDINGS), 3), np.nan),
        random_mm=np.full((count, len(FINDINGS), 1, 3), np.nan),
        anatomy_dice=np.full((count, len(ANATOMIES)), np.nan),
        depth=list(depth),
        depth_mm=list(torch.from_numpy(split.depth_mm)),
    )


def _prepare(
    batch: dict[str, Any],
    device: str | torch.device | None = None,
    non_blocking: bool = False,
    weights: Mapping[str, float] | None = None,
    **_: Any,
) -> tuple[Tensor, dict[str, Tensor], tuple, dict[str, Any]]:
    """What the objectives of these weights read; texts that none of them reads are not encoded."""
    used = {name for name, weight in (weights or {}).items() if weight}
    inputs = {
        "valid": batch["valid"],
        "captions": batch["captions"] if used & ON_CAPTIONS else None,
        "prompts": bool(used & ON_PROMPTS),
    }
    targets = {key: batch[key] for key in ("labels", "caption_id", "caption_sentences", "caption_normal")}
    if "siglip" in used:
        inputs["reports"] = batch["reports"]
        targets["report_id"] = torch.tensor([text_id(text) for text in batch["reports"]])
    if "snippet_localization" in used:
        inputs |= {name: batch[name] for name in ("snippets", "depth", "depth_mm")}
    return batch["features"], targets, (), inputs
