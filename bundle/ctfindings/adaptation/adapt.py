"""Few-shot findings: a frozen tower and scans of your own with labels become a checkpoint of the bundle.

Shapes: S scans, C findings, K anatomies, F features.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, Transform
from numpy.typing import NDArray
from torch import nn

from bundle.ctfindings import __version__
from bundle.ctfindings.adaptation.frozen_tower import frozen_levels, load_frozen
from bundle.ctfindings.adaptation.head_training import Head, HeadTraining, Prompts
from bundle.ctfindings.adaptation.held_scans import fit_reduction, hold_scans
from bundle.ctfindings.data.datalist import bare_studies, label_rows, load_datalist
from bundle.ctfindings.data.loaders import cached_dataset, fill_cache
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.evaluation.calibrate import Calibration, fit_scaling
from bundle.ctfindings.evaluation.classification_section import export_weights
from bundle.ctfindings.evaluation.domain import domain_scores, fit_domain
from bundle.ctfindings.evaluation.evaluated_model import whole_scan_steps
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES, TEMPLATES
from bundle.ctfindings.inference.encoding import scan_body
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import cell, number
from bundle.ctfindings.metrics.platt_scaling import apply_platt, fit_temperature
from bundle.ctfindings.metrics.thresholds import ThresholdRule, choose_thresholds
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.networks.classifier import NO_THRESHOLD
from bundle.ctfindings.networks.domain import Domain, domain_features
from bundle.ctfindings.networks.image.resnet_tower import ResNetTower
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

logger = logging.getLogger("ctfindings.adapt")

Studies = list[dict[str, Any]]


class EncodedStudies:
    """The scans of a datalist, encoded once by a frozen tower and cached; labels are not part of the cache.

    Args:
        datalist: JSON file with the splits.
        splits: Splits whose scans are used.
        preprocessing: Image pipeline of whole scans.
        frozen_tokens: Step that adds the tokens: ``FrozenLevelsd``, or one of ``published``.
        cache_dir: Parent of the caches.
        cache_key: Parameters of the pipeline, see ``cached_dataset``.
        workers: Number of processes.
        scheduler: Address of a Dask scheduler; None for processes of this machine.
    """

    def __init__(
        self,
        datalist: str | Path | None,
        splits: Sequence[str],
        preprocessing: Sequence[Transform],
        frozen_tokens: MapTransform,
        cache_dir: str | Path,
        cache_key: Any,
        workers: int = 1,
        scheduler: str | None = None,
    ) -> None:
        if datalist is None:
            raise ValueError("datalist: expected a datalist of scans with labels; add --datalist (docs/datalist.md)")
        self.datalist, self.splits, self.workers, self.scheduler = Path(datalist), list(splits), workers, scheduler
        self.steps = [*whole_scan_steps(preprocessing), frozen_tokens]
        self.cache_dir, self.cache_key = cache_dir, cache_key

    def studies(self) -> Studies:
        """The studies of all splits; ValueError if there is none, or an id occurs twice."""
        studies = [study for split in self.splits for study in load_datalist(self.datalist, split)]
        if not studies:
            raise ValueError(f"{self.datalist}: no study in {', '.join(self.splits)}; add some, or name other splits")
        names = [study["id"] for study in studies]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"{self.datalist}: study {twice[0]} occurs twice; list each study once")
        return studies

    def dataset(self, studies: Studies) -> CachedStudies:
        """The cached scans of studies, in their order."""
        return cached_dataset(bare_studies(studies), self.steps, (), self.cache_dir, self.cache_key)

    def fill(self, studies: Studies) -> dict[str, str]:
        """Encodes the scans that the cache lacks; ``made``, ``kept`` or the reason of a failure, by study id."""
        return fill_cache([self.dataset(studies)], self.workers, self.scheduler)


class Adaptation:
    """Trains the head of a frozen tower on scans of your own, and writes a checkpoint of the bundle.

    Calibration and thresholds are fitted on logits of scans whose patients the head did not see (the folds of the
    cross-validation), as scikit-learn's ``CalibratedClassifierCV`` does without an ensemble; the domain on the scans
    themselves. A finding with fewer than ``least_patients`` patients with or without it is not assessed.

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
        seed: int = 0,
    ) -> None:
        self.encoded, self.network, self.training = encoded, network, training
        self.text_weights, self.frozen_weights = Path(text_weights), Path(frozen_weights)
        self.output_dir, self.threshold_rule, self.outside_share = Path(output_dir), threshold_rule, outside_share
        self.least_patients, self.seed = least_patients, seed

    def run(self) -> dict[str, Any]:
        """Adapts, writes both files and returns the content of ``adaptation.json``.

        Raises:
            ValueError: The datalist cannot be used, no finding has enough patients, a checkpoint does not fit, or the
                held-out logits do not rise with the labels; in that case only ``adaptation.json`` is written.
        """
        studies = self.encoded.studies()
        self._usable(studies)
        new = load_frozen(self.network, self.text_weights, self.frozen_weights)
        self.network.eval()
        outcome = self.encoded.fill(studies)
        failed = {name: what for name, what in outcome.items() if what not in ("made", "kept")}
        for name, problem in failed.items():
            logger.warning("%s: left out: %s", name, problem)
        studies = [study for study in studies if study["id"] not in failed]
        usable, labels = self._usable(studies), torch.from_numpy(label_rows(studies))
        labels[:, ~torch.from_numpy(usable)] = -1
        patients = [study["patient"] for study in studies]
        dataset, image = self.encoded.dataset(studies), self.network.image
        explained = None
        if new:
            _start_pooling(image.anatomy_pooling)
            if isinstance(image.tower, ResNetTower):
                explained = fit_reduction(image.tower, dataset, image.stride, self.seed)
        scans, prompts = hold_scans(image, dataset), Prompts(self.network.text)
        head = Head(image, self.network.scorer)
        self.training.prepare(head)
        choice = self.training.choose(head, scans, labels, patients, prompts)
        self.training.fit(head, scans, labels, prompts, choice)
        calibration = _calibration(choice.logits, labels.numpy(), usable, self.threshold_rule)
        features = self._domain_features(dataset)
        domain = fit_domain(features, features[:0], self.outside_share, patients)
        path = self.output_dir / "model.pt"
        digest = None if calibration.problem else export_weights(path, self.network, calibration, domain)
        record = {
            "checkpoint": digest and path.name,
            "checkpoint_sha256": digest,
            "version": __version__,
            "datalist": self.encoded.datalist.name,
            "splits": self.encoded.splits,
            "frozen_weights": {"file": self.frozen_weights.name, "sha256": sha256_of(self.frozen_weights)},
            "scans": len(studies),
            "patients": len(set(patients)),
            "failed": failed,
            "training": self.training.settings(),
            "new_head": new,
            "explained_variance": explained,
            "weight_decay": choice.weight_decay,
            "learning_rate": choice.learning_rate,
            "steps": choice.steps,
            "losses": [
                {"weight_decay": decay, "learning_rate": rate, "losses": found}
                for (decay, rate), found in choice.losses.items()
            ],
            "domain": _domain_record(domain, features),
            **self._scores(choice.logits, labels.numpy(), patients, usable, calibration),
        }
        write_text(self.output_dir / "adaptation.json", json.dumps(record, indent=2, allow_nan=False) + "\n")
        print(format_record(record))
        if calibration.problem:
            raise ValueError(f"{path}: not written; the head is {calibration.problem}; add labelled scans")
        print(f"Checkpoint: {path}")
        return record

    def _usable(self, studies: Studies) -> NDArray[np.bool_]:
        """Findings with enough patients with and without them, [C]; ValueError if there is none."""
        labels, patients = label_rows(studies), np.array([study["patient"] for study in studies])
        counts = np.array(
            [[len(set(patients[labels[:, column] == value])) for value in (0, 1)] for column in range(labels.shape[1])]
        )
        usable: NDArray[np.bool_] = np.asarray((counts >= self.least_patients).all(axis=1))
        if not usable.any():
            raise ValueError(
                f"{self.encoded.datalist}: no finding has {self.least_patients} patients with it and as many without; "
                "add labelled scans, or lower least_patients"
            )
        return usable

    @torch.no_grad()
    def _domain_features(self, dataset: CachedStudies) -> NDArray[np.float64]:
        """Of each scan, as inference computes them, ``[S, K, F]``."""
        self.network.eval()
        encoder, rows = self.network.image, []
        for index in progress_bar(range(len(dataset)), "domain", unit="scan"):
            study = dataset[index]
            voxels = study["image"][None].float()
            levels, grids = frozen_levels(encoder.tower, study)
            body = scan_body(study, study["image_affine"], encoder.stride, grids[0])
            encoded = encoder.encode_levels(voxels, levels, grids, body=body)
            rows.append(domain_features(voxels, encoded, encoder.stride, body)[0].double().numpy())
        return np.stack(rows)

    def _scores(
        self,
        logits: NDArray[np.float64],
        labels: NDArray[np.int64],
        patients: Sequence[str],
        usable: NDArray[np.bool_],
        calibration: Calibration,
    ) -> dict[str, Any]:
        """AUC of the held-out logits with intervals by patient, and what was fitted, by finding."""
        bootstrap = Bootstrap(patients, seed=self.seed)
        found = bootstrap.auc(logits[:, usable], labels[:, usable])
        place = {name: index for index, name in enumerate(np.array(FINDING_NAMES)[usable])}
        rows = []
        for column, name in enumerate(FINDING_NAMES):
            row = {
                "finding": name,
                "present": int((labels[:, column] == 1).sum()),
                "absent": int((labels[:, column] == 0).sum()),
                "assessed": bool(usable[column]),
            }
            if name in place:
                at = place[name]
                row["auc"] = number(float(found.findings.estimate[at]))
                row["interval"] = found.findings.limits(at)
                row["threshold"] = float(calibration.thresholds[column])
            rows.append(row)
        macro = {
            "auc": number(float(found.macro.estimate)),
            "interval": found.macro.limits(),
        }
        return {"findings": rows, "macro": macro, "bootstrap": bootstrap.settings(), "calibration": calibration.problem}


def format_record(record: dict[str, Any]) -> str:
    """The table of the findings for a console."""
    lines = [f"{'finding':<36} {'present':>7} {'absent':>7} {'AUC':>6}  95 % interval"]
    for row in record["findings"]:
        counts = f"{row['finding']:<36} {row['present']:>7} {row['absent']:>7}"
        if row["assessed"]:
            low, high = row["interval"]
            lines.append(f"{counts} {cell(row['auc']):>6}  {cell(low)} to {cell(high)}")
        else:
            lines.append(f"{counts}      -  too few patients: not assessed")
    macro, domain = record["macro"], record["domain"]
    lines += [
        "",
        f"Mean AUC {cell(macro['auc'])} in cross-validation by patient: {record['scans']} scans of "
        f"{record['patients']} patients, {record['steps']} steps, weight decay {record['weight_decay']:g}, "
        f"learning rate {record['learning_rate']:g}.",
        "Domain: not available." if domain is None else f"Domain: threshold {cell(domain['threshold'])}.",
    ]
    return "\n".join(lines)


def _start_pooling(pooling: nn.Module) -> None:
    """Values of the attention are the tokens themselves, so that untrained attention gives their mean."""
    for part in (pooling.value, pooling.output):
        nn.init.eye_(part.weight)  # type: ignore[union-attr,arg-type]
        nn.init.zeros_(part.bias)  # type: ignore[union-attr,arg-type]


def _calibration(
    logits: NDArray[np.float64], labels: NDArray[np.int64], usable: NDArray[np.bool_], rule: ThresholdRule
) -> Calibration:
    """Platt scaling and thresholds of the held-out logits; no threshold where a finding is not assessed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Findings without labels are named in the table.
        scale, shift, problem = fit_scaling(logits, labels)
        thresholds = choose_thresholds(apply_platt(logits, scale, shift), labels, rule, FINDING_NAMES)
    thresholds[~usable] = NO_THRESHOLD
    unused = np.zeros((len(TEMPLATES), len(usable)))
    return Calibration(fit_temperature(logits, labels), scale, shift, thresholds, unused, problem)


def _domain_record(domain: Domain, features: NDArray[np.float64]) -> dict[str, Any] | None:
    if not domain.fitted:
        return None
    scores = domain_scores(domain, features)
    return {"scans": int(domain.scans), "threshold": float(domain.threshold), "median": number(np.median(scores))}
