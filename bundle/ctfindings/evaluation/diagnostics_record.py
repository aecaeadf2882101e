"""From the answers of a model to the numbers of ``metrics.json``: robustness, collapse, retrieval, calibration, each
with its interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.diagnostics import DRAWS, HITS, KEPT_SHARE, Diagnostics, FloatArray
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, TEMPLATES
from bundle.ctfindings.metrics.bootstrap import paired_bootstrap_auc
from bundle.ctfindings.metrics.calibration import apply_temperature, reliability, weighted_calibration_error
from bundle.ctfindings.metrics.collapse import (
    PAIR_KINDS,
    STATISTICS,
    TextRows,
    anatomy_silhouette,
    cosine_moments,
    histogram,
    pair_cosines,
    share_of_equal_texts,
    text_statistics,
)
from bundle.ctfindings.metrics.comparison import Section, compare_sections, section_record
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number
from bundle.ctfindings.metrics.robustness import f1_section, mean_section, wording_record, wording_section
from bundle.ctfindings.metrics.wordings import WORDINGS

TEMPLATE_NAMES = tuple(template.id for template in TEMPLATES)
WORDING_NAMES = tuple(wording.id for wording in WORDINGS)
CAPTIONS_PER_ANATOMY = 500
"""More captions of an anatomy than these are sampled: pairs grow with the square."""

CALIBRATIONS = ("uncalibrated", "temperature", "platt")


def sections(answers: Diagnostics) -> dict[str, Section]:
    """Everything that has an interval, by name; parts whose inputs the studies lack are absent."""
    found = {
        "templates": wording_section(answers.template_logits, answers.labels, TEMPLATE_NAMES),
        "templates_f1_own_threshold": f1_section(answers.present_own, answers.labels),
        "templates_f1_reference_threshold": f1_section(answers.present_reference, answers.labels),
        "wordings": wording_section(answers.wording_logits, answers.labels, WORDING_NAMES),
        "calibration_error": _calibration_section(answers),
    }
    if len(answers.captions):
        rows = answers.caption_rows().sample(CAPTIONS_PER_ANATOMY)
        found["captions"] = Section(STATISTICS, lambda weights: text_statistics(rows, weights))
        found["retrieval"] = mean_section(answers.hits, answers.queries, HITS)
    shown = ~np.isnan(answers.distance)
    if shown.any():
        found["image_text"] = mean_section(answers.distance[shown, None], answers.caption_study[shown], ["alignment"])
    return found


def diagnostics_record(answers: Diagnostics, resamples: int = 1000, seed: int = 42) -> dict[str, Any]:
    """The part of ``metrics.json`` that says how robust a model is and whether its texts collapsed.

    Args:
        answers: of the model.
        resamples: of the bootstrap by patient.
        seed: of the bootstrap.

    Returns:
        ``wordings``, ``templates_f1``, ``calibration_error``, ``reliability``, ``collapse`` (``captions`` and
        ``prompts``), ``image_text`` and ``retrieval``; the last two and the captions are None without reports.
    """
    patients = answers.patients.tolist()
    parts = sections(answers)
    records = {
        name: section_record(part, patients, resamples, seed)
        for name, part in parts.items()
        if name not in ("templates", "wordings")
    }
    retrieval = records.get("retrieval")
    return {
        "wordings": {
            **wording_record(answers.wording_logits, answers.labels, WORDING_NAMES, patients, resamples, seed),
            "changes": {wording.id: wording.change for wording in WORDINGS},
        },
        "templates_f1": {
            "reference": TEMPLATE_NAMES[0],
            "own_threshold": records["templates_f1_own_threshold"],
            "reference_threshold": records["templates_f1_reference_threshold"],
        },
        "calibration_error": records["calibration_error"],
        "reliability": {
            "uncalibrated": reliability(apply_temperature(answers.logits, 1.0), answers.labels),
            "temperature": reliability(answers.tempered, answers.labels),
            "platt": reliability(answers.calibrated, answers.labels),
        },
        "collapse": {
            "captions": _captions_record(answers.caption_rows(), records["captions"])
            if "captions" in records
            else None,
            "prompts": prompts_record(answers.prompts),
        },
        "image_text": records.get("image_text"),
        "retrieval": None
        if retrieval is None
        else {
            "reports": len(answers.queries),
            "kept_share": KEPT_SHARE,
            "draws": DRAWS,
            "chance_r1": 1 / len(answers.queries),
            **retrieval,
        },
    }


def comparison_record(
    first: Diagnostics, second: Diagnostics, names: Sequence[str], resamples: int = 1000, seed: int = 42
) -> dict[str, Any]:
    """First minus second, for everything both have, by a bootstrap in which both see the same resamples of the
    patients.

    Args:
        first: answers of one model.
        second: answers of another model for the same studies.
        names: of both.
        resamples: of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: the models were not scored on the same studies with the same labels.
    """
    if first.ids.tolist() != second.ids.tolist() or not np.array_equal(first.labels, second.labels):
        raise ValueError(
            f"{names[1]}: was scored on other studies than {names[0]}; evaluate both on the same split of one datalist"
        )
    patients = first.patients.tolist()
    auc = paired_bootstrap_auc(first.calibrated, second.calibrated, first.labels, patients, resamples, seed)
    rows = [
        {
            "finding": name,
            "difference": number(auc.findings.estimate[c]),
            "interval": interval_numbers(auc.findings.low[c], auc.findings.high[c]),
        }
        for c, name in enumerate(FINDING_NAMES)
    ]
    return {
        "first": names[0],
        "second": names[1],
        "studies": len(first.ids),
        "macro_auc": {
            "difference": number(float(auc.macro.estimate)),
            "interval": interval_numbers(auc.macro.low, auc.macro.high),
        },
        "findings": rows,
        "second_collapse": collapse_histograms(second),
        "statistics": compare_sections(sections(first), sections(second), patients, resamples, seed),
    }


def collapse_histograms(answers: Diagnostics) -> dict[str, dict[str, Any]]:
    """Moments and histogram of the cosines of each kind of pairs, without intervals."""
    rows = answers.caption_rows().sample(CAPTIONS_PER_ANATOMY)
    cosines = {kind: pair_cosines(rows, kind) for kind in PAIR_KINDS} if len(rows.embeddings) else {}
    cosines["polarity"] = (answers.prompts[:, 0] * answers.prompts[:, 1]).sum(axis=-1)
    return {
        kind: {
            "pairs": int(values.size),
            **{name: number(value) for name, value in cosine_moments(values).items()},
            "histogram": histogram(values),
        }
        for kind, values in cosines.items()
    }


def prompt_rows(prompts: FloatArray) -> TextRows:
    """The scoring prompts ``[C, 2, T, E]`` as texts of their anatomies; a denial counts as normal."""
    findings, polarities, templates, width = prompts.shape
    finding, polarity, _ = np.indices((findings, polarities, templates)).reshape(3, -1)
    return TextRows(
        embeddings=prompts.reshape(-1, width),
        anatomy=np.asarray(FINDING_ANATOMY)[finding],
        normal=polarity == 1,
        text_id=np.arange(finding.size),
        scan=np.zeros(finding.size, dtype=np.int64),
    )


def prompts_record(prompts: FloatArray) -> dict[str, Any]:
    """Collapse of the scoring prompts; a table of texts is no sample, so that nothing has an interval.

    Args:
        prompts: unit rows ``[C, 2, T, E]``, positive before negative.
    """
    rows = prompt_rows(prompts)
    values = text_statistics(rows, np.ones((1, 1)))[0]
    record: dict[str, Any] = {"texts": len(rows.embeddings)}
    for name, value in zip(STATISTICS, values, strict=True):
        kind, _, moment = name.rpartition(".")
        (record.setdefault(kind, {}) if kind else record)[moment] = number(value)
    polarity = (prompts[:, 0] * prompts[:, 1]).sum(axis=-1)
    record["polarity"] = {
        "pairs": int(polarity.size),
        **{name: number(value) for name, value in cosine_moments(polarity).items()},
        "histogram": histogram(polarity),
    }
    record["silhouette"] = number(anatomy_silhouette(rows))
    for kind in PAIR_KINDS:
        _add_pairs(record[kind], rows, kind)
    return record


def _captions_record(rows: TextRows, record: dict[str, Any]) -> dict[str, Any]:
    sampled = rows.sample(CAPTIONS_PER_ANATOMY)
    for kind in PAIR_KINDS:
        _add_pairs(record[kind], sampled, kind)
    return {
        "texts": len(sampled.embeddings),
        "distinct_texts": len(np.unique(sampled.text_id)),
        "by_anatomy": {name: int((sampled.anatomy == row).sum()) for row, name in enumerate(ANATOMY_NAMES)},
        "normal": int(sampled.normal.sum()),
        **record,
        "silhouette": number(anatomy_silhouette(sampled)),
    }


def _add_pairs(record: dict[str, Any], rows: TextRows, kind: str) -> None:
    cosines = pair_cosines(rows, kind)
    skewness, kurtosis = record["skewness"], record["excess_kurtosis"]
    record["pairs"] = int(cosines.size)
    record["equal_texts"] = number(share_of_equal_texts(rows, kind))
    record["bell_shaped"] = None if skewness is None else bool(abs(skewness) < 0.5 and abs(kurtosis) < 1)
    record["histogram"] = histogram(cosines)


def _calibration_section(answers: Diagnostics) -> Section:
    probabilities = (apply_temperature(answers.logits, 1.0), answers.tempered, answers.calibrated)

    def statistic(weights: FloatArray) -> FloatArray:
        errors = [weighted_calibration_error(stated, answers.labels, weights) for stated in probabilities]
        return np.stack([np.nanmean(error, axis=1) for error in errors], axis=1)

    return Section(CALIBRATIONS, statistic)
