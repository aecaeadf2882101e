"""What one model says about every study of a split, kept so that its robustness and collapse can be measured and
compared.

Shapes: S studies, T templates, W wordings, C findings, K anatomies, E embedding, A captions, Q queries.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.calibration import Calibration
from bundle.ctfindings.evaluation.scoring import SplitScores
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.metrics.calibration import apply_temperature
from bundle.ctfindings.metrics.caption_retrieval import drop_sentences, rank_of_own, report_similarity
from bundle.ctfindings.metrics.collapse import TextRows, alignment
from bundle.ctfindings.networks.text.prompts import template_bank
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.reports.sentences import split_sentences

FloatArray = NDArray[np.float64]

DIAGNOSTICS_FILE = "diagnostics.npz"

KEPT_SHARE = 0.5
"""Share of the sentences that are kept when captions are shortened."""

DRAWS = 2
"""How often captions are shortened and shuffled; the hits are averaged."""

WITHIN = (1, 5, 10)
DIRECTIONS = ("report_to_scan", "scan_to_report")
VARIANTS = ("whole", "half", "shuffled")
HITS: tuple[str, ...] = tuple(
    [f"{direction}.{variant}.r{within}" for direction in DIRECTIONS for variant in VARIANTS for within in WITHIN]
    + [f"{direction}.drop_r{within}" for direction in DIRECTIONS for within in WITHIN]
)
"""Columns of ``Diagnostics.hits``: found among the first 1, 5, 10 by the whole captions, by half of their sentences, by
all in another order; and how much the half loses."""


@dataclass(frozen=True)
class Diagnostics:
    """The answers of a model for the studies of a split; arrays only, so that they can be kept in a file and compared
    later.

    Attributes:
        ids: of the studies, S.
        patients: a number for each patient, in the order of their names, S; the names stay in the datalist.
        labels: 1, 0 or -1, ``[S, C]``.
        logits: of the mean over the templates, ``[S, C]``.
        calibrated: Platt-scaled probabilities, ``[S, C]``.
        tempered: probabilities by temperature alone, ``[S, C]``.
        template_logits: ``[S, T, C]``.
        wording_logits: ``[S, W, C]``.
        present_own: decisions of each template at its own thresholds of the calibration split, ``[S, T, C]``.
        present_reference: the same at the thresholds of the first template, ``[S, T, C]``.
        prompts: unit rows of the scoring templates, ``[C, 2, T, E]``, positive before negative.
        captions: unit rows of the captions, ``[A, E]``.
        caption_anatomy: ``[A]``.
        caption_normal: ``[A]``.
        caption_id: ``[A]``.
        caption_study: index of the study of each caption, ``[A]``.
        distance: squared distance of a caption to the image row of its anatomy, ``[A]``; NaN where the scan does not
            show it.
        hits: of each study with captions, ``[Q, M]``, columns as in `HITS`.
        queries: index of these studies, ``[Q]``.
    """

    ids: NDArray[np.str_]
    patients: NDArray[np.str_]
    labels: NDArray[np.int64]
    logits: FloatArray
    calibrated: FloatArray
    tempered: FloatArray
    template_logits: FloatArray
    wording_logits: FloatArray
    present_own: NDArray[np.bool_]
    present_reference: NDArray[np.bool_]
    prompts: FloatArray
    captions: FloatArray
    caption_anatomy: NDArray[np.int64]
    caption_normal: NDArray[np.bool_]
    caption_id: NDArray[np.int64]
    caption_study: NDArray[np.int64]
    distance: FloatArray
    hits: FloatArray
    queries: NDArray[np.int64]

    def caption_rows(self) -> TextRows:
        """The captions for the collapse measures."""
        return TextRows(self.captions, self.caption_anatomy, self.caption_normal, self.caption_id, self.caption_study)

    def save(self, path: str | Path) -> None:
        """Writes all arrays to an ``.npz`` file, floating point in single precision."""
        arrays = {field.name: getattr(self, field.name) for field in fields(self)}
        with atomic_path(path) as temporary:
            np.savez_compressed(
                temporary,
                **{
                    name: array.astype(np.float32) if array.dtype == np.float64 else array
                    for name, array in arrays.items()
                },
            )

    @classmethod
    def load(cls, path: str | Path) -> Diagnostics:
        """Reads what `save` wrote; nothing in the file is executed.

        Raises:
            ValueError: the file is missing or was not written by `save`.
        """
        names = [field.name for field in fields(cls)]
        if not Path(path).is_file():
            raise ValueError(f"{path}: there are no diagnostics; evaluate that checkpoint first, or give a checkpoint")
        with np.load(path, allow_pickle=False) as content:
            absent = sorted(set(names) - set(content.files))
            if absent:
                raise ValueError(f"{path}: lacks {', '.join(absent)}; evaluate that checkpoint again with this version")
            arrays = {name: content[name] for name in names}
        arrays = {
            name: array.astype(np.float64) if array.dtype == np.float32 else array for name, array in arrays.items()
        }
        for name in ("captions", "prompts"):
            arrays[name] = _unit(arrays[name])
        return cls(**arrays)


def diagnose(
    text: TextTower, scores: SplitScores, studies: Sequence[Mapping[str, Any]], calibration: Calibration, seed: int = 0
) -> Diagnostics:
    """Collects the answers of a model, and embeds the captions of the studies whole, shortened and shuffled.

    Args:
        text: the model's text tower.
        scores: of the studies, in their order.
        studies: from ``load_datalist``.
        calibration: fitted on other studies.
        seed: of the sentences that are left out.
    """
    valid = np.asarray([[bool(study["captions"].get(name)) for name in ANATOMY_NAMES] for study in studies])
    study, anatomy = np.nonzero(valid)
    places = [(studies[int(row)], int(column)) for row, column in zip(study, anatomy, strict=True)]
    words = [item["captions"][ANATOMY_NAMES[column]] for item, column in places]
    whole = embed_texts(text, words)
    shown = scores.anatomy_valid[study, anatomy]
    with torch.no_grad():
        prompts = template_bank(text).double().cpu().numpy()
    return Diagnostics(
        ids=np.asarray(scores.ids, dtype=np.str_),
        # A bootstrap asks only which scans belong together; numbers of one length sort as the names did.
        patients=np.asarray(
            [f"{number:06d}" for number in np.unique(scores.patients, return_inverse=True)[1]], dtype=np.str_
        ),
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
        distance=np.where(shown, alignment(whole, scores.anatomy[study, anatomy]), np.nan),
        hits=_retrieval_hits(text, scores, valid, words, whole, seed),
        queries=np.flatnonzero(valid.any(axis=1)),
    )


def embed_texts(text: TextTower, words: Sequence[str], role: str = "anatomy", batch_size: int = 64) -> FloatArray:
    """Unit embeddings of texts, ``[n, E]``, in batches of about equal length so that a trained trunk fits into memory."""
    if not words:
        return np.zeros((0, int(text.head.linear.out_features)))
    distinct = sorted(set(words), key=len)
    with torch.no_grad():
        parts = [text(distinct[start : start + batch_size], role) for start in range(0, len(distinct), batch_size)]
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
    # [direction, variant, Q, within] in the order of HITS, then what the half loses.
    stacked = np.stack([results[variant] for variant in VARIANTS], axis=1)
    count = int(queries.sum())
    columns = stacked.transpose(2, 0, 1, 3).reshape(count, len(DIRECTIONS) * len(VARIANTS) * len(WITHIN))
    drop = (results["whole"] - results["half"]).transpose(1, 0, 2).reshape(count, len(DIRECTIONS) * len(WITHIN))
    return np.concatenate([columns, drop], axis=1)


def _hits(rows: FloatArray, scores: SplitScores, valid: NDArray[np.bool_], queries: NDArray[np.bool_]) -> FloatArray:
    """Whether each study with captions is found, in both directions, ``[2, Q, within]``."""
    reports = np.zeros((*valid.shape, rows.shape[1]))
    reports[valid] = rows
    similarity = report_similarity(
        reports[queries], valid[queries], scores.anatomy[queries], scores.anatomy_valid[queries]
    )
    ranks = np.stack([rank_of_own(similarity), rank_of_own(similarity.T)])
    return (ranks[..., None] <= np.asarray(WITHIN)).astype(np.float64)


def _unit(rows: FloatArray) -> FloatArray:
    """Unit length in double precision, which single precision misses by 1e-7."""
    unit: FloatArray = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit
