"""Answers of a model for the studies of a split, saved so that models can be compared later without scoring again.

Shapes: S studies, T templates, W perturbations, C findings, K anatomies, E embedding, A captions, Q queries.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.calibrate import Calibration
from bundle.ctfindings.evaluation.evaluated_model import SplitScores
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.metrics.classification import FloatArray
from bundle.ctfindings.metrics.platt_scaling import apply_temperature
from bundle.ctfindings.metrics.retrieval import drop_sentences, rank_of_own, report_similarity
from bundle.ctfindings.metrics.text_collapse import TextRows
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.reports.sentences import split_sentences

DIAGNOSTICS_FILE = "diagnostics.npz"
BATCH = 64
KEPT_SHARE = 0.5  # Share of the sentences that shortened captions keep
DRAWS = 2  # Random draws of shortened and of shuffled captions; the hits are averaged
WITHIN = (1, 5, 10)
DIRECTIONS = ("report_to_scan", "scan_to_report")
VARIANTS = ("whole", "half", "shuffled")
HITS: tuple[str, ...] = tuple(
    [f"{direction}.{variant}.r{within}" for direction in DIRECTIONS for variant in VARIANTS for within in WITHIN]
    + [f"{direction}.drop_r{within}" for direction in DIRECTIONS for within in WITHIN]
)
"""Columns of ``Diagnostics.hits``: hits among the first 1, 5, 10 by the whole captions, by half of their sentences, and
by shuffled sentences; and the loss of the half."""


@dataclass(frozen=True)
class Diagnostics:
    """Answers of a model for the studies of a split."""

    ids: NDArray[np.str_]  # Of the studies, S
    patients: NDArray[np.str_]  # Numbers in place of the patients' names, S
    labels: NDArray[np.int64]  # 1, 0 or -1, [S, C]
    logits: FloatArray  # Logits of the mean over the templates, [S, C]
    calibrated: FloatArray  # Probabilities by Platt scaling, [S, C]
    tempered: FloatArray  # Probabilities by temperature, [S, C]
    template_logits: FloatArray  # [S, T, C]
    wording_logits: FloatArray  # Logits of the perturbations, [S, W, C]
    present_own: NDArray[np.bool_]  # Decisions of each template at its own thresholds, [S, T, C]
    # Decisions of each template at the thresholds of the first template, [S, T, C]
    present_reference: NDArray[np.bool_]
    prompts: FloatArray  # Unit rows of the scoring templates, [C, 2, T, E], positive before negative
    captions: FloatArray  # Unit rows of the captions, [A, E]
    caption_anatomy: NDArray[np.int64]  # Anatomy of each caption, [A]
    caption_normal: NDArray[np.bool_]  # Whether a caption is normal, [A]
    caption_id: NDArray[np.int64]  # Equal for equal captions, [A]
    caption_study: NDArray[np.int64]  # Index of the study of each caption, [A]
    # Squared distance of a caption to the image row of its anatomy, [A]; NaN if that is outside the field of view
    distance: FloatArray
    hits: FloatArray  # Hits of each study with captions, [Q, M], columns as in `HITS`
    queries: NDArray[np.int64]  # Index of these studies, [Q]

    def caption_rows(self) -> TextRows:
        """The captions, for the collapse metrics."""
        return TextRows(self.captions, self.caption_anatomy, self.caption_normal, self.caption_id, self.caption_study)

    def save(self, path: str | Path) -> None:
        """Writes all arrays to an ``.npz`` file, floating point in single precision."""
        arrays = {
            name: array.astype(np.float32) if array.dtype == np.float64 else array for name, array in vars(self).items()
        }
        with atomic_path(path) as temporary:
            np.savez_compressed(temporary, **arrays)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Reads an ``.npz`` file of `save`. ValueError if the file is missing or incomplete."""
        names = [field.name for field in fields(cls)]
        if not Path(path).is_file():
            raise ValueError(f"{path}: file not found; evaluate that checkpoint first, or give a checkpoint")
        with np.load(path, allow_pickle=False) as content:
            absent = sorted(set(names) - set(content.files))
            if absent:
                raise ValueError(f"{path}: lacks {', '.join(absent)}; evaluate that checkpoint again with this version")
            arrays = {name: content[name] for name in names}
        for name, array in arrays.items():
            arrays[name] = array.astype(np.float64) if array.dtype == np.float32 else array
        return cls(**{**arrays, **{name: _unit(arrays[name]) for name in ("captions", "prompts")}})


def diagnose(
    text: TextTower, scores: SplitScores, studies: Sequence[Mapping[str, Any]], calibration: Calibration, seed: int
) -> Diagnostics:
    """Collects the answers of a model, and embeds the captions of the studies whole, shortened and shuffled.

    The studies are in the order of the scores. The seed draws the shortened and shuffled captions.
    """
    valid = np.asarray([[bool(study["captions"].get(name)) for name in ANATOMY_NAMES] for study in studies])
    study, anatomy = np.nonzero(valid)
    places = [(studies[int(row)], int(column)) for row, column in zip(study, anatomy, strict=True)]
    words = [item["captions"][ANATOMY_NAMES[column]] for item, column in places]
    whole = embed_texts(text, words)
    squared = ((whole - scores.anatomy[study, anatomy]) ** 2).sum(axis=1)
    with torch.no_grad():
        prompts = template_bank(text).double().cpu().numpy()
    # Numbers of equal length sort as the names do, so the bootstrap draws the same patients.
    patients = [f"{number:06d}" for number in np.unique(scores.patients, return_inverse=True)[1]]
    return Diagnostics(
        ids=np.asarray(scores.ids, dtype=np.str_),
        patients=np.asarray(patients, dtype=np.str_),
        labels=scores.labels,
        logits=scores.logits,
        calibrated=calibration.probabilities(scores.logits),
        tempered=apply_temperature(scores.logits, calibration.temperature),
        template_logits=scores.template_logits,
        wording_logits=scores.wording_logits,
        present_own=scores.template_logits >= calibration.template_thresholds,
        present_reference=scores.template_logits >= calibration.template_thresholds[:1],
        prompts=_unit(prompts),
        captions=whole,
        caption_anatomy=anatomy.astype(np.int64),
        caption_normal=np.asarray([bool(item["caption_normal"][k]) for item, k in places], dtype=bool),
        caption_id=np.asarray([int(item["caption_id"][k]) for item, k in places], dtype=np.int64),
        caption_study=study.astype(np.int64),
        distance=np.where(scores.anatomy_valid[study, anatomy], squared, np.nan),
        hits=_retrieval_hits(text, scores, valid, words, whole, seed),
        queries=np.flatnonzero(valid.any(axis=1)),
    )


def embed_texts(text: TextTower, words: Sequence[str]) -> FloatArray:
    """Unit embeddings of texts, ``[n, E]``, in batches of similar length to limit the memory of a trained trunk."""
    if not words:
        return np.zeros((0, int(text.head.linear.out_features)))
    distinct = sorted(set(words), key=len)
    with torch.no_grad():
        parts = [text(distinct[start : start + BATCH], "anatomy") for start in range(0, len(distinct), BATCH)]
    rows = torch.cat(parts).double().cpu().numpy()
    position = {word: index for index, word in enumerate(distinct)}
    return _unit(rows[[position[word] for word in words]])


def _retrieval_hits(
    text: TextTower, scores: SplitScores, valid: NDArray[np.bool_], words: Sequence[str], whole: FloatArray, seed: int
) -> FloatArray:
    """Columns `HITS` of the studies with captions, ``[Q, M]``."""
    generator = np.random.default_rng(seed)
    sentences = [[sentence.text for sentence in split_sentences(caption)] or [caption] for caption in words]
    queries: NDArray[np.bool_] = np.asarray(valid.any(axis=1))
    results = {"whole": _hits(whole, scores, valid, queries)}
    for variant, keep, shuffle in (("half", KEPT_SHARE, False), ("shuffled", 1.0, True)):
        draws = []
        for _ in range(DRAWS):
            ordered = [[part[i] for i in generator.permutation(len(part))] if shuffle else part for part in sentences]
            changed = [drop_sentences(part, keep, generator) for part in ordered]
            draws.append(_hits(embed_texts(text, changed), scores, valid, queries))
        results[variant] = np.mean(draws, axis=0)
    # [direction, variant, Q, within] in the order of HITS, then the loss of the half.
    stacked = np.stack([results[variant] for variant in VARIANTS], axis=1)
    drop = results["whole"] - results["half"]
    count, width = int(queries.sum()), len(DIRECTIONS) * len(WITHIN)
    columns = [
        stacked.transpose(2, 0, 1, 3).reshape(count, width * len(VARIANTS)),
        drop.transpose(1, 0, 2).reshape(count, width),
    ]
    return np.concatenate(columns, axis=1)


def _hits(rows: FloatArray, scores: SplitScores, valid: NDArray[np.bool_], queries: NDArray[np.bool_]) -> FloatArray:
    """Hits of each study with captions in both directions, ``[2, Q, within]``."""
    reports = np.zeros((*valid.shape, rows.shape[1]))
    reports[valid] = rows
    similarity = report_similarity(
        reports[queries], valid[queries], scores.anatomy[queries], scores.anatomy_valid[queries]
    )
    ranks = np.stack([rank_of_own(similarity), rank_of_own(similarity.T)])
    return (ranks[..., None] <= np.asarray(WITHIN)).astype(np.float64)


def _unit(rows: FloatArray) -> FloatArray:
    """Unit length in double precision."""
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)
