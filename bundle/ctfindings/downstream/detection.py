"""Detection of findings without training: heat maps from the prompts, their components, and how well they find lesions.

Shapes: S scans, C findings, M maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.data.datalist import bare_studies
from bundle.ctfindings.data.finding_masks import ResampleFindingMaskd
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.downstream.encoded_scans import ScanEncoder
from bundle.ctfindings.downstream.heat_maps import MAPS, EncodeHeatd
from bundle.ctfindings.downstream.result_numbers import format_value, scan_means
from bundle.ctfindings.downstream.scan_pictures import Picture, draw_pictures
from bundle.ctfindings.downstream.task_run import Results, Studies, Table
from bundle.ctfindings.evaluation.evaluated_model import whole_scan_steps
from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES, finding_index
from bundle.ctfindings.metrics.bootstrap import Bootstrap, exact_at_ends
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.detection import (
    AveragePrecision,
    Detections,
    detect,
    distances_mm,
    froc_hits,
    froc_score,
    lesions_of,
)
from bundle.ctfindings.scan.coordinates import voxel_spacing, voxel_to_world, world_to_voxel

QUANTILES = (0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
"""Of the heat within the anatomy over the validation scans: the thresholds of which one is chosen."""


DETECTION_COLUMNS = (
    *("id", "finding", "score", *(f"peak_{axis}_mm" for axis in "xyz")),
    *(f"box_{end}_{axis}_mm" for end in ("low", "high") for axis in "xyz"),
)
"""Columns of ``detections_MAP.csv``; peak and box in mm of world RAS."""

POINTING = ("pointing", "pointing_chance", "pointing_centre")
"""Of a scan with a lesion: whether the largest heat is within the tolerance of it; the share of the anatomy's tokens
that are; and whether the middle of the anatomy is."""


class Detection:
    """Pointing game, FROC and average precision of each finding and heat map.

    Args:
        findings: names of the findings that have masks.
        tolerance_mm: largest distance of a peak from a lesion that it finds.
        overlaps: least overlaps of boxes, for average precision.
        pictures: test scans that are shown.
    """

    name = "detection"

    def __init__(
        self,
        findings: Sequence[str] = ("Lung nodule", "Pleural effusion", "Consolidation", "Hiatal hernia"),
        tolerance_mm: float = 15.0,
        overlaps: Sequence[float] = (0.1, 0.3),
        pictures: int = 3,
    ) -> None:
        self.columns = [finding_index(name) for name in findings]
        self.tolerance_mm, self.overlaps, self.pictures = tolerance_mm, list(overlaps), pictures

    def check(self, studies: dict[str, Studies]) -> None:
        """ValueError if no finding has a mask in the validation and in the test split."""
        self._usable(studies)

    def _usable(self, studies: dict[str, Studies]) -> tuple[list[int], list[str]]:
        """The findings that are scored, and a line about those left out."""
        usable = []
        for column in self.columns:
            masked = [
                any("finding_masks" in study and study["labels"][column] == 1 for study in studies[split])
                for split in ("validation", "test")
            ]
            if all(masked):
                usable.append(column)
        if not usable:
            raise ValueError(
                "detection: no finding has masks in the validation and the test split; add 'finding_masks' to them"
            )
        missing = [FINDING_NAMES[column] for column in self.columns if column not in usable]
        line = f"without masks in the validation or the test split: {', '.join(missing)}; left out"
        return usable, [line] if missing else []

    def run(self, encoder: ScanEncoder, studies: dict[str, Studies], bootstrap: Bootstrap) -> Results:
        """Chooses a threshold for each finding and map on the validation split, and scores the test split."""
        columns, lines = self._usable(studies)
        validation, test = (_Split(encoder, studies[split], columns, split) for split in ("validation", "test"))
        if "attention" not in test.maps:
            lines.append("detection: this model has no pathology queries, so there is one map, 'field'")
        ids = [str(study["id"]) for study in studies["test"]]
        lines += _outside(ids, columns, test)
        found: dict[str, dict[str, Any]] = {name: {} for name in test.maps}
        written: dict[str, list[list[Any]]] = {name: [] for name in test.maps}
        pointed: list[list[Any]] = []
        detected: dict[int, list[Detections]] = {}
        for place, column in enumerate(columns):
            for name in test.maps:
                threshold = self._choose(validation, name, place)
                detections = test.detections(name, place, threshold)
                pointing = np.array([self._pointing(test, row, name, place) for row in range(len(ids))])
                score = self._score(test, place, detections, pointing, bootstrap)
                pointed += _pointed(ids, FINDING_NAMES[column], name, pointing)
                found[name][FINDING_NAMES[column]] = {"threshold": threshold, **score}
                written[name] += _rows(ids, FINDING_NAMES[column], detections)
                if name == test.maps[0]:
                    detected[place] = detections
        record = {"encoder": "frozen", "tolerance_mm": self.tolerance_mm, "overlaps": self.overlaps, "maps": found}
        files: dict[str, Callable[[Path], None]] = {
            f"detections_{name}.csv": partial(write_table, columns=DETECTION_COLUMNS, rows=rows)
            for name, rows in written.items()
        }
        files["pointing.csv"] = partial(write_table, columns=["id", "finding", "map", *POINTING], rows=pointed)
        pictures = self._pictures(test, ids, detected)
        names = [FINDING_NAMES[column] for column in columns]
        files["lesions.png"] = partial(
            draw_pictures, pictures=pictures, names=names, predicted_as=f"detected ({test.maps[0]})"
        )
        return Results(record, self._tables(found), files, lines)

    def _choose(self, split: _Split, name: str, place: int) -> float:
        """The threshold with the best average precision at the smallest overlap on the validation split."""
        values = np.concatenate([scan.heat[name][place][scan.inside[place]] for scan in split.scans])
        thresholds = np.quantile(values, QUANTILES)
        scores = []
        for threshold in thresholds:
            detections = split.detections(name, place, threshold)
            given = [scan for scan in range(len(split.scans)) if split.known[scan, place]]
            score = AveragePrecision(detections, [each.boxes for each in split.lesions[place]], self.overlaps[:1])
            scores.append(score.of(np.array(given))[0])
        # Of equal ones the highest, which gives the fewest detections.
        return float(thresholds[len(scores) - 1 - int(np.argmax(scores[::-1]))])

    def _score(
        self, test: _Split, place: int, detections: Sequence[Detections], pointing: FloatArray, bootstrap: Bootstrap
    ) -> dict[str, Any]:
        """Every number of a finding and a map, with intervals by patient."""
        lesions, known = test.lesions[place], np.flatnonzero(test.known[:, place])
        hits = [froc_hits(*pair, self.tolerance_mm) for pair in zip(detections, lesions, strict=True)]
        precision = AveragePrecision(detections, [each.boxes for each in lesions], self.overlaps)
        counts = np.array([len(each.voxels) for each in lesions])

        def froc(scans: NDArray[np.int64]) -> FloatArray:
            true, false = (np.concatenate([hits[scan][kind] for scan in scans]) for kind in (0, 1))
            return np.array([froc_score(true, false, int(counts[scans].sum()), len(scans)), *precision.of(scans)])

        ranked = bootstrap.of(known).row_interval(froc, [known])
        clean = np.where(test.known[:, place] & (counts == 0), [len(each.scores) for each in detections], np.nan)
        columns = np.column_stack([pointing, clean])
        # Whether a place is right is a trial of each patient with a lesion; the other columns are shares and counts.
        patients = np.unique(np.asarray(bootstrap.patients)[~np.isnan(pointing[:, 0])]).size
        trials = [0 if name == "pointing_chance" else patients for name in POINTING]
        means = exact_at_ends(bootstrap.interval(lambda weights: scan_means(columns, weights)), [*trials, 0])
        names = (*POINTING, "false_positives_per_clean_scan")
        record = {key: means.entry(row) for row, key in enumerate(names)}
        record["froc"] = ranked.entry(0)
        for row, overlap in enumerate(self.overlaps, start=1):
            record[f"ap_{overlap:g}"] = ranked.entry(row)
        return {"lesions": int(counts[known].sum()), "scans_with_lesion": int((counts[known] > 0).sum()), **record}

    def _pointing(self, test: _Split, row: int, name: str, place: int) -> list[float]:
        """``POINTING`` of a scan; NaN without a lesion."""
        scan, lesions = test.scans[row], test.lesions[place][row]
        if not lesions.voxels:
            return [np.nan] * 3
        cells = np.argwhere(scan.inside[place])
        near = np.asarray((distances_mm(scan.in_mm(cells), lesions) <= self.tolerance_mm).any(axis=1))
        heat = scan.heat[name][place][scan.inside[place]]
        middle = np.linalg.norm(cells - cells.mean(axis=0), axis=1).argmin()
        return [float(near[heat.argmax()]), float(near.mean()), float(near[middle])]

    def _pictures(self, test: _Split, ids: Sequence[str], detected: dict[int, list[Detections]]) -> list[Picture]:
        """The test scans with most findings: lesions, and the cells of the detections of the first map."""
        count = [sum(bool(test.lesions[place][row].voxels) for place in detected) for row in range(len(ids))]
        pictures = []
        for row in np.argsort(-np.array(count), kind="stable")[: self.pictures]:
            scan = test.scans[row]
            shape = scan.image.shape
            marked = np.zeros((len(detected), *shape), bool)
            for place, detections in detected.items():
                for box in detections[row].boxes:
                    ends = world_to_voxel(box.reshape(2, 3), scan.affine)
                    low, high = np.sort(np.rint(ends + 0.5).astype(int), axis=0)
                    (x, y, z), (last_x, last_y, last_z) = low.tolist(), high.tolist()
                    marked[place, x:last_x, y:last_y, z:last_z] = True
            pictures.append(Picture(ids[row], scan.image, scan.masks, marked, voxel_spacing(scan.affine)))
        return pictures

    def _tables(self, found: dict[str, dict[str, Any]]) -> list[Table]:
        overlaps = [f"AP at {overlap:g}" for overlap in self.overlaps]
        chance = ["pointing", "chance", "middle"]
        columns = ["finding", "lesions", *chance, "FROC", *overlaps, "detections on a scan without"]
        keys = ["pointing", "pointing_chance", "pointing_centre", "froc"]
        keys += [*(f"ap_{overlap:g}" for overlap in self.overlaps), "false_positives_per_clean_scan"]
        return [
            Table(
                f"Map {name}",
                columns,
                [
                    [
                        finding,
                        f"{entry['lesions']} in {entry['scans_with_lesion']}",
                        *(format_value(entry[k]) for k in keys),
                    ]
                    for finding, entry in findings.items()
                ],
            )
            for name, findings in found.items()
        ]


class _Scan:
    """Heat, anatomy and masks of one scan as arrays."""

    def __init__(self, study: dict[str, Any], columns: Sequence[int]) -> None:
        self.heat = {name: study[f"heat_{name}"].float().numpy() for name in MAPS if f"heat_{name}" in study}
        inside = study["inside"].numpy()
        self.seen = inside.any(axis=(1, 2, 3))
        # Without a token of the anatomy, every token may be the place.
        self.inside = inside | ~self.seen[:, None, None, None]
        self.tokens, self.affine = study["token_affine"].numpy(), study["image_affine"].numpy()
        self.image = study["image"][0].float().numpy()
        bits = study.get("finding_masks", torch.zeros(study["image"].shape, dtype=torch.int32))[0].numpy()
        self.masks = np.stack([(bits >> column) & 1 > 0 for column in columns])
        # Absent, or marked: a finding without a mask may be anywhere.
        absent = study["labels"].numpy()[list(columns)] == 0
        self.known = absent | self.masks.any(axis=(1, 2, 3))

    def in_mm(self, cells: NDArray[np.int64]) -> FloatArray:
        """Centres of tokens by index, ``[n, 3]``."""
        return voxel_to_world(cells, self.tokens)


class _Split:
    """The scans of a split, and the lesions of each finding."""

    def __init__(self, encoder: ScanEncoder, studies: Studies, columns: Sequence[int], name: str) -> None:
        bare = bare_studies(studies, "finding_masks", "labels")
        encoder.network.eval()
        heat = EncodeHeatd(encoder.network, columns, encoder.device)
        steps = [*whole_scan_steps(encoder.preprocessing), ResampleFindingMaskd(), heat]
        encoded = CachedStudies(bare, steps, (), encoder.cache_dir, ["heat", encoder.cache_key])
        self.scans = [_Scan(encoded[row], columns) for row in progress_bar(range(len(bare)), name, unit="scan")]
        self.maps = list(self.scans[0].heat)
        self.known = np.stack([scan.known for scan in self.scans])
        self.lesions = [
            [lesions_of(scan.masks[place], scan.affine) for scan in self.scans] for place in range(len(columns))
        ]

    def detections(self, name: str, place: int, threshold: float) -> list[Detections]:
        """The components of a map within the anatomy of the finding, of each scan."""
        return [
            detect(np.where(scan.inside[place], scan.heat[name][place], -np.inf), threshold, scan.tokens)
            for scan in self.scans
        ]


def _outside(ids: Sequence[str], columns: Sequence[int], split: _Split) -> list[str]:
    """A line for each finding that has no place in some scans; their heat may peak anywhere."""
    lines = []
    for place, column in enumerate(columns):
        if unseen := [id_ for id_, scan in zip(ids, split.scans, strict=True) if not scan.seen[place]]:
            name = FINDING_NAMES[column].lower()
            lines.append(f"detection: no anatomy of {name} was found in {', '.join(unseen)}: all of it is searched")
    return lines


def _rows(ids: Sequence[str], finding: str, detections: Sequence[Detections]) -> list[list[Any]]:
    return [
        [id_, finding, f"{score:.4f}", *(f"{value:.1f}" for value in (*peak, *box))]
        for id_, each in zip(ids, detections, strict=True)
        for score, peak, box in zip(*each, strict=True)
    ]


def _pointed(ids: Sequence[str], finding: str, name: str, pointing: FloatArray) -> list[list[Any]]:
    return [
        [id_, finding, name, *(f"{value:.4f}" for value in values)]
        for id_, values in zip(ids, pointing, strict=True)
        if not np.isnan(values).any()
    ]
