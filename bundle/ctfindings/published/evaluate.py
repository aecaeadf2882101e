"""Evaluation of a published model by its own protocol, so that its published table can be met by someone who has the
data.

Shapes: S studies, T templates, C findings, K anatomies.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Compose, Transform
from tqdm import tqdm

from bundle.ctfindings import __version__
from bundle.ctfindings.anatomy import ANATOMIES
from bundle.ctfindings.data.transforms import STORED_KEY
from bundle.ctfindings.evaluation.evaluate import check_patients, labelled_studies, studies_to_score
from bundle.ctfindings.evaluation.predictions_csv import write_predictions
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.metrics.protocols import ZeroShotScores, check_protocol, format_protocol, protocol_record
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.networks.classifier import load_classifier
from bundle.ctfindings.published.classifier import PublishedClassifier
from bundle.ctfindings.published.text_tower import PublishedTextTower


def evaluate_published(
    network: PublishedClassifier,
    ckpt_path: str | Path,
    text_tower: Callable[[], PublishedTextTower],
    datalist: str | Path,
    preprocessing: Sequence[Transform],
    protocol: str,
    output_dir: str | Path,
    calibration_split: str = "validation",
    split: str = "test",
    resamples: int = 1000,
    seed: int = 0,
    device: str | torch.device = "cpu",
    **unused: Any,
) -> dict[str, Any]:
    """Scores a split and writes ``metrics.json`` and ``predictions.csv``; prints the means of the protocol.

    Every scan is read, encoded as in inference, with its mask where it has one, and forgotten.

    Args:
        network: the published model.
        ckpt_path: its converted checkpoint.
        text_tower: makes its text tower; called when the checkpoint came without embeddings of the prompts.
        datalist: JSON file with both splits.
        preprocessing: the image pipeline of the model.
        protocol: by which it is scored, see ``PROTOCOLS``.
        output_dir: folder of the results; made when missing.
        calibration_split: split on which a protocol may choose thresholds; not read by a protocol that chooses them on
            the scored scans.
        split: split that is scored.
        resamples: bootstrap resamples of the interval of the AUC.
        seed: of the bootstrap.
        device: to run on.
        unused: what else ``evaluate_checkpoint`` can be asked for; None each.

    Returns:
        The content of ``metrics.json``.

    Raises:
        ValueError: something is asked for that a published model is not scored by, a split is missing or has no labels,
            a study or patient is in both, a scan has no mask where the model needs one, or the checkpoint does not fit.
    """
    for name, value in unused.items():
        if value is not None:
            raise ValueError(
                f"{name}: a published model is scored by its protocol alone, so that this has no effect; leave {name} out"
            )
    chosen = check_protocol(protocol)
    scored_studies = studies_to_score(datalist, split)
    calibration_studies = []
    if chosen.thresholds == "calibration":
        calibration_studies = labelled_studies(datalist, calibration_split)
        check_patients(calibration_studies, scored_studies, f"{datalist}: {calibration_split} and {split}")
    network.to(device).eval()
    load_classifier(network, ckpt_path, text_tower=text_tower)
    steps = Compose(list(preprocessing))
    scored = score_studies(network, scored_studies, steps, device, split)
    calibration = score_studies(network, calibration_studies, steps, device, calibration_split)
    not_scored = [name for name, wanted in zip(FINDING_NAMES, network.scored, strict=True) if not wanted]
    record = protocol_record(
        protocol, scored, calibration, network.template_ids, resamples, seed, not_scored=not_scored
    )
    record["settings"] = {
        "datalist": Path(datalist).name,
        "split": split,
        "calibration_split": calibration_split if calibration_studies else None,
        "checkpoint": Path(ckpt_path).name,
        "checkpoint_sha256": sha256_of(ckpt_path),
        "device": torch.device(device).type,
        "version": __version__,
    }
    output = Path(output_dir)
    with atomic_path(output / "metrics.json") as temporary:
        temporary.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    columns = [column for column, wanted in enumerate(network.scored) if wanted]
    probabilities = 1 / (1 + np.exp(-scored.logits[:, columns]))
    names = [FINDING_NAMES[column] for column in columns]
    write_predictions(output / "predictions.csv", scored.ids, probabilities, scored.labels[:, columns], names)
    print(format_protocol(record))
    return record


@torch.inference_mode()
def score_studies(
    network: PublishedClassifier,
    studies: Iterable[dict[str, Any]],
    preprocessing: Callable[[Any], Any],
    device: str | torch.device = "cpu",
    name: str = "scoring",
) -> ZeroShotScores:
    """Logits of every study by the mean over the templates and by each of them.

    Args:
        network: with its weights loaded.
        studies: of ``load_datalist``.
        preprocessing: the image pipeline of the model.
        device: to run on.
        name: label of the progress bar.
    """
    ids, patients, labels, logits, template_logits, valid = [], [], [], [], [], []
    listed = list(studies)
    for study in tqdm(listed, desc=name, unit="scan", disable=not listed):
        files = {key: study[key] for key in ("image", "anatomy", STORED_KEY) if key in study}
        loaded = preprocessing(files)
        image: MetaTensor = loaded["image"]
        mask = loaded["anatomy"].as_tensor()[None].to(device) if "anatomy" in loaded else None
        known = loaded["anatomy_known"][None].to(device) if mask is not None else None
        try:
            encoded = network.image.encode_scan(image.as_tensor()[None].float().to(device), mask, known)
        except ValueError as error:
            raise ValueError(f"{study['image']}: {error}") from error
        scores = network.score(encoded)
        ids.append(study["id"])
        patients.append(study["patient"])
        labels.append(np.asarray(study["labels"], dtype=np.int64))
        logits.append(scores.logits[0].double().cpu().numpy())
        template_logits.append(scores.template_logits[0].double().cpu().numpy())
        valid.append(encoded.anatomy_valid[0].cpu().numpy())
    if not ids:
        count = len(FINDING_NAMES)
        nothing = np.zeros((0, count))
        by_template = np.zeros((0, len(network.template_ids), count))
        return ZeroShotScores(
            [], [], nothing.astype(np.int64), nothing, by_template, np.zeros((0, len(ANATOMIES)), dtype=bool)
        )
    return ZeroShotScores(ids, patients, np.stack(labels), np.stack(logits), np.stack(template_logits), np.stack(valid))
