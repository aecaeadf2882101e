"""AUC of findings that the training left out, beside its controls; the page and the figure.

Controls: the same model taught all findings; the prompts of the two findings that left together with it (a name that is
wrong); a linear probe on the image rows of the model that left it out, which knows the labels; and chance, 0.5.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from bundle.ctfindings.anatomy import THORAX
from bundle.ctfindings.evaluation.plots import BLUE, RED, write_figure
from bundle.ctfindings.findings import FINDING_ANATOMY, FINDING_NAMES
from bundle.ctfindings.metrics.bootstrap import Bootstrap, Interval, weighted_auc
from bundle.ctfindings.metrics.classification import FloatArray, finding_auc
from experiments.harness.page import page_head, write_page, write_results
from experiments.leave_findings_out.held_out import FOLDS, REGIMES
from experiments.leave_findings_out.scores import Scores

FIGURE = "auc.png"
UNCAPTIONED_FILE = "uncaptioned.json"
PROBE_FOLDS = 5
MEASURES = {
    "supervised": "taught",
    "held_out": "left out",
    "swapped": "left out, prompts of another finding",
    "probe": "left out, linear probe",
}


def write_results_and_page(
    output: Path,
    finished: Sequence[Mapping[str, Any]],
    command: str,
    settings: Mapping[str, Any],
    resamples: int,
) -> Path:
    """Writes ``results.json``, the figure and ``README.md``; returns the page.

    Args:
        output: Folder of the page.
        finished: Runs with ``regime``, ``fold``, ``seed`` and ``scores``.
        command: Command for the page.
        settings: Settings for the record.
        resamples: Bootstrap resamples, by patient.
    """
    supervised = {run["seed"]: run["scores"] for run in finished if run["fold"] is None}
    rows = [row for run in finished if run["fold"] is not None for row in _rows(run, supervised[run["seed"]])]
    results = {
        "command": command,
        "settings": dict(settings),
        "supervised_macro_auc": {seed: float(np.nanmean(_auc(scores))) for seed, scores in supervised.items()},
        "macro": _macro(finished, rows, resamples),
        "rows": rows,
    }
    write_results(output, results)
    if rows:
        _plot(rows, output / FIGURE)
    return write_results_page(output)


def write_results_page(output: Path) -> Path:
    """Writes ``README.md`` from ``results.json`` and, if it is there, the file of ``uncaptioned.py``."""
    results = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return write_page(output, [*_lines(results), *_uncaptioned(output / UNCAPTIONED_FILE)])


def probe_auc(scores: Scores, finding: int) -> float | None:
    """AUC of a logistic regression on the rows of the finding's anatomy and of the thorax, over folds of patients."""
    known = scores.labels[:, finding] >= 0
    labels = scores.labels[known, finding]
    if np.bincount(labels, minlength=2).min() < PROBE_FOLDS:
        return None
    features = scores.anatomy[known][:, [FINDING_ANATOMY[finding], THORAX]].reshape(len(labels), -1)
    probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    folds = GroupKFold(PROBE_FOLDS, shuffle=True, random_state=0)
    groups = scores.patients[known]
    predicted = cross_val_predict(probe, features, labels, groups=groups, cv=folds, method="decision_function")
    return float(finding_auc(predicted[:, None], labels[:, None])[0])


def _auc(scores: Scores) -> FloatArray:
    return finding_auc(scores.logits, scores.labels)


def _swapped(fold: Sequence[str]) -> dict[int, list[int]]:
    """The other findings of a fold, by finding."""
    indices = [FINDING_NAMES.index(name) for name in fold]
    return {own: [other for other in indices if other != own] for own in indices}


def _rows(run: Mapping[str, Any], supervised: Scores) -> list[dict[str, Any]]:
    scores: Scores = run["scores"]
    taught, held_out = _auc(supervised), _auc(scores)
    rows = []
    for own, others in _swapped(FOLDS[run["fold"]]).items():
        wrong = [finding_auc(scores.logits[:, [other]], scores.labels[:, [own]])[0] for other in others]
        rows.append(
            {
                "finding": FINDING_NAMES[own],
                "regime": run["regime"],
                "fold": run["fold"],
                "seed": run["seed"],
                "positives": int((scores.labels[:, own] == 1).sum()),
                "supervised": float(taught[own]),
                "held_out": float(held_out[own]),
                "swapped": float(np.mean(wrong)),
                "probe": probe_auc(scores, own),
            }
        )
    return rows


def _macro(
    finished: Sequence[Mapping[str, Any]], rows: Sequence[Mapping[str, Any]], resamples: int
) -> list[dict[str, Any]]:
    """Means over the findings that were left out, by regime and seed, with the interval of the AUC by patient."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = defaultdict(list)
    for run in finished:
        if run["fold"] is not None:
            groups[run["regime"], run["seed"]].append(run)
    result = []
    for (regime, seed), runs in groups.items():
        columns = [(run["scores"], FINDING_NAMES.index(name)) for run in runs for name in FOLDS[run["fold"]]]
        logits = np.stack([scores.logits[:, finding] for scores, finding in columns], axis=1)
        labels = np.stack([scores.labels[:, finding] for scores, finding in columns], axis=1)
        interval = Bootstrap(runs[0]["scores"].patients.tolist(), resamples).auc(logits, labels).macro
        own = [row for row in rows if (row["regime"], row["seed"]) == (regime, seed)]
        means = {key: float(np.mean([row[key] for row in own if row[key] is not None] or [np.nan])) for key in MEASURES}
        low, high = float(interval.low), float(interval.high)
        gain = _above_swapped(runs, resamples)
        above = sum(row["held_out"] > row["swapped"] for row in own)
        result.append(
            {
                "regime": regime,
                "seed": seed,
                "findings": len(own),
                "interval": [low, high],
                "above_swapped": above,
                "gain": float(gain.estimate),
                "gain_interval": [float(gain.low), float(gain.high)],
                **{key: value if np.isfinite(value) else None for key, value in means.items()},
            }
        )
    return result


def _above_swapped(runs: Sequence[Mapping[str, Any]], resamples: int) -> Interval:
    """AUC of the own prompts minus that of the prompts of another, mean over the findings that were left out."""
    pairs = [(run["scores"], *each) for run in runs for each in _swapped(FOLDS[run["fold"]]).items()]

    def statistic(weights: FloatArray) -> FloatArray:
        gains = []
        for scores, own, others in pairs:
            truth = np.repeat(scores.labels[:, [own]], 1 + len(others), axis=1)
            auc = weighted_auc(scores.logits[:, [own, *others]], truth, weights)
            gains.append(auc[:, 0] - auc[:, 1:].mean(axis=1))
        return np.asarray(np.nanmean(gains, axis=0))

    return Bootstrap(runs[0]["scores"].patients.tolist(), resamples).interval(statistic)


def _plot(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """The AUC of each finding under the first seed: taught, left out (by regime), swapped and probed."""
    first = [row for row in rows if row["seed"] == rows[0]["seed"]]
    names = list(dict.fromkeys(row["finding"] for row in first))
    figure = Figure(figsize=(7.5, 0.3 * len(names) + 1.0), layout="constrained")
    panel = figure.subplots()
    marks = {"supervised": ("o", "#9a9a9a"), "swapped": ("x", "#9a9a9a"), "probe": ("d", "#6f9e6f")}
    for regime, colour in zip(REGIMES, (RED, BLUE), strict=True):
        of_regime = [row for row in first if row["regime"] == regime]
        places = [-names.index(row["finding"]) for row in of_regime]
        if of_regime:
            label = f"left out, {regime}"
            panel.scatter([row["held_out"] for row in of_regime], places, s=36, color=colour, label=label, zorder=3)
    shown = [row for row in first if row["regime"] == first[0]["regime"]]
    for key, (marker, colour) in marks.items():
        values = [np.nan if row[key] is None else row[key] for row in shown]
        places = [-names.index(row["finding"]) for row in shown]
        panel.scatter(values, places, s=26, marker=marker, color=colour, label=MEASURES[key])
    panel.axvline(0.5, color="#555555", linewidth=0.8, linestyle="--")
    panel.set_yticks(-np.arange(len(names)), names, fontsize=8)
    panel.set_xlabel("AUC on the test scans", fontsize=8)
    panel.tick_params(axis="x", labelsize=8)
    panel.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    panel.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=3, fontsize=7.5, frameon=False)
    write_figure(figure, path)


def _lines(results: Mapping[str, Any]) -> list[str]:
    lines = page_head("Findings that the training left out", results["command"])
    studies = results["settings"]["studies"]
    lines += [
        f"{studies.get('training', 0)} training and {studies.get('test', 0)} test scans. In each run three findings "
        "are left out and scored by their seven templates. Intervals are by patient, of the trained models.",
        "",
        *(f"- **{regime}**: {words}." for regime, words in REGIMES.items()),
        f"- **{MEASURES['swapped']}**: mean over the two findings that left with it. A prompt that reads the name must "
        "do better than this. A finding is scored on the row of its own anatomy, so prompts of a finding of another "
        "anatomy also change the row.",
        f"- **{MEASURES['probe']}**: a logistic regression on the image rows of the same model, over {PROBE_FOLDS} "
        "folds of the test patients: what the rows hold, with labels.",
        "",
    ]
    if not results["rows"]:
        return [*lines, "No run has finished yet."]
    lines += [f"![AUC of each finding, taught and left out]({FIGURE})", ""]
    heads = ["taught", "left out", "interval", "prompts of another", "own minus another", "probe", "above another's"]
    lines += [f"| regime | seed | findings | {' | '.join(heads)} |", "|---|" + "---:|" * 9]
    for row in results["macro"]:
        (low, high), (least, most) = row["interval"], row["gain_interval"]
        lines.append(
            f"| {row['regime']} | {row['seed']} | {row['findings']} | {_cell(row['supervised'])} "
            f"| {_cell(row['held_out'])} | {low:.3f} to {high:.3f} | {_cell(row['swapped'])} "
            f"| {row['gain']:.3f} ({least:.3f} to {most:.3f}) | {_cell(row['probe'])} "
            f"| {row['above_swapped']} of {row['findings']} |"
        )
    lines += ["", *(_same_row_sentence(regime, results["rows"]) for regime in REGIMES if _regime(results, regime))]
    lines += ["", "| finding | regime | seed | positives | taught | left out | prompts of another | probe |"]
    lines += ["|---|---|" + "---:|" * 6]
    for row in results["rows"]:
        values = " | ".join(_cell(row[key]) for key in MEASURES)
        lines.append(f"| {row['finding']} | {row['regime']} | {row['seed']} | {row['positives']} | {values} |")
    return lines


def same_row_gains(rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """AUC of the own prompts minus that of another, of findings that left with two others of the same anatomy row.

    Args:
        rows: Rows of ``results.json``.
    """
    anatomy = dict(zip(FINDING_NAMES, FINDING_ANATOMY, strict=True))
    alike = [fold for fold, names in enumerate(FOLDS) if len({anatomy[name] for name in names}) == 1]
    return [row["held_out"] - row["swapped"] for row in rows if row["fold"] in alike]


def _same_row_sentence(regime: str, rows: Sequence[Mapping[str, Any]]) -> str:
    pairs = [
        (FINDING_ANATOMY[own], FINDING_ANATOMY[other])
        for fold in FOLDS
        for own, others in _swapped(fold).items()
        for other in others
    ]
    same = sum(own == other for own, other in pairs)
    gains = same_row_gains([row for row in rows if row["regime"] == regime])
    return (
        f"{len(pairs) - same} of the {len(pairs)} pairs of a finding and another swap the row as well. For the "
        f"{len(gains)} findings (`{regime}`) whose two others have the same row, own minus another is "
        f"{np.mean(gains):.3f} (without interval)."
    )


def _regime(results: Mapping[str, Any], regime: str) -> bool:
    return bool(same_row_gains([row for row in results["rows"] if row["regime"] == regime]))


def _uncaptioned(path: Path) -> list[str]:
    """The section on concepts that no label names; empty without its file."""
    if not path.is_file():
        return []
    results = json.loads(path.read_text(encoding="utf-8"))
    scans, seed = max(row["scans"] for row in results["concepts"]), results["parameters"]["seed"]
    lines = [
        "",
        "## Concepts that no label names",
        "",
        f"The command below writes this part from [{path.name}]({path.name}).",
        "",
        "```",
        results["command"],
        "```",
        "",
        f"{scans} synthetic scans of seed {seed}, which trained nothing of the shipped weights (SHA-256 "
        f"`{results['weights_sha256'][:12]}`). Free text: AUC of the mean of three pairs of a text and its opposite, "
        "written in the script before its first run; in the last column that of each pair. Probe: a logistic "
        f"regression with the labels of the concept on the rows of the same anatomy and of the thorax, over "
        f"{results['probe_folds']} folds. Intervals are by patient. Named: how many reports of the same writer name "
        "the concept, and how many studies have it in a caption or snippet, which training reads.",
        "",
        "| concept | scans | positives | named in reports | in captions | free text | probe | difference | pairs |",
        "|---|" + "---:|" * 4 + ":---:|" * 4,
    ]
    for row in results["concepts"]:
        measured = " | ".join(_with_interval(row[key]) for key in ("free_text", "probe", "difference"))
        pairs = ", ".join(_cell(pair["value"]) for pair in row["pairs"])
        named = row["named_in"]
        lines.append(
            f"| {row['concept']} | {row['scans']} | {row['positives']} | {named['reports']} of {named['studies']} "
            f"| {named['captions']} | {measured} | {pairs} |"
        )
    return lines


def _with_interval(entry: Mapping[str, Any]) -> str:
    low, high = entry["interval"]
    return f"{_cell(entry['value'])} ({_cell(low)} to {_cell(high)})"


def _cell(value: float | None) -> str:
    return "" if value is None or not np.isfinite(value) else f"{value:.3f}"
