"""Evaluation on reports: does a report find its scan, and a sentence its slice? From a checkpoint and a datalist to
``reports.json``.

Shapes: S studies, E embedding, D depth rows, n snippets.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.transforms import Transform
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.data.datalist import load_datalist, report_text
from bundle.ctfindings.data.geometry import KeepGeometryd
from bundle.ctfindings.data.loaders import cached_dataset, study_loader
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.losses.snippet_localization import points_into_scan
from bundle.ctfindings.metrics.localization import depth_errors, depth_record
from bundle.ctfindings.metrics.retrieval import first_of_each, report_retrieval
from bundle.ctfindings.networks.checkpoint import load_checkpoint, sha256_of
from bundle.ctfindings.networks.image.depth import depth_logits, depth_positions, depth_profile
from bundle.ctfindings.networks.vision_language import VisionLanguageModel

logger = logging.getLogger(__name__)

Snippets = Sequence[Mapping[str, Any]]
Rewording = Callable[[Mapping[str, Any], Snippets], Snippets]


@dataclass(frozen=True)
class ReportEmbeddings:
    """What an evaluation on reports reads of a split, from the image alone.

    Attributes:
        ids: of the studies, S.
        patients: of the studies, S.
        labels: 1, 0 or -1, ``[S, C]``.
        scans: unit thorax rows, ``[S, E]``.
        valid: scans that show a thorax, ``[S]``.
        depth: unit depth rows of each study, ``[D, E]``; D differs between scans.
        depth_mm: world z of the rows in mm, NaN where padding, ``[D]`` each.
        studies: the records.
    """

    ids: list[str]
    patients: list[str]
    labels: NDArray[np.int64]
    scans: NDArray[np.float64]
    valid: NDArray[np.bool_]
    depth: list[Tensor]
    depth_mm: list[Tensor]
    studies: list[Mapping[str, Any]]


def collect_report_embeddings(
    loader: Iterable[dict[str, Any]], model: VisionLanguageModel, device: str | torch.device = "cpu"
) -> ReportEmbeddings:
    """Encodes every scan of a loader once, without mask and report.

    Args:
        loader: batches of studies with the geometry of ``KeepGeometryd``.
        model: with its weights loaded.
        device: to run on.
    """
    model.to(device).eval()
    parts: dict[str, list[Any]] = {
        name: [] for name in ("ids", "patients", "labels", "scans", "valid", "depth", "depth_mm", "studies")
    }
    for batch in loader:
        image = batch["image"].float().to(device)
        with torch.no_grad():
            encoded = model.encode_image(image)
            depth_mm = depth_positions(batch["image_affine"].to(device), image, model.image.depth_patch)
        parts["ids"] += batch["id"]
        parts["patients"] += batch["patient"]
        parts["labels"] += list(batch["labels"].numpy())
        parts["scans"] += list(encoded.anatomy[:, THORAX].double().cpu().numpy())
        parts["valid"] += encoded.anatomy_valid[:, THORAX].tolist()
        parts["depth"] += list(encoded.depth.cpu())
        parts["depth_mm"] += list(depth_mm.cpu())
        given = {name: batch[name] for name in ("report", "snippets", "sites") if name in batch}
        parts["studies"] += [{name: values[row] for name, values in given.items()} for row in range(len(batch["id"]))]
    return ReportEmbeddings(
        ids=parts["ids"],
        patients=parts["patients"],
        labels=np.asarray(parts["labels"]),
        scans=np.asarray(parts["scans"]),
        valid=np.asarray(parts["valid"]),
        depth=parts["depth"],
        depth_mm=parts["depth_mm"],
        studies=parts["studies"],
    )


def retrieval_of(
    embeddings: ReportEmbeddings,
    model: VisionLanguageModel,
    resamples: int = 1000,
    seed: int = 42,
    count: int | None = None,
) -> dict[str, Any]:
    """`report_retrieval` of the studies that have a report.

    Args:
        embeddings: of the split.
        model: whose text tower encodes the reports.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        count: take only the first so many of them; all by default.

    Raises:
        ValueError: fewer than two patients have a report.
    """
    texts = [report_text(study.get("report")) for study in embeddings.studies]
    rows = [row for row, text in enumerate(texts) if text and embeddings.valid[row]][:count]
    if len({embeddings.patients[row] for row in rows}) < 2:
        raise ValueError(
            f"reports: {len(rows)} studies with a report are of fewer than 2 patients; retrieval needs a pool to search"
        )
    with torch.no_grad():
        reports = model.encode_text([texts[row] for row in rows], "report").double().cpu().numpy()
    return report_retrieval(
        embeddings.scans[rows],
        reports,
        [texts[row] for row in rows],
        [embeddings.patients[row] for row in rows],
        embeddings.labels[rows],
        resamples,
        seed,
    )


def localization_of(
    embeddings: ReportEmbeddings,
    model: VisionLanguageModel,
    reword: Rewording | None = None,
    resamples: int = 1000,
    seed: int = 42,
) -> dict[str, Any] | None:
    """`depth_record` of the snippets of a split: all of them, and the first of each scan (RadFinder's count).

    Args:
        embeddings: of the split.
        model: whose text tower encodes the snippets.
        reword: gives the snippets that are asked in place of a study's own, with the study; their ``z_mm`` is the
            truth.
        resamples: of the bootstrap.
        seed: of the bootstrap and the random guess.

    Returns:
        ``all`` and ``first_of_scan``, and ``left_out``, the snippets without a place in their scan; None without
        snippets of at least two patients.
    """
    asked, left_out = [], 0
    for row, study in enumerate(embeddings.studies):
        snippets = study.get("snippets") or ()
        given = list(snippets if reword is None else reword(study, snippets))
        placed = [snippet for snippet in given if snippet.get("z_mm") is not None]
        target_mm = torch.tensor([float(snippet["z_mm"]) for snippet in placed])
        inside = points_into_scan(embeddings.depth_mm[row].expand(len(placed), -1), target_mm)
        asked += [
            (row, str(snippet["text"]), float(snippet["z_mm"]))
            for snippet, kept in zip(placed, inside, strict=True)
            if kept
        ]
        left_out += len(given) - int(inside.sum())
    if len({embeddings.patients[row] for row, _, _ in asked}) < 2:
        return None
    with torch.no_grad():
        embedded = model.encode_text([text for _, text, _ in asked], "snippet").cpu()
    depth = pad_sequence([embeddings.depth[row] for row, _, _ in asked], batch_first=True)
    heights = pad_sequence([embeddings.depth_mm[row] for row, _, _ in asked], batch_first=True, padding_value=torch.nan)
    profile = depth_profile(depth_logits(depth, embedded[:, None])[:, 0], heights).numpy()
    levels = heights.numpy()
    target = np.asarray([z_mm for _, _, z_mm in asked])
    record: dict[str, Any] = {"left_out": left_out}
    for name, chosen in (
        ("all", np.arange(len(asked))),
        ("first_of_scan", first_of_each([row for row, _, _ in asked])),
    ):
        errors = depth_errors(profile[chosen], levels[chosen], target[chosen], seed)
        record[name] = depth_record(errors, [embeddings.patients[asked[place][0]] for place in chosen], resamples, seed)
    return record


def evaluate_reports(
    network: VisionLanguageModel,
    ckpt_path: str | Path,
    datalist: str | Path,
    preprocessing: Sequence[Transform],
    output_dir: str | Path,
    split: str = "test",
    resamples: int = 1000,
    seed: int = 42,
    device: str | torch.device = "cpu",
    cache_dir: str | Path | None = None,
    cache_key: Any = None,
) -> dict[str, Any]:
    """Scores retrieval and localization of a checkpoint on a split and writes ``reports.json``.

    Args:
        network: the geometry of the checkpoint.
        ckpt_path: a training checkpoint or ``models/model.pt``.
        datalist: JSON file with the split.
        preprocessing: the image pipeline of inference.
        output_dir: folder of the result; made when missing.
        split: split that is scored.
        resamples: bootstrap resamples of the intervals.
        seed: of the bootstrap.
        device: to run on.
        cache_dir: folder in which preprocessed scans are kept; None keeps none.
        cache_key: the parameters of the pipeline, see ``cached_dataset``.

    Returns:
        ``retrieval``, ``localization`` (None without snippets) and ``settings``.

    Raises:
        ValueError: the split is missing, fewer than two of its patients have a report, or the checkpoint does not fit.
    """
    studies = load_datalist(datalist, split)
    load_checkpoint(network, ckpt_path)
    embeddings = collect_report_embeddings(report_loader(studies, preprocessing, cache_dir, cache_key), network, device)
    record = {
        "split": split,
        "scans": len(embeddings.ids),
        "retrieval": retrieval_of(embeddings, network, resamples, seed),
        "localization": localization_of(embeddings, network, None, resamples, seed),
        "settings": {
            "datalist": Path(datalist).name,
            "checkpoint": Path(ckpt_path).name,
            "checkpoint_sha256": sha256_of(ckpt_path),
        },
    }
    if record["localization"] is not None and not bool(network.text.snippet_head_trained):
        logger.warning(
            "%s: was not trained on slice references; its localization is that of an untrained head", ckpt_path
        )
    print(format_reports(record))
    with atomic_path(Path(output_dir) / "reports.json") as path:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    return record


def report_loader(
    studies: Sequence[dict[str, Any]], preprocessing: Sequence[Transform], cache_dir: str | Path | None, cache_key: Any
) -> Iterable[dict[str, Any]]:
    """Whole scans one by one with their geometry, from the cache that ``evaluate_checkpoint`` keeps."""
    steps = [*preprocessing, KeepGeometryd("image")]
    return study_loader(cached_dataset(studies, steps, (), cache_dir, ["geometry", cache_key]), batch_size=1)


def format_reports(record: dict[str, Any]) -> str:
    """A line for each pool and direction, and one for localization."""
    lines = []
    for pool, directions in record["retrieval"]["pools"].items():
        for direction, found in directions.items():
            recalls = ", ".join(f"R@{k} {100 * entry['value']:.1f} %" for k, entry in found["recall"].items())
            lines.append(
                f"{direction.replace('_', ' ')}, {pool} ({found['pool']}): {recalls}, median rank {found['median_rank']:g}"
            )
    placed = record["localization"]
    if placed is not None:
        errors = {guess: placed["all"][guess]["mae_mm"]["value"] for guess in ("model", "profile", "middle", "random")}
        lines.append(
            f"localization of {placed['all']['snippets']} snippets: mean error {errors['model']:.1f} mm "
            f"({errors['profile']:.1f} where the profile is halved), "
            f"middle slice {errors['middle']:.1f}, random {errors['random']:.1f}; {placed['left_out']} left out"
        )
    return "\n".join(lines)
