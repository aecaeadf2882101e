"""Evaluation of a checkpoint: calibration and thresholds from the validation split, scores of the test split, all written to a folder.

Shapes: S studies, T templates, C findings, K anatomies.
"""

from __future__ import annotations

import csv
import json
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import monai
import nibabel as nib
import numpy as np
import torch
from monai.transforms import Transform
from nibabel.spatialimages import SpatialImage
from numpy.typing import NDArray

from bundle.ctfindings import __version__
from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data import load_datalist
from bundle.ctfindings.engines.loading import cached_dataset, study_loader
from bundle.ctfindings.engines.scoring import KeepGeometryd, SplitScores, collect_scores
from bundle.ctfindings.findings import FINDING_NAMES, FINDINGS, finding_index
from bundle.ctfindings.inference.atomic import atomic_path
from bundle.ctfindings.metrics import (
    apply_platt,
    check_disjoint,
    choose_thresholds,
    evaluate_split,
    evidence_distance,
    evidence_hit_rate,
    finding_auc,
    fit_platt,
    format_table,
    load_paraphrases,
    macro_average,
    paraphrase_accuracy,
    plot_auc_by_finding,
    plot_roc_grid,
    rank_of_finding,
)
from bundle.ctfindings.networks import (
    PromptBank,
    TextTower,
    VisionLanguageModel,
    load_checkpoint,
    mean_over_templates,
    save_bundle_weights,
    template_bank,
)
from bundle.ctfindings.networks.checkpoint import sha256_of

logger = logging.getLogger(__name__)

EVIDENCE_TOLERANCE_MM = 15.0
LOCALIZED = tuple(index for index, finding in enumerate(FINDINGS) if finding.localized)


@dataclass(frozen=True)
class Calibration:
    """Platt scaling and thresholds of the findings, from calibration studies that are not scored.

    Attributes:
        scale: ``[C]``.
        shift: ``[C]``.
        thresholds: on calibrated probabilities, ``[C]``.
        problem: why nothing could be fitted, so that the probabilities are the sigmoid of the logits; None when all is well.
    """

    scale: NDArray[np.float64]
    shift: NDArray[np.float64]
    thresholds: NDArray[np.float64]
    problem: str | None = None

    def probabilities(self, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        """Logits ``[..., C]`` to calibrated probabilities."""
        return apply_platt(logits, self.scale, self.shift)


def calibrate(scores: SplitScores, split: str = "validation", scored_ids: Sequence[str] = ()) -> Calibration:
    """Calibration and Youden thresholds from the studies of one split.

    Args:
        scores: of the calibration studies.
        split: its name; the test split is refused.
        scored_ids: studies on which the thresholds will be scored.

    A network that has learned nothing cannot be calibrated but can be scored; the calibration then says so in ``problem``.

    Raises:
        ValueError: a study is in both sets.
    """
    check_disjoint(scores.ids, scored_ids)
    problem = None
    try:
        scale, shift = fit_platt(scores.logits, scores.labels)
    except ValueError as error:
        problem = f"not calibrated: {error}"
        scale, shift = np.ones(scores.labels.shape[1]), np.zeros(scores.labels.shape[1])
    probabilities = apply_platt(scores.logits, scale, shift)
    thresholds = choose_thresholds(probabilities, scores.labels, split=split, calibration_ids=scores.ids, scored_ids=scored_ids)
    return Calibration(scale, shift, thresholds, problem)


def evaluate_checkpoint(
    network: VisionLanguageModel,
    ckpt_path: str | Path,
    datalist: str | Path,
    preprocessing: Sequence[Transform],
    output_dir: str | Path,
    paraphrases: str | Path | None = None,
    export_path: str | Path | None = None,
    calibration_split: str = "validation",
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    cache_key: Any = None,
) -> dict[str, Any]:
    """Evaluates a checkpoint as a user would meet it, with the image alone, and writes what was found.

    Writes ``metrics.json``, ``predictions.csv``, ``roc.png`` and ``auc.png``, prints the table, and optionally writes the weights
    that ship with the bundle.

    Args:
        network: the geometry of the checkpoint.
        ckpt_path: a training checkpoint or ``models/model.pt``.
        datalist: JSON file with both splits.
        preprocessing: the image pipeline of inference: whole scans, each padded to a size the network takes.
        output_dir: folder of the results; made when missing.
        paraphrases: JSON of texts by finding, see ``load_paraphrases``; None leaves this part out.
        export_path: where to write the model with its prompt bank, calibration and thresholds; None writes none.
        calibration_split: split of the calibration and the thresholds.
        split: split that is scored.
        resamples: bootstrap resamples of the intervals.
        seed: of the bootstrap.
        device: to run on.
        cache_dir: folder in which preprocessed scans are kept; None keeps none.
        cache_key: the parameters of the pipeline, see ``cached_dataset``.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ValueError: a split is missing or has no labels, a study or patient is in both, the checkpoint does not fit, or a model that
            could not be calibrated should be exported.
    """
    studies = {name: _labelled_studies(datalist, name) for name in (calibration_split, split)}
    _check_patients(studies[calibration_split], studies[split], f"{datalist}: {calibration_split} and {split}")
    load_checkpoint(network, ckpt_path)
    network.to(device).eval()
    scores = {}
    for name, listed in studies.items():
        dataset = cached_dataset(listed, [*preprocessing, KeepGeometryd("image")], (), cache_dir, ["geometry", cache_key])
        # Whole scans differ in size, so that each is a batch of its own.
        scores[name] = collect_scores(study_loader(dataset, batch_size=1), network, device, name)

    calibration = calibrate(scores[calibration_split], calibration_split, scores[split].ids)
    scored = scores[split]
    probabilities = calibration.probabilities(scored.logits)
    record = evaluate_split(
        probabilities,
        scored.template_logits,
        scored.labels,
        scored.ids,
        scored.patients,
        calibration.thresholds,
        FINDING_NAMES,
        split=split,
        calibration_ids=scores[calibration_split].ids,
        resamples=resamples,
        seed=seed,
    )
    record["calibration"] = {
        "split": calibration_split,
        "scans": len(scores[calibration_split].ids),
        "macro_auc": _number(macro_average(finding_auc(scores[calibration_split].logits, scores[calibration_split].labels))),
        "scale": calibration.scale.tolist(),
        "shift": calibration.shift.tolist(),
    }
    if calibration.problem is not None:
        record["warnings"].append(calibration.problem)
    record["evidence"] = evidence_record(scored, studies[split], probabilities, calibration.thresholds)
    record["anatomy_head"] = _anatomy_record(scored.anatomy_dice)
    record["paraphrases"] = None if paraphrases is None else paraphrase_record(network.text, paraphrases)
    record["settings"] = {
        "seed": seed,
        "datalist": Path(datalist).name,
        "checkpoint": Path(ckpt_path).name,
        "checkpoint_sha256": sha256_of(ckpt_path),
        "device": torch.device(device).type,
        "cache_key": cache_key,
        "exported_sha256": None,
        "versions": {
            "ctfindings": __version__,
            "monai": monai.__version__,
            "torch": torch.__version__,
            "numpy": np.__version__,
            "python": platform.python_version(),
        },
    }
    print(format_evaluation(record))
    if export_path is not None and calibration.problem is None:
        record["settings"]["exported_sha256"] = export_weights(export_path, network, calibration)
        logger.info("%s: weights with prompt bank, calibration and thresholds", export_path)
    _write_results(Path(output_dir), record, scored, probabilities, calibration.thresholds)
    if export_path is not None and calibration.problem is not None:
        raise ValueError(f"{export_path}: is not written, for the model is {calibration.problem}")
    return record


def evidence_record(
    scores: SplitScores,
    studies: Sequence[dict[str, Any]],
    probabilities: NDArray[np.float64],
    thresholds: NDArray[np.float64],
    tolerance_mm: float = EVIDENCE_TOLERANCE_MM,
) -> dict[str, Any]:
    """How often the evidence peak of a localized finding lies in its true mask, or near it, over the true positives.

    Args:
        scores: of the studies, in their order.
        studies: with the path of their ``finding_masks``; a study without masks does not count.
        probabilities: calibrated, ``[S, C]``.
        thresholds: ``[C]``.
        tolerance_mm: largest distance in mm that counts as a hit.

    Returns:
        ``tolerance_mm``, the ``hit_rate`` over all true positives together with their number, and a row per localized finding.
    """
    distance = np.full(scores.labels.shape, np.nan)
    for row, study in enumerate(studies):
        wanted = [column for column in LOCALIZED if scores.labels[row, column] == 1]
        if not wanted or "finding_masks" not in study:
            continue
        mask = cast(SpatialImage, nib.load(study["finding_masks"]))
        bits = np.asarray(mask.dataobj)
        for column in wanted:
            peak = scores.peaks_mm[row, column]
            # A finding that was drawn but got no peak is a miss, not a gap.
            near = np.inf if np.isnan(peak).any() else evidence_distance(peak, bits, column, mask.affine)
            distance[row, column] = near if (bits & (1 << column)).any() else np.nan
    rate, total = evidence_hit_rate(distance, probabilities, scores.labels, thresholds, tolerance_mm)
    detected = (scores.labels == 1) & (probabilities >= thresholds) & ~np.isnan(distance)
    rows = [
        {
            "finding": FINDING_NAMES[column],
            "true_positives": int(total[column]),
            "hit_rate": _number(rate[column]),
            "median_distance_mm": _number(np.median(distance[detected[:, column], column])) if total[column] else None,
        }
        for column in LOCALIZED
    ]
    counted = int(total[list(LOCALIZED)].sum())
    hits = sum(round(float(rate[column]) * int(total[column])) for column in LOCALIZED if total[column])
    return {"tolerance_mm": tolerance_mm, "true_positives": counted, "hit_rate": hits / counted if counted else None, "findings": rows}


def paraphrase_record(text: TextTower, path: str | Path) -> dict[str, Any]:
    """Share of the paraphrases whose own finding is nearest, and each that is not, with the finding it was taken for.

    Args:
        text: the text tower.
        path: JSON of texts by finding.

    Raises:
        ValueError: the file is missing or names an unknown finding.
    """
    if not Path(path).is_file():
        raise ValueError(f"{path}: there are no paraphrases; give their JSON file, or null to leave them out")
    pairs = [(finding_index(name), query) for name, queries in load_paraphrases(path).items() for query in queries]
    with torch.no_grad():
        bank = mean_over_templates(template_bank(text))[:, 0].double().cpu().numpy()
        queries = text([query for _, query in pairs], "prompt").double().cpu().numpy()
    targets = np.asarray([target for target, _ in pairs])
    ranks = rank_of_finding(queries, bank, targets)
    nearest = (queries @ bank.T).argmax(axis=1)
    return {
        "file": Path(path).name,
        "paraphrases": len(pairs),
        "accuracy": _number(paraphrase_accuracy(ranks)),
        "accuracy_within_3": _number(paraphrase_accuracy(ranks, 3)),
        "findings": [
            {
                "finding": name,
                "paraphrases": int((targets == column).sum()),
                "accuracy": _number(paraphrase_accuracy(ranks[targets == column])),
            }
            for column, name in enumerate(FINDING_NAMES)
        ],
        "missed": [
            {"text": query, "finding": FINDING_NAMES[target], "rank": int(rank), "nearest": FINDING_NAMES[near]}
            for (target, query), rank, near in zip(pairs, ranks, nearest, strict=True)
            if rank > 1
        ],
    }


def export_weights(path: str | Path, model: VisionLanguageModel, calibration: Calibration) -> str:
    """Writes the weights that ship with the bundle: the model and its calibrated prompt bank. Returns their SHA-256."""
    bank = PromptBank(model.image.embedding)
    with torch.no_grad():
        bank.prompts.copy_(template_bank(model.text))
    bank.calibration_scale.copy_(torch.from_numpy(calibration.scale))
    bank.calibration_shift.copy_(torch.from_numpy(calibration.shift))
    bank.threshold.copy_(torch.from_numpy(calibration.thresholds))
    return save_bundle_weights(path, model, bank)


def format_evaluation(record: dict[str, Any]) -> str:
    """The table of the findings, and a line each for evidence, anatomy head and paraphrases."""
    macro, evidence, paraphrases = record["macro"], record["evidence"], record["paraphrases"]
    lines = [
        format_table(record),
        "",
        f"Macro AUC {_cell(macro['auc'])}, lowest {_cell(macro['auc_lowest'])}, over {macro['findings_with_auc']} findings"
        f" of {record['scans']} scans.",
        f"Evidence within {evidence['tolerance_mm']:g} mm: {_cell(evidence['hit_rate'])} of {evidence['true_positives']} true positives ("
        + ", ".join(f"{row['finding']} {_cell(row['hit_rate'])} of {row['true_positives']}" for row in evidence["findings"])
        + ").",
        "Anatomy head Dice: " + ", ".join(f"{name} {_cell(value)}" for name, value in record["anatomy_head"].items()) + ".",
    ]
    if paraphrases is not None:
        lines.append(f"Paraphrases: {_cell(paraphrases['accuracy'])} of {paraphrases['paraphrases']} rank their finding first.")
    return "\n".join([*lines, *record["warnings"]])


def _labelled_studies(datalist: str | Path, split: str) -> list[dict[str, Any]]:
    studies = load_datalist(datalist, split)
    if not any((study["labels"] >= 0).any() for study in studies):
        raise ValueError(f"{datalist}: no study of split {split!r} has labels; evaluation needs labels in both of its splits")
    return studies


def _check_patients(calibration: Sequence[dict[str, Any]], scored: Sequence[dict[str, Any]], where: str) -> None:
    check_disjoint((study["id"] for study in calibration), (study["id"] for study in scored))
    shared = {study["patient"] for study in calibration} & {study["patient"] for study in scored}
    if shared:
        raise ValueError(f"{where} share patient {min(shared)}; every patient belongs to one split")


def _anatomy_record(dice: NDArray[np.float64]) -> dict[str, float | None]:
    """Mean token Dice of each anatomy over the studies that have one, ``[S, K]``."""
    return {name: _number(macro_average(dice[:, row])) for row, name in enumerate(ANATOMY_NAMES)}


def _write_results(
    folder: Path, record: dict[str, Any], scores: SplitScores, probabilities: NDArray[np.float64], thresholds: NDArray[np.float64]
) -> None:
    with atomic_path(folder / "predictions.csv") as path, path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["id", "patient", *(f"{name} probability" for name in FINDING_NAMES), *(f"{name} label" for name in FINDING_NAMES)])
        for row, (study, patient) in enumerate(zip(scores.ids, scores.patients, strict=True)):
            table.writerow([study, patient, *(f"{value:.6f}" for value in probabilities[row]), *scores.labels[row].tolist()])
    with atomic_path(folder / "roc.png") as path:
        plot_roc_grid(probabilities, scores.labels, FINDING_NAMES, path, thresholds)
    if record["macro"]["auc"] is not None:
        with atomic_path(folder / "auc.png") as path:
            plot_auc_by_finding(record, path)
    with atomic_path(folder / "metrics.json") as path:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def _cell(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
