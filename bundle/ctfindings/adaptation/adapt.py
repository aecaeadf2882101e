"""Few-shot findings: a frozen tower and scans of your own with labels become a checkpoint of the bundle.

Shapes: S scans, C findings, K anatomies, F features.
"""

import json
import logging
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bundle.ctfindings import __version__
from bundle.ctfindings.adaptation.adaptation_record import domain_record, format_record, scores_record
from bundle.ctfindings.adaptation.encoded_studies import EncodedStudies, Studies
from bundle.ctfindings.adaptation.frozen_tower import frozen_levels, load_frozen
from bundle.ctfindings.adaptation.head_training import Head, HeadTraining, Prompts, score
from bundle.ctfindings.adaptation.held_scans import HeldScans, fit_reduction, hold_scans
from bundle.ctfindings.adaptation.last_stage import LastStage
from bundle.ctfindings.data.datalist import label_rows
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.evaluation.calibrate import Calibration, fit_scaling
from bundle.ctfindings.evaluation.classification_section import export_weights
from bundle.ctfindings.evaluation.domain import fit_domain
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.folders import check_writable
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.inference.encoding import scan_body
from bundle.ctfindings.metrics.classification import finding_auc, macro_average
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.metrics.platt_scaling import apply_platt, fit_temperature
from bundle.ctfindings.metrics.thresholds import ThresholdRule, check_rule, choose_thresholds
from bundle.ctfindings.networks.checkpoint import adapted_source, read_source, sha256_of
from bundle.ctfindings.networks.classifier import NO_THRESHOLD
from bundle.ctfindings.networks.domain import domain_features
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

logger = logging.getLogger("ctfindings.adapt")


class Start(NamedTuple):
    """What a training starts from."""

    head: Head
    scans: HeldScans
    prompts: Prompts
    studies: Studies  # Those that could be encoded, in the order of ``scans``
    failed: dict[str, str]  # The reason, by study id
    new: bool  # Whether the head is new, because the checkpoint holds a tower only
    explained_variance: float | None  # Of the principal components of a ``ResNetTower`` under a new head


class Adaptation:
    """Trains the head of a frozen tower on scans of your own, and writes a checkpoint of the bundle.

    Calibration and thresholds are fitted on logits of scans whose patients the head did not see (the folds of the
    cross-validation), as scikit-learn's ``CalibratedClassifierCV`` does without an ensemble; the domain on the scans
    themselves. A finding with fewer than ``least_patients`` patients with or without it is not assessed, nor one whose
    held-out AUC is not above ``least_auc``.

    Args:
        encoded: Scans with labels.
        network: Image-text model of the geometry to write, with the image tower of ``encoded``.
        text_weights: Checkpoint with the text tower, which stays frozen.
        frozen_weights: Checkpoint with the image tower. If it holds a head as well, the head starts from there.
        training: How the head is trained.
        output_dir: Folder of ``model.pt`` and ``adaptation.json``.
        threshold_rule: See ``choose_thresholds``.
        outside_share: See ``fit_domain``.
        least_patients: Patients that a finding needs, with it and without it.
        least_auc: AUC in the cross-validation that a finding has to exceed, 0 to 1.
        seed: Random seed of the principal components and the bootstrap.
    """

    def __init__(
        self,
        encoded: EncodedStudies,
        network: VisionLanguageModel,
        text_weights: str | Path,
        frozen_weights: str | Path,
        training: HeadTraining,
        output_dir: str | Path,
        threshold_rule: ThresholdRule = "f1",
        outside_share: float = 0.01,
        least_patients: int = 3,
        least_auc: float = 0.5,
        seed: int = 0,
    ) -> None:
        check_rule(threshold_rule)
        if least_patients < 1:
            raise ValueError(f"least_patients: expected 1 or more, got {least_patients}")
        if not 0 <= least_auc < 1:
            raise ValueError(f"least_auc: expected a number from 0 to below 1, got {least_auc}")
        self.encoded, self.network, self.training = encoded, network, training
        self.text_weights, self.frozen_weights = Path(text_weights), Path(frozen_weights)
        self.output_dir, self.threshold_rule, self.outside_share = Path(output_dir), threshold_rule, outside_share
        self.least_patients, self.least_auc, self.seed = least_patients, least_auc, seed

    def run(self) -> dict[str, Any]:
        """Adapts, writes both files and returns the content of ``adaptation.json``.

        ValueError if the datalist cannot be used, no finding has enough patients or a checkpoint does not fit; also if
        no finding has a held-out AUC above ``least_auc``, or the held-out logits of those that have do not rise with
        the labels over all of them, and then only ``adaptation.json`` is written.
        """
        studies = self.encoded.studies()
        self._usable(studies)
        check_writable(self.output_dir, "output_dir")
        start = self.start(studies)
        studies, head, scans, prompts = start.studies, start.head, start.scans, start.prompts
        usable, given = self._usable(studies), label_rows(studies)
        labels = np.where(usable, given, -1)
        patients = [study["patient"] for study in studies]
        self.training.prepare(head)
        auc_before = None if start.new else self._mean_auc(head, scans, labels, prompts)
        choice = self.training.choose(head, scans, torch.from_numpy(labels), patients, prompts)
        self.training.fit(head, scans, torch.from_numpy(labels), prompts, choice)
        assessed = finding_auc(choice.logits, labels) > self.least_auc  # Never with NaN.
        calibration = _calibration(choice.logits, np.where(assessed, labels, -1), assessed, self.threshold_rule)
        features = self._domain_features(self.encoded.dataset(studies), head.stage)
        domain = fit_domain(features, features[:0], self.outside_share, patients)
        path = self.output_dir / "model.pt"
        digest = None
        if calibration.problem is None:
            source = adapted_source(self.frozen_weights, patients)
            digest = export_weights(path, self.network, calibration, domain, source=source)
        record = {
            "checkpoint": digest and path.name,
            "checkpoint_sha256": digest,
            "version": __version__,
            "datalist": self.encoded.datalist.name,
            "splits": self.encoded.splits,
            "frozen_weights": {
                "file": self.frozen_weights.name,
                "sha256": sha256_of(self.frozen_weights),
                "source_sha256": (read_source(self.frozen_weights) or {}).get("sha256"),
            },
            "scans": len(studies),
            "patients": len(set(patients)),
            "failed": start.failed,
            "training": self.training.settings(),
            "new_head": start.new,
            "auc_before": auc_before,
            "explained_variance": start.explained_variance,
            "weight_decay": choice.weight_decay,
            "learning_rate": choice.learning_rate,
            "steps": choice.steps,
            "losses": [
                {"weight_decay": decay, "learning_rate": rate, "losses": found}
                for (decay, rate), found in choice.losses.items()
            ],
            "domain": domain_record(domain, features),
            "least_patients": self.least_patients,
            "least_auc": self.least_auc,
            **scores_record(choice.logits, given, patients, usable, calibration, self.seed),
        }
        write_text(self.output_dir / "adaptation.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
        print(format_record(record))
        if calibration.problem:
            raise ValueError(f"{path}: not written; {calibration.problem}; add labelled scans")
        print(f"Checkpoint: {path}")
        return record

    def _mean_auc(self, head: Head, scans: HeldScans, labels: NDArray[np.int64], prompts: Prompts) -> float | None:
        logits = score(head, scans, np.arange(len(labels)), prompts, self.training.batch_size)
        return number(macro_average(finding_auc(logits, labels)))

    def start(self, studies: Studies) -> Start:
        """Encodes studies, and loads the frozen weights and the head that is trained on them; uses no label."""
        new = load_frozen(self.network, self.text_weights, self.frozen_weights)
        self.network.eval()
        image = self.network.image
        stage = self.training.last_stage(image)  # Before scans are encoded: a tower may have no such blocks.
        failed = self._encode(studies)
        studies = [study for study in studies if study["id"] not in failed]
        if not studies:
            name, problem = next(iter(failed.items()))
            raise ValueError(f"{self.encoded.datalist}: no scan could be encoded; the first, {name}: {problem}")
        dataset = self.encoded.dataset(studies)
        explained = None
        if new:
            _start_pooling(image.anatomy_pooling)
            if isinstance(image.tower, ResNetTower):
                explained = fit_reduction(image.tower, dataset, image.stride, self.seed)
        scans, prompts = hold_scans(image, dataset, stage), Prompts(self.network.text)
        return Start(Head(image, self.network.scorer, stage), scans, prompts, studies, failed, new, explained)

    def _encode(self, studies: Studies) -> dict[str, str]:
        """Encodes the scans; the reason of each failure, by study id."""
        outcome = self.encoded.fill(studies)
        failed = {name: what for name, what in outcome.items() if what not in ("made", "kept")}
        for name, problem in failed.items():
            logger.warning("%s: left out: %s", name, problem)
        return failed

    def _usable(self, studies: Studies) -> NDArray[np.bool_]:
        """Findings with enough patients with and without them, [C]; ValueError if there is none."""
        labels, patients = label_rows(studies), np.array([study["patient"] for study in studies])
        if not (labels >= 0).any():
            raise ValueError(
                f"{self.encoded.datalist}: its studies have no labels; read them from the reports with "
                "--labels-from-reports of scripts/prepare_dicom.py or prepare_csv.py"
            )
        counts = np.array(
            [[len(set(patients[labels[:, column] == value])) for value in (0, 1)] for column in range(labels.shape[1])]
        )
        usable: NDArray[np.bool_] = np.asarray((counts >= self.least_patients).all(axis=1))
        if not usable.any():
            raise ValueError(
                f"{self.encoded.datalist}: no finding has {self.least_patients} or more patients with it and as many "
                "without; add labelled scans, or lower least_patients"
            )
        return usable

    @torch.no_grad()
    def _domain_features(self, dataset: CachedStudies, stage: LastStage | None) -> NDArray[np.float64]:
        """Of each scan, as inference computes them, ``[S, K, F]``."""
        self.network.eval()
        encoder, rows = self.network.image, []
        for index in progress_bar(range(len(dataset)), "domain", unit="scan"):
            study = dataset[index]
            voxels = study["image"][None].float()
            levels, grids = frozen_levels(encoder.tower, study, stage)
            body = scan_body(study, encoder.stride)
            encoded = encoder.encode_levels(voxels, levels, grids, body=body)
            rows.append(domain_features(voxels, encoded, encoder.stride, body)[0].double().numpy())
        return np.stack(rows)


def _start_pooling(pooling: nn.Module) -> None:
    """Values of the attention are the tokens themselves, so that untrained attention gives their mean."""
    for part in (pooling.value, pooling.output):
        nn.init.eye_(part.weight)  # type: ignore[union-attr,arg-type]
        nn.init.zeros_(part.bias)  # type: ignore[union-attr,arg-type]


def _calibration(
    logits: NDArray[np.float64], labels: NDArray[np.int64], assessed: NDArray[np.bool_], rule: ThresholdRule
) -> Calibration:
    """Platt scaling and thresholds of the held-out logits; no threshold where a finding is not assessed."""
    unused = np.zeros((len(TEMPLATES), len(assessed)))
    if not assessed.any():
        ones = np.ones(len(assessed))
        return Calibration(1.0, ones, 0 * ones, NO_THRESHOLD * ones, unused, "no finding has an AUC above least_auc")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Findings without labels are named in the table.
        scale, shift, problem = fit_scaling(logits, labels)
        thresholds = choose_thresholds(apply_platt(logits, scale, shift), labels, rule, FINDING_NAMES)
    thresholds[~assessed] = NO_THRESHOLD
    return Calibration(fit_temperature(logits, labels), scale, shift, thresholds, unused, problem)
