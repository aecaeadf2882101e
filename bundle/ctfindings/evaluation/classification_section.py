"""Section of an evaluation: classification of the findings from calibrated prompt scores."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.calibrate import Calibration, calibrate, fit_observation_weight
from bundle.ctfindings.evaluation.diagnostics import DIAGNOSTICS_FILE, Diagnostics, diagnose
from bundle.ctfindings.evaluation.diagnostics_record import comparison_record, diagnostics_record
from bundle.ctfindings.evaluation.evaluated_model import EvaluatedModel, SplitScores
from bundle.ctfindings.evaluation.evaluation_run import EvaluationRun
from bundle.ctfindings.evaluation.evidence_hits import evidence_record
from bundle.ctfindings.evaluation.finding_scores import finding_scores_record, format_table
from bundle.ctfindings.evaluation.plots import write_classification_figures
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.classification import finding_auc, macro_average
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.metrics.published_protocols import ZeroShotScores
from bundle.ctfindings.metrics.thresholds import ThresholdRule, check_rule
from bundle.ctfindings.networks.checkpoint import read_source, save_bundle_weights
from bundle.ctfindings.networks.classifier import PromptBank
from bundle.ctfindings.networks.domain import Domain
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classification:
    """Scores of the findings, robustness to prompt wording, text-embedding collapse, calibration and evidence.

    Writes ``diagnostics.npz`` and the figures.

    Args:
        threshold_rule: how thresholds are chosen on the calibration split, see ``choose_thresholds``.
        compare: another checkpoint of the same network, or the folder of an earlier evaluation on the same split (of
            any network), to compare with by a paired bootstrap; None skips the comparison.
        export_path: file for the model with its prompt bank, calibration and thresholds; None exports nothing.
    """

    threshold_rule: ThresholdRule = "f1"
    compare: str | Path | None = None
    export_path: str | Path | None = None
    needs_labels = True
    needs_calibration = True

    def __post_init__(self) -> None:
        check_rule(self.threshold_rule)
        if self.compare is not None and not Path(self.compare).exists():
            raise ValueError(f"compare: {self.compare}: no such checkpoint or folder of an evaluation; check the path")

    def __call__(self, run: EvaluationRun) -> str:
        """Adds all numbers, queues the figures and exports the weights.

        ValueError if the model is a published one, or the model to compare with was scored on other studies.
        """
        model, record = run.own_model, run.record
        parts = _auc_of_parts(run.own_scores)
        weight, run.scores = _with_observations(run, run.scores)
        scored = run.own_scores
        calibration, answers = self._answers(run, model, run.scores)
        other, comparison = None, None
        if self.compare is not None:
            other = self._other(run, model, self.compare)
            names = _distinct_names(model.ckpt_path, Path(self.compare))
            comparison = comparison_record(answers, other, names, run.bootstrap)
        run.probabilities = answers.calibrated
        scores = (answers.calibrated, scored.template_logits, scored.labels, calibration.thresholds)
        found = finding_scores_record(*scores, FINDING_NAMES, model.template_ids, run.bootstrap)
        record["warnings"] += found.pop("warnings")
        record |= found
        record["calibration"] = self._calibration_record(run, calibration) | {"observation_weight": weight}
        record["macro_auc_of_parts"] = parts
        record |= diagnostics_record(answers, run.bootstrap)
        record["comparison"] = comparison
        record["evidence"] = evidence_record(scored, run.studies[run.split], answers.calibrated, calibration.thresholds)
        record["anatomy_head"] = {
            name: number(macro_average(scored.anatomy_dice[:, row])) for row, name in enumerate(ANATOMY_NAMES)
        }
        run.figures.append(lambda folder: answers.save(folder / DIAGNOSTICS_FILE))
        run.figures.append(partial(write_classification_figures, record=record, answers=answers, other=other))
        if calibration.problem is not None:
            record["warnings"].append(calibration.problem)
        if self.export_path is not None and calibration.problem is not None:
            run.problems.append(f"{self.export_path}: not exported; the model is {calibration.problem}")
        elif self.export_path is not None:
            record["settings"]["exported_sha256"] = export_weights(
                self.export_path, model.network, calibration, model.domain, weight, read_source(model.ckpt_path)
            )
            logger.info("%s: exported with prompt bank, calibration and thresholds", self.export_path)
        return format_classification(record)

    def _answers(
        self, run: EvaluationRun, model: EvaluatedModel, scores: Mapping[str, ZeroShotScores]
    ) -> tuple[Calibration, Diagnostics]:
        split, scored = str(run.calibration_split), cast(SplitScores, scores[run.split])
        calibration = calibrate(scores[split], split, self.threshold_rule)
        studies, seed = run.studies[run.split], run.bootstrap.seed
        return calibration, diagnose(model.network.text, scored, studies, calibration, seed)

    def _other(self, run: EvaluationRun, model: EvaluatedModel, path: str | Path) -> Diagnostics:
        """The answers of the model to compare with, from the folder of its evaluation or a checkpoint."""
        if Path(path).is_dir():
            return Diagnostics.load(Path(path) / DIAGNOSTICS_FILE)
        other = model.with_checkpoint(path)
        scores = {split: other.score(studies, split) for split, studies in run.studies.items()}
        return self._answers(run, other, _with_observations(run, scores)[1])[1]

    def _calibration_record(self, run: EvaluationRun, fitted: Calibration) -> dict[str, Any]:
        scores = run.scores[str(run.calibration_split)]
        return {
            "split": run.calibration_split,
            "scans": len(scores.ids),
            "macro_auc": number(macro_average(finding_auc(scores.logits, scores.labels))),
            "threshold_rule": self.threshold_rule,
            "temperature": fitted.temperature,
            "scale": fitted.scale.tolist(),
            "shift": fitted.shift.tolist(),
        }


def _auc_of_parts(scores: SplitScores) -> dict[str, float | None]:
    """Macro AUC by the anatomy rows alone and by the pathology queries alone; empty for a model without queries."""
    if scores.observed is None or not scores.observed.any():
        return {}
    logits = {"rows": scores.logits, "queries": scores.observed[:, 0]}
    return {name: number(macro_average(finding_auc(each, scores.labels))) for name, each in logits.items()}


def _with_observations(
    run: EvaluationRun, scores: Mapping[str, ZeroShotScores]
) -> tuple[float, dict[str, ZeroShotScores]]:
    """Adds the answers of pathology queries, with the weight that suits the calibration split; it is returned too."""
    own = cast(Mapping[str, SplitScores], scores)
    weight = fit_observation_weight(own[str(run.calibration_split)])
    return weight, {split: found.with_observations(weight) for split, found in own.items()}


def export_weights(
    path: str | Path,
    model: VisionLanguageModel,
    calibration: Calibration,
    domain: Domain,
    observation_weight: float = 0.0,
    source: Mapping[str, str] | None = None,
) -> str:
    """Writes the model with its calibrated prompt bank and its domain, as the bundle ships it; returns the SHA-256."""
    bank = PromptBank(model.image.embedding, observes=model.image.pathology is not None)
    with torch.no_grad():
        bank.observation_weight.fill_(observation_weight)
        bank.prompts.copy_(template_bank(model.text))
    bank.calibration_scale.copy_(torch.from_numpy(calibration.scale))
    bank.calibration_shift.copy_(torch.from_numpy(calibration.shift))
    bank.threshold.copy_(torch.from_numpy(calibration.thresholds))
    return save_bundle_weights(path, model, bank, domain, source)


def format_classification(record: dict[str, Any]) -> str:
    """The table of the findings, and a line each for the macro AUC, evidence and anatomy head."""
    macro, evidence = record["macro"], record["evidence"]
    hits = [f"{row['finding']} {cell(row['hit_rate'])} of {row['true_positives']}" for row in evidence["findings"]]
    lines = [
        format_table(record),
        "",
        f"Macro AUC {cell(macro['auc'])}, lowest {cell(macro['auc_lowest'])}, "
        f"over {macro['findings_with_auc']} findings of {record['scans']} scans.",
        f"Evidence within {evidence['tolerance_mm']:g} mm of the mask: {cell(evidence['hit_rate'])} "
        f"of {evidence['true_positives']} true positives ({', '.join(hits)}); "
        f"random places in the anatomy {cell(evidence['random_hit_rate'])}.",
        f"Anatomy head Dice: {', '.join(f'{name} {cell(dice)}' for name, dice in record['anatomy_head'].items())}.",
    ]
    return "\n".join(lines)


def _distinct_names(one: Path, two: Path) -> tuple[str, str]:
    """Names of two checkpoints in the page: their files, and their folders if the files have the same name."""
    if one.name != two.name:
        return one.name, two.name
    return f"{one.parent.name}/{one.name}", f"{two.parent.name}/{two.name}"
