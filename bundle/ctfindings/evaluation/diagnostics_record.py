"""Numbers of ``metrics.json`` on robustness, text-embedding collapse, caption retrieval and calibration error."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.evaluation.diagnostics import DRAWS, HITS, KEPT_SHARE, Diagnostics
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES, TEMPLATES
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.calibration_error import expected_calibration_error, reliability
from bundle.ctfindings.metrics.classification import FloatArray, finding_auc
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.metrics.platt_scaling import apply_temperature
from bundle.ctfindings.metrics.prompt_perturbations import PERTURBATIONS
from bundle.ctfindings.metrics.statistic_groups import StatisticGroup, compare_groups, group_record
from bundle.ctfindings.metrics.text_collapse import (
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
from bundle.ctfindings.metrics.wording_spread import auc_group, f1_group, mean_group, spread_record

TEMPLATE_NAMES = tuple(template.id for template in TEMPLATES)
WORDING_NAMES = tuple(perturbation.id for perturbation in PERTURBATIONS)
C = len(FINDING_NAMES)
CAPTIONS_PER_ANATOMY = 500  # Larger numbers of captions are sampled: pairs grow with the square


def statistic_groups(answers: Diagnostics) -> dict[str, StatisticGroup]:
    """All statistics with an interval, by name of the group; groups whose inputs the studies lack are absent."""
    found = {
        "templates": auc_group(answers.template_logits, answers.labels, TEMPLATE_NAMES),
        "templates_f1_own_threshold": f1_group(answers.present_own, answers.labels),
        "templates_f1_reference_threshold": f1_group(answers.present_reference, answers.labels),
        "wordings": auc_group(answers.wording_logits, answers.labels, WORDING_NAMES),
        "calibration_error": _calibration_group(answers),
    }
    if len(answers.captions):
        rows = answers.caption_rows().sample(CAPTIONS_PER_ANATOMY)
        found["captions"] = StatisticGroup(STATISTICS, lambda weights: text_statistics(rows, weights))
        found["retrieval"] = mean_group(answers.hits, answers.queries, HITS)
    shown = ~np.isnan(answers.distance)
    if shown.any():
        found["image_text"] = mean_group(answers.distance[shown, None], answers.caption_study[shown], ["alignment"])
    return found


def diagnostics_record(answers: Diagnostics, bootstrap: Bootstrap) -> dict[str, Any]:
    """``wordings``, ``templates_f1``, ``calibration_error``, ``reliability``, ``prompt_by_label``, ``collapse``
    (``captions`` and ``prompts``), ``image_text`` and ``retrieval``; the last two and the captions are None without
    reports.
    """
    groups = statistic_groups(answers)
    records = {
        name: group_record(group, bootstrap) for name, group in groups.items() if name not in ("templates", "wordings")
    }
    retrieval, captions = records.get("retrieval"), records.get("captions")
    return {
        "wordings": {
            **spread_record(answers.wording_logits, answers.labels, WORDING_NAMES, bootstrap),
            "changes": {perturbation.id: perturbation.change for perturbation in PERTURBATIONS},
        },
        "templates_f1": {
            "reference": TEMPLATE_NAMES[0],
            "own_threshold": records["templates_f1_own_threshold"],
            "reference_threshold": records["templates_f1_reference_threshold"],
        },
        "calibration_error": records["calibration_error"],
        "reliability": {name: reliability(values, answers.labels) for name, values in _probabilities(answers).items()},
        "prompt_by_label": prompt_by_label(answers),
        "collapse": {
            "captions": None if captions is None else _captions_record(answers.caption_rows(), captions),
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


def prompt_by_label(answers: Diagnostics) -> dict[str, Any]:
    """AUC of the prompts of each finding for the labels of each finding, and how many findings their own prompt ranks
    best of all.
    """
    auc = np.stack([finding_auc(answers.logits[:, [prompt] * C], answers.labels) for prompt in range(C)])
    defined = np.flatnonzero(~np.isnan(auc).any(axis=0))
    return {
        "auc": [[number(value) for value in row] for row in auc],
        "own_prompt_first": int((auc[:, defined].argmax(axis=0) == defined).sum()),
        "findings": len(defined),
    }


def comparison_record(
    first: Diagnostics, second: Diagnostics, names: Sequence[str], bootstrap: Bootstrap
) -> dict[str, Any]:
    """First minus second, for all statistics that both models have; both see the same resamples of the patients.

    ValueError if the models were not scored on the same studies with the same labels.
    """
    if first.ids.tolist() != second.ids.tolist() or not np.array_equal(first.labels, second.labels):
        raise ValueError(
            f"{names[1]}: was scored on other studies than {names[0]}; evaluate both on the same split of one datalist"
        )
    auc = bootstrap.auc_difference(first.calibrated, second.calibrated, first.labels)
    return {
        "first": names[0],
        "second": names[1],
        "studies": len(first.ids),
        "macro_auc": {"difference": number(float(auc.macro.estimate)), "interval": auc.macro.limits()},
        "findings": [
            {"finding": name, "difference": number(auc.findings.estimate[c]), "interval": auc.findings.limits(c)}
            for c, name in enumerate(FINDING_NAMES)
        ],
        "second_collapse": collapse_histograms(second),
        "statistics": compare_groups(statistic_groups(first), statistic_groups(second), bootstrap),
    }


def collapse_histograms(answers: Diagnostics) -> dict[str, dict[str, Any]]:
    """Moments and histogram of the cosines of each kind of pairs, without intervals."""
    rows = answers.caption_rows().sample(CAPTIONS_PER_ANATOMY)
    cosines = {kind: pair_cosines(rows, kind) for kind in PAIR_KINDS} if len(rows.embeddings) else {}
    cosines["polarity"] = _polarity(answers.prompts)
    return {kind: _moments_record(values) for kind, values in cosines.items()}


def prompts_record(prompts: FloatArray) -> dict[str, Any]:
    """Collapse of the scoring prompts, unit rows ``[C, 2, T, E]``, positive before negative; a negative prompt counts
    as normal. Prompts are not a sample, so there are no intervals.
    """
    finding, polarity, _ = np.indices(prompts.shape[:3]).reshape(3, -1)
    anatomy = np.asarray(FINDING_ANATOMY)[finding]
    scan = np.zeros(finding.size, dtype=np.int64)
    rows = TextRows(prompts.reshape(-1, prompts.shape[3]), anatomy, polarity == 1, np.arange(finding.size), scan)
    record: dict[str, Any] = {"texts": len(rows.embeddings)}
    for name, value in zip(STATISTICS, text_statistics(rows, np.ones((1, 1)))[0], strict=True):
        kind, _, moment = name.rpartition(".")
        (record.setdefault(kind, {}) if kind else record)[moment] = number(value)
    record["polarity"] = _moments_record(_polarity(prompts))
    record["silhouette"] = number(anatomy_silhouette(rows))
    for kind in PAIR_KINDS:
        _add_pairs(record[kind], rows, kind)
    return record


def _polarity(prompts: FloatArray) -> FloatArray:
    """Cosine of the positive and the negative prompt of each finding and template, ``[C, T]``."""
    return (prompts[:, 0] * prompts[:, 1]).sum(axis=-1)


def _moments_record(cosines: FloatArray) -> dict[str, Any]:
    moments = {name: number(value) for name, value in cosine_moments(cosines).items()}
    return {"pairs": int(cosines.size), **moments, "histogram": histogram(cosines)}


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


def _probabilities(answers: Diagnostics) -> dict[str, FloatArray]:
    """Probabilities by calibration, ``[S, C]``."""
    uncalibrated = apply_temperature(answers.logits, 1.0)
    return {"uncalibrated": uncalibrated, "temperature": answers.tempered, "platt": answers.calibrated}


def _calibration_group(answers: Diagnostics) -> StatisticGroup:
    probabilities = _probabilities(answers)

    def statistic(weights: FloatArray) -> FloatArray:
        errors = [expected_calibration_error(given, answers.labels, weights) for given in probabilities.values()]
        return np.stack([np.nanmean(error, axis=1) for error in errors], axis=1)

    return StatisticGroup(tuple(probabilities), statistic)
