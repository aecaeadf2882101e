"""Evaluation of a checkpoint: calibration and thresholds from the validation split, scores of the test split, all
written to a folder.

Shapes: S studies, T templates, C findings, K anatomies.
"""

from __future__ import annotations

import json
import logging
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray

from bundle.ctfindings import __version__
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.geometry import KeepGeometryd
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.evaluation.calibration import Calibration, calibrate
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics, diagnose
from bundle.ctfindings.evaluation.diagnostics_record import TEMPLATE_NAMES, comparison_record, diagnostics_record
from bundle.ctfindings.evaluation.html_report import write_evaluation_report, write_figures
from bundle.ctfindings.evaluation.predictions_csv import write_predictions
from bundle.ctfindings.evaluation.protocol_scores import protocol_of_scores
from bundle.ctfindings.evaluation.record_sections import anatomy_record, evidence_record, paraphrase_record
from bundle.ctfindings.evaluation.scoring import SplitScores, collect_scores
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.classification import finding_auc, macro_average
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.metrics.plots import plot_auc_by_finding, plot_roc_grid
from bundle.ctfindings.metrics.protocols import check_protocol, format_protocol
from bundle.ctfindings.metrics.split_record import evaluate_split, format_table
from bundle.ctfindings.metrics.thresholds import ThresholdRule, check_disjoint
from bundle.ctfindings.networks.checkpoint import load_checkpoint, save_bundle_weights, sha256_of
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

logger = logging.getLogger(__name__)


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
    compare: str | Path | None = None,
    protocol: str | None = None,
    threshold_rule: ThresholdRule = "f1",
) -> dict[str, Any]:
    """Evaluates a checkpoint as a user would meet it, with the image alone, and writes what was found.

    Writes ``metrics.json``, ``report.html``, ``predictions.csv``, ``diagnostics.npz``, ``roc.png`` and ``auc.png``,
    prints the table, and optionally writes the weights that ship with the bundle.

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
        compare: another checkpoint of the same network, or the folder of an earlier evaluation on the same split (of
            any network), against which every number is compared by a paired bootstrap; None compares with nothing.
        protocol: name of a published protocol by which the split is scored as well, see ``PROTOCOLS``; None leaves this
            out.
        threshold_rule: how the thresholds are chosen on the calibration split, see ``choose_thresholds``. A protocol
            has its own.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ValueError: a split is missing or has no labels, a study or patient is in both, the checkpoint does not fit, or
            a model that could not be calibrated should be exported.
    """
    if protocol is not None:
        check_protocol(protocol)
    studies = {
        calibration_split: labelled_studies(datalist, calibration_split),
        split: studies_to_score(datalist, split),
    }
    check_patients(studies[calibration_split], studies[split], f"{datalist}: {calibration_split} and {split}")
    # Whole scans differ in size, so that each is a batch of its own.
    loaders = {
        name: study_loader(
            cached_dataset(listed, [*preprocessing, KeepGeometryd("image")], (), cache_dir, ["geometry", cache_key]),
            batch_size=1,
        )
        for name, listed in studies.items()
    }

    def answers_of(path: str | Path) -> tuple[dict[str, SplitScores], Calibration, Diagnostics]:
        logger.info("%s: weights that are scored", path)
        load_checkpoint(network, path)
        network.to(device).eval()
        scores = {name: collect_scores(loader, network, device, name) for name, loader in loaders.items()}
        fitted = calibrate(scores[calibration_split], calibration_split, scores[split].ids, rule=threshold_rule)
        return scores, fitted, diagnose(network.text, scores[split], studies[split], fitted, seed)

    # The other one first: the network holds the weights of the checkpoint itself in the end.
    other = None if compare is None else _earlier_answers(compare) or answers_of(compare)[2]
    scores, calibration, answers = answers_of(ckpt_path)
    scored = scores[split]
    probabilities = answers.calibrated
    record = evaluate_split(
        probabilities,
        scored.template_logits,
        scored.labels,
        scored.ids,
        scored.patients,
        calibration.thresholds,
        FINDING_NAMES,
        templates=TEMPLATE_NAMES,
        split=split,
        calibration_ids=scores[calibration_split].ids,
        resamples=resamples,
        seed=seed,
    )
    record["calibration"] = _calibration_record(
        calibration, calibration_split, scores[calibration_split], threshold_rule
    )
    if calibration.problem is not None:
        record["warnings"].append(calibration.problem)
    record |= diagnostics_record(answers, resamples, seed)
    record["comparison"] = None
    if compare is not None and other is not None:
        names = _distinct_names(ckpt_path, compare)
        record["comparison"] = comparison_record(answers, other, names, resamples, seed)
    record["protocol"] = protocol_of_scores(
        protocol, scored, scores[calibration_split], TEMPLATE_NAMES, resamples, seed
    )
    record["evidence"] = evidence_record(scored, studies[split], probabilities, calibration.thresholds)
    record["anatomy_head"] = anatomy_record(scored.anatomy_dice)
    record["paraphrases"] = None if paraphrases is None else paraphrase_record(network.text, paraphrases)
    record["settings"] = {
        "seed": seed,
        "datalist": Path(datalist).name,
        "checkpoint": Path(ckpt_path).name,
        "checkpoint_sha256": sha256_of(ckpt_path),
        "image_parameters": _parameters(network.image),
        "text_parameters": _parameters(network.text),
        "device": torch.device(device).type,
        "cache_key": cache_key,
        "exported_sha256": None,
        "versions": _versions(),
    }
    print(format_evaluation(record))
    if export_path is not None and calibration.problem is None:
        record["settings"]["exported_sha256"] = export_weights(export_path, network, calibration)
        logger.info("%s: weights with prompt bank, calibration and thresholds", export_path)
    _write_results(Path(output_dir), record, answers, other, calibration.thresholds)
    if export_path is not None and calibration.problem is not None:
        raise ValueError(f"{export_path}: is not written, for the model is {calibration.problem}")
    return record


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
        f"Macro AUC {cell(macro['auc'])}, lowest {cell(macro['auc_lowest'])}, over {macro['findings_with_auc']} findings"
        f" of {record['scans']} scans.",
        f"Evidence within {evidence['tolerance_mm']:g} mm: {cell(evidence['hit_rate'])} of {evidence['true_positives']} true positives ("
        + ", ".join(
            f"{row['finding']} {cell(row['hit_rate'])} of {row['true_positives']}" for row in evidence["findings"]
        )
        + ").",
        "Anatomy head Dice: "
        + ", ".join(f"{name} {cell(value)}" for name, value in record["anatomy_head"].items())
        + ".",
    ]
    if paraphrases is not None:
        lines.append(
            f"Paraphrases: {cell(paraphrases['accuracy'])} of {paraphrases['paraphrases']} rank their finding first."
        )
    if record["protocol"] is not None:
        lines.append(format_protocol(record["protocol"]))
    return "\n".join([*lines, *record["warnings"]])


def labelled_studies(datalist: str | Path, split: str) -> list[dict[str, Any]]:
    """The studies of a split that can be scored; refuses a split without labels."""
    studies = load_datalist(datalist, split)
    if not any((study["labels"] >= 0).any() for study in studies):
        raise ValueError(
            f"{datalist}: no study of split {split!r} has labels; evaluation needs labels in both of its splits"
        )
    return studies


def studies_to_score(datalist: str | Path, split: str) -> list[dict[str, Any]]:
    """``labelled_studies`` of a split that is scored; refuses one of a single patient before anything is encoded."""
    studies = labelled_studies(datalist, split)
    if len({study["patient"] for study in studies}) < 2:
        raise ValueError(
            f"{datalist}: split {split!r} has scans of one patient; scores and their intervals need two or more, move some there"
        )
    return studies


def check_patients(calibration: Sequence[dict[str, Any]], scored: Sequence[dict[str, Any]], where: str) -> None:
    """Refuses two splits that share a study or a patient, who is named by a study of each."""
    check_disjoint((study["id"] for study in calibration), (study["id"] for study in scored))
    first = {study["patient"]: study["id"] for study in calibration}
    for study in scored:
        if study["patient"] in first:
            raise ValueError(
                f"{where} share a patient (studies {first[study['patient']]} and {study['id']}); every patient belongs to one split"
            )


def _calibration_record(fitted: Calibration, split: str, scores: SplitScores, rule: ThresholdRule) -> dict[str, Any]:
    """What was fitted on the calibration split, and how well its scans were ranked."""
    return {
        "split": split,
        "scans": len(scores.ids),
        "macro_auc": number(macro_average(finding_auc(scores.logits, scores.labels))),
        "threshold_rule": rule,
        "temperature": fitted.temperature,
        "scale": fitted.scale.tolist(),
        "shift": fitted.shift.tolist(),
    }


def _versions() -> dict[str, str]:
    return {
        "ctfindings": __version__,
        "monai": monai.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


def _earlier_answers(path: str | Path) -> Diagnostics | None:
    """The answers kept by an earlier evaluation when the path is its folder, else None: then it is a checkpoint."""
    return Diagnostics.load(Path(path) / DIAGNOSTICS_FILE) if Path(path).is_dir() else None


def _distinct_names(first: str | Path, second: str | Path) -> tuple[str, str]:
    """Names of two checkpoints in the report: their files, and their folders as well where the files are called alike."""
    one, two = Path(first), Path(second)
    if one.name != two.name:
        return one.name, two.name
    return f"{one.parent.name}/{one.name}", f"{two.parent.name}/{two.name}"


def _write_results(
    folder: Path,
    record: dict[str, Any],
    answers: Diagnostics,
    other: Diagnostics | None,
    thresholds: NDArray[np.float64],
) -> None:
    probabilities, labels = answers.calibrated, answers.labels
    write_predictions(folder / "predictions.csv", answers.ids.tolist(), probabilities, labels)
    with atomic_path(folder / "roc.png") as path:
        plot_roc_grid(probabilities, labels, FINDING_NAMES, path, thresholds)
    if record["macro"]["auc"] is not None:
        with atomic_path(folder / "auc.png") as path:
            plot_auc_by_finding(record, path)
    write_figures(folder, record, answers, other)
    answers.save(folder / DIAGNOSTICS_FILE)
    with atomic_path(folder / "metrics.json") as path:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    write_evaluation_report(folder / "report.html", record)


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
