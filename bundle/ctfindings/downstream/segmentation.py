"""Semantic segmentation: a decoder on the token levels of the encoder, at fractions of the labels.

Shapes: S scans, C classes, X Y Z voxels of the network's grid.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data.datalist import bare_studies
from bundle.ctfindings.data.finding_masks import ResampleFindingMaskd
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.data.transforms import KeepGeometryd
from bundle.ctfindings.downstream.best_training import BestTraining
from bundle.ctfindings.downstream.encoded_scans import ScanEncoder
from bundle.ctfindings.downstream.label_fractions import Subsets, draw_subsets, subset_rows, usable_classes
from bundle.ctfindings.downstream.result_numbers import (
    drawn_metric,
    format_seeds,
    format_value,
    plot_by_fraction,
    scan_means,
)
from bundle.ctfindings.downstream.scan_pictures import Picture, draw_pictures
from bundle.ctfindings.downstream.segmentation_scores import (
    KnownMaskLoss,
    OverlapScores,
    evaluate_segmenter,
    segmentation_batch,
)
from bundle.ctfindings.downstream.segmentation_targets import SegmentationClasses
from bundle.ctfindings.downstream.segmenter import Segmenter, level_strides
from bundle.ctfindings.downstream.task_run import Results, Studies, Table
from bundle.ctfindings.files.atomic_write import safe_name
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.networks.image.segmentation_decoder import SegmentationDecoder
from bundle.ctfindings.networks.image.token_levels import EncodeLevelsd
from bundle.ctfindings.scan.coordinates import voxel_spacing

METRICS = ("dice", "nsd", "false_positive_scans")


class Segmentation:
    """Dice, NSD and false positives of masks of anatomies and findings.

    Args:
        classes: see ``SegmentationClasses``.
        preprocessing: image pipeline of training, to scans of one size.
        training: training of the decoder.
        fractions: percentages of the training patients whose masks are used.
        seeds: seeds of the draws of these patients and of the decoder; numbers are means over the draws.
        tuning_rate: learning rate of the tower, which is trained with the decoder; None leaves it frozen.
        tolerance_mm: distance within which surfaces agree, for NSD.
        pictures: test scans that are shown, and whose masks are written.
        cache_dir, cache_key: see ``cached_dataset``.
    """

    name = "segmentation"

    def __init__(
        self,
        classes: str | Sequence[str],
        preprocessing: Sequence[Transform],
        training: BestTraining,
        fractions: Sequence[float] = (5, 25, 100),
        seeds: Sequence[int] = (0, 1, 2),
        tuning_rate: float | None = None,
        tolerance_mm: float = 8.0,
        pictures: int = 3,
        cache_dir: str | None = None,
        cache_key: Any = None,
    ) -> None:
        self.classes, self.preprocessing = SegmentationClasses(classes), list(preprocessing)
        self.training, self.fractions, self.seeds = training, sorted(fractions), list(seeds)
        self.tuning_rate, self.tolerance_mm = tuning_rate, tolerance_mm
        self.pictures, self.cache_dir, self.cache_key = pictures, cache_dir, cache_key

    @property
    def _encoder(self) -> str:
        return "frozen" if self.tuning_rate is None else "tuned"

    def check(self, studies: dict[str, Studies]) -> None:
        """ValueError if no class has a mask in every subset, and in the validation and the test split."""
        self._usable(studies)

    def _usable(self, studies: dict[str, Studies]) -> tuple[Subsets, list[str], list[str]]:
        """Subsets, the names of the classes that are learned and scored, and the warnings."""
        subsets = draw_subsets(studies["training"], self.fractions, self.seeds, repeat_all=True)
        stated = {split: np.stack([self.classes.stated(s) for s in listed]) for split, listed in studies.items()}
        known = {drawn: np.asarray(stated["training"][subset].any(axis=0)) for drawn, subset in subsets.items()}
        usable, lines = usable_classes(self.name, subsets, known, self.classes.names, "a mask")
        for split in ("validation", "test"):
            here = np.asarray(stated[split].any(axis=0))
            if missing := [n for n, masked in zip(self.classes.names, here, strict=True) if not masked]:
                lines.append(f"the {split} split: without a mask: {', '.join(missing)}; left out")
            usable &= here
        if not usable.any():
            raise ValueError(
                "segmentation: no class has masks in all splits; add 'anatomy' or 'finding_masks', or other classes"
            )
        return subsets, [name for name, kept in zip(self.classes.names, usable, strict=True) if kept], lines

    def run(self, encoder: ScanEncoder, studies: dict[str, Studies], bootstrap: Bootstrap) -> Results:
        """Trains a decoder on every subset and scores the test split."""
        subsets, names, lines = self._usable(studies)
        classes = SegmentationClasses(names)
        stated = np.stack([classes.stated(study) for study in studies["test"]])
        # The scans with most findings, or the first ones: chosen by their masks, not by what was predicted.
        shown = np.argsort(-stated.sum(axis=1), kind="stable")[: self.pictures].tolist()
        drawn: dict[float, list[dict[str, FloatArray]]] = {percent: [] for percent in self.fractions}
        validated = {}
        for (percent, seed), subset in subsets.items():
            segmenter, validated[percent, seed] = self._train(encoder, studies, subset, classes, seed)
            scores = OverlapScores(self.tolerance_mm, shown)
            loader = study_loader(self._whole_scans(encoder, studies["test"]), 1)
            evaluate_segmenter(segmenter, loader, segmentation_batch(classes), encoder.device, scores).run()
            drawn[percent].append(scores.scores())
        record, tables = self._score(drawn, stated, names, bootstrap)
        record |= {"encoder": self._encoder, "tolerance_mm": self.tolerance_mm}
        record["subsets"] = [
            {**row, "validation_dice": dice} for row, dice in zip(subset_rows(subsets), validated.values(), strict=True)
        ]
        ids = [str(study["id"]) for study in studies["test"]]
        lines += _outside(ids, names, scores.scores())
        files: dict[str, Callable[[Path], None]] = {
            f"predictions_{percent:g}.csv": partial(_write_scores, ids=ids, names=names, draws=draws)
            for percent, draws in drawn.items()
        }
        # The masks of the last draw, which had all labels.
        pictures = []
        for place, kept in zip(sorted(shown), scores.kept, strict=True):
            spacing = voxel_spacing(kept["affine"])
            pictures.append(Picture(ids[place], kept["image"], kept["truth"], kept["predicted"], spacing))
            files[f"masks/{safe_name(ids[place])}.nii.gz"] = partial(
                _write_masks, masks=kept["predicted"], affine=kept["affine"]
            )
        files["masks.png"] = partial(draw_pictures, pictures=pictures, names=names)
        files["dice_by_fraction.png"] = partial(
            plot_by_fraction,
            by_fraction={percent: found["dice"]["macro"] for percent, found in record["fractions"].items()},
            ylabel="mean Dice",
            label="decoder",
            line=None,
        )
        return Results(record, tables, files, lines)

    def _train(
        self,
        encoder: ScanEncoder,
        studies: dict[str, Studies],
        subset: Sequence[int],
        classes: SegmentationClasses,
        seed: int,
    ) -> tuple[Segmenter, float]:
        """A segmenter that was trained on a subset, and its Dice on the validation split."""
        torch.manual_seed(seed)
        tower = encoder.network.image.tower
        decoder = SegmentationDecoder(tower.width, level_strides(tower), len(classes.names))  # type: ignore[arg-type]
        segmenter = Segmenter(tower if self.tuning_rate is None else copy.deepcopy(tower), decoder).to(encoder.device)
        groups = [{"params": list(decoder.parameters()), "lr": self.training.learning_rate}]
        if self.tuning_rate is not None:
            groups.append({"params": list(segmenter.tower.parameters()), "lr": self.tuning_rate})
        crops = self._scans(encoder, [studies["training"][index] for index in subset], self.preprocessing)
        loader = study_loader(crops, self.training.batch_size, shuffle=True, seed=seed)
        validation = study_loader(self._whole_scans(encoder, studies["validation"]), 1)
        evaluator = evaluate_segmenter(
            segmenter, validation, segmentation_batch(classes), encoder.device, OverlapScores()
        )
        return segmenter, self.training.run(evaluator, groups, loader, KnownMaskLoss(), "dice")

    def _whole_scans(self, encoder: ScanEncoder, studies: Studies) -> CachedStudies:
        return self._scans(encoder, studies, encoder.preprocessing)

    def _scans(self, encoder: ScanEncoder, studies: Studies, preprocessing: Sequence[Transform]) -> CachedStudies:
        """Scans with their masks on the grid of the network, and the token levels of a frozen tower."""
        bare = bare_studies(studies, "anatomy", "finding_masks", "labels")
        steps: list[Transform] = [*preprocessing, ResampleFindingMaskd(), KeepGeometryd("image")]
        if self.tuning_rate is None:
            steps.append(EncodeLevelsd(encoder.network.image.tower))
        return cached_dataset(bare, steps, (), self.cache_dir, ["levels", self.cache_key])

    def _score(
        self,
        drawn: dict[float, list[dict[str, FloatArray]]],
        stated: NDArray[np.bool_],
        names: Sequence[str],
        bootstrap: Bootstrap,
    ) -> tuple[dict[str, Any], list[Table]]:
        found = {
            f"{percent:g}": {
                metric: drawn_metric(
                    [partial(scan_means, _values(scores, metric)) for scores in draws], names, bootstrap
                )
                for metric in METRICS
            }
            for percent, draws in drawn.items()
        }
        rows = [
            [
                f"{percent} %",
                *(format_value(entry[m]["macro"]) for m in METRICS),
                format_seeds(entry["dice"]["macro"]["by_seed"]),
            ]
            for percent, entry in found.items()
        ]
        columns = ["labels", "Dice", f"NSD at {self.tolerance_mm:g} mm", "scans with a false positive", "Dice by seed"]
        largest = f"{self.fractions[-1]:g}"
        each = [
            [name, str(int(count)), *(format_value(found[largest][metric]["classes"][name]) for metric in METRICS)]
            for name, count in zip(names, stated.sum(axis=0), strict=True)
        ]
        title = f"By class, {largest} % of the labels"
        return {"classes": list(names), "fractions": found}, [
            Table(f"Mean over {len(names)} classes, {self._encoder} encoder", columns, rows),
            Table(title, ["class", "scans with a mask", *columns[1:4]], each),
        ]


def _outside(ids: Sequence[str], names: Sequence[str], scores: dict[str, FloatArray]) -> list[str]:
    """A line that names the scans whose masks have no voxel of any anatomy among the classes."""
    anatomies = [name in ANATOMY_NAMES for name in names]
    known, empty = scores["known"][:, anatomies] > 0, scores["truth_ml"][:, anatomies] == 0
    outside = known.any(axis=1) & (empty | ~known).all(axis=1)
    found = ", ".join(id_ for id_, apart in zip(ids, outside, strict=True) if apart)
    return [f"segmentation: no anatomy has a voxel in {found}: they show false positives alone"] if found else []


def _values(scores: dict[str, FloatArray], metric: str) -> FloatArray:
    """A value of each scan and class, NaN where it is not defined, ``[S, C]``."""
    if metric != "false_positive_scans":
        return scores[metric]
    absent = scores["known"] & (scores["truth_ml"] == 0)
    return np.where(absent, scores["predicted_ml"] > 0, np.nan)


def _write_scores(path: Path, ids: Sequence[str], names: Sequence[str], draws: Sequence[dict[str, FloatArray]]) -> None:
    """Volumes and overlaps of each test scan and class, means over the draws; an undefined value is empty."""
    columns = ("truth_ml", "predicted_ml", "dice", "nsd")
    values = {column: np.mean([draw[column] for draw in draws], axis=0) for column in columns}
    cells = np.stack([values[column] for column in columns], axis=2)
    rows = [
        [id_, name, *("" if np.isnan(cell) else f"{cell:.4f}" for cell in cells[row, place])]
        for row, id_ in enumerate(ids)
        for place, name in enumerate(names)
    ]
    write_table(path, ["id", "class", *columns], rows)


def _write_masks(path: Path, masks: NDArray[np.bool_], affine: FloatArray) -> None:
    """Predicted masks ``[C, X, Y, Z]`` as bits in the order of the classes."""
    bits = (masks.astype(np.int32) << np.arange(len(masks))[:, None, None, None]).sum(axis=0).astype(np.int32)
    nib.save(nib.Nifti1Image(bits, affine), path)
