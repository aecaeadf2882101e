"""Collapse of text encoders on the captions of real reports: untrained, pretrained, and after training.

Only numbers leave this module: no text of a report is kept in its results.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.study_record import text_id
from bundle.ctfindings.evaluation.diagnostics import embed_texts
from bundle.ctfindings.evaluation.plots import plot_cosine_histograms
from bundle.ctfindings.files.csv_table import read_table
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.metrics.statistic_groups import StatisticGroup, group_record
from bundle.ctfindings.metrics.text_collapse import (
    PAIR_KINDS,
    STATISTICS,
    TextRows,
    anatomy_silhouette,
    histogram,
    pair_cosines,
    text_statistics,
)
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.text.text_tower import TextTower
from bundle.ctfindings.reports.captions import read_report
from experiments.harness.page import page_head, write_page, write_results

FINDINGS_COLUMNS = ("Findings_EN", "findings", "report_text")
IMPRESSION_COLUMNS = ("Impressions_EN", "impression", "impressions")


@dataclass(frozen=True)
class Captions:
    """Captions of anatomies from reports.

    Attributes:
        texts: A captions.
        anatomy: row of each in the anatomy table, ``[A]``.
        normal: captions that state no abnormality, ``[A]``.
        report: index of the report of each, ``[A]``.
        reports: number of reports.
    """

    texts: list[str]
    anatomy: NDArray[np.int64]
    normal: NDArray[np.bool_]
    report: NDArray[np.int64]
    reports: int

    def rows(self, embeddings: NDArray[np.float64]) -> TextRows:
        """The captions with their unit embeddings ``[A, E]``."""
        identity = np.asarray([text_id(text) for text in self.texts], dtype=np.int64)
        return TextRows(embeddings, self.anatomy, self.normal, identity, self.report)


def read_captions(folder: str | Path, reports: int | None = None, seed: int = 0) -> Captions:
    """Captions from the CSV tables of reports in a folder, by the rules of ``read_report``.

    Tables without a column of findings (labels, metadata) are passed over. Reports of equal text are taken once.

    Args:
        folder: with CSV files; columns ``Findings_EN`` and ``Impressions_EN`` (CT-RATE), or ``findings``,
            ``impression``, ``report_text``.
        reports: how many to draw at random; None takes all.
        seed: of the draw.

    Raises:
        ValueError: no table in the folder has reports.
    """
    written: dict[tuple[str, str], None] = {}
    for path in sorted(Path(folder).glob("*.csv")):
        table = read_table(path)
        findings, impression = table.first_of(FINDINGS_COLUMNS), table.first_of(IMPRESSION_COLUMNS)
        if findings is not None:
            pairs = [(row.values[findings], row.values[impression] if impression else "") for row in table.rows]
            written.update(dict.fromkeys(pairs))
    if not written:
        raise ValueError(
            f"{folder}: no CSV table here has a column {' or '.join(FINDINGS_COLUMNS)}; give the folder of the reports"
        )
    chosen = list(written)
    if reports is not None:
        order = np.random.default_rng(seed).permutation(len(chosen))[:reports]
        chosen = [chosen[index] for index in sorted(order)]
    rows = [
        (caption.text, ANATOMY_NAMES.index(name), caption.normal, number_of)
        for number_of, sections in enumerate(chosen)
        for name, caption in read_report(*sections).captions.items()
    ]
    return _captions(rows, len(chosen))


def split_captions(datalist: str | Path, split: str = "test") -> Captions:
    """The captions that a datalist holds for one split: of ``test``, reports that no run on that datalist has trained
    on.

    Raises:
        ValueError: as ``load_datalist``, or no study of the split has captions.
    """
    rows, reports = [], 0
    for study in load_datalist(datalist, split):
        normal = study["caption_normal"].tolist()
        places = {name: ANATOMY_NAMES.index(name) for name in study["captions"]}
        rows += [(study["captions"][name], place, normal[place], reports) for name, place in places.items()]
        reports += bool(places)
    if not rows:
        raise ValueError(
            f"{datalist}: no study of the split {split!r} has captions; give one that has, or a folder of reports"
        )
    return _captions(rows, reports)


def _captions(rows: Sequence[tuple[str, int, bool, int]], reports: int) -> Captions:
    """Of rows with text, anatomy, whether it is normal, and index of the report."""
    return Captions(
        texts=[row[0] for row in rows],
        anatomy=np.asarray([row[1] for row in rows], dtype=np.int64),
        normal=np.asarray([row[2] for row in rows], dtype=bool),
        report=np.asarray([row[3] for row in rows], dtype=np.int64),
        reports=reports,
    )


def trunk_features(tower: TextTower, texts: Sequence[str], batch_size: int = 64) -> NDArray[np.float64]:
    """Unit features of the encoder itself, before the head of the bundle, ``[n, width]``."""
    distinct = sorted(set(texts), key=len)
    with torch.no_grad():
        parts = [tower.features(distinct[start : start + batch_size]) for start in range(0, len(distinct), batch_size)]
    rows = torch.nn.functional.normalize(torch.cat(parts).double(), dim=-1).cpu().numpy()
    position = {text: index for index, text in enumerate(distinct)}
    return rows[[position[text] for text in texts]]


def encoder_embeddings(
    captions: Captions,
    pretrained: Callable[[], TextTower],
    untrained: Callable[[], TextTower],
    checkpoints: Sequence[tuple[str, Path]],
    seeds: Sequence[int],
) -> dict[str, NDArray[np.float64]]:
    """Unit embeddings of the captions by each encoder, by its label (`seed_label`).

    ``untrained`` is a new encoder without pretrained weights, ``pretrained trunk`` the encoder's own features,
    ``pretrained, new head`` these behind the bundle's untrained head, where training starts; then the text tower of
    each checkpoint.

    Args:
        captions: of the reports.
        pretrained: makes a tower with the pretrained encoder and a new head.
        untrained: makes a tower with a new encoder.
        checkpoints: name and file of each; trained with that pretrained encoder. Files of one name are its seeds, in
            the order of these.
        seeds: of new encoders and heads.

    Raises:
        ValueError: a name has more checkpoints than there are seeds, or one does not fit the encoder.
    """
    new: dict[str, NDArray[np.float64]] = {}
    heads: dict[str, NDArray[np.float64]] = {}
    for seed in seeds:
        torch.manual_seed(seed)
        new[seed_label("untrained", seed)] = embed_texts(untrained().eval(), captions.texts)
        tower = pretrained().eval()
        heads[seed_label("pretrained, new head", seed)] = embed_texts(tower, captions.texts)
    found = {**new, "pretrained trunk": trunk_features(tower, captions.texts), **heads}
    for name in dict.fromkeys(name for name, _ in checkpoints):
        files = [path for own, path in checkpoints if own == name]
        if len(files) > len(seeds):
            raise ValueError(f"{name}: {len(files)} checkpoints are given for {len(seeds)} seeds; give a seed for each")
        for seed, path in zip(seeds, files, strict=False):
            load_checkpoint({"text": tower}, path)
            found[seed_label(name, seed)] = embed_texts(tower.eval(), captions.texts)
    return found


def seed_label(name: str, seed: int) -> str:
    """What an encoder of a seed is called."""
    return f"{name}, seed {seed}"


def collapse_results(
    captions: Captions,
    embeddings: Mapping[str, NDArray[np.float64]],
    per_anatomy: int = 500,
    resamples: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """`STATISTICS` of each encoder with intervals by report, and its histograms.

    Args:
        captions: of the reports.
        embeddings: of the captions by encoder.
        per_anatomy: more captions of an anatomy are sampled.
        resamples: of the bootstrap.
        seed: of the bootstrap.
    """
    bootstrap = Bootstrap([str(index) for index in range(captions.reports)], resamples, seed)
    encoders: dict[str, Any] = {}
    for name, rows in embeddings.items():
        sampled = captions.rows(rows).sample(per_anatomy)
        record = group_record(_group(sampled), bootstrap)
        record["silhouette"] = number(anatomy_silhouette(sampled))
        for kind in PAIR_KINDS:
            cosines = pair_cosines(sampled, kind)
            record[kind] |= {"pairs": int(cosines.size), "histogram": histogram(cosines)}
        encoders[name] = record
    return {
        "reports": captions.reports,
        "captions": len(captions.texts),
        "by_anatomy": {name: int((captions.anatomy == row).sum()) for row, name in enumerate(ANATOMY_NAMES)},
        "bootstrap": {**bootstrap.settings(), "unit": "report"},
        "encoders": encoders,
    }


def write_collapse_page(folder: Path, results: Mapping[str, Any], title: str, command: str) -> Path:
    """Writes ``results.json``, ``similarity.png`` and the page ``README.md``, which it returns.

    Args:
        folder: of the page.
        results: of `collapse_results`.
        title: of the page.
        command: that made the results.
    """
    write_results(folder, results)
    encoders = results["encoders"]
    kinds = {name: {kind: record[kind] for kind in PAIR_KINDS} for name, record in _first_seeds(encoders).items()}
    plot_cosine_histograms(kinds, folder / "similarity.png")
    shown = {
        "mean": "mean",
        "sd": "SD",
        "skewness": "skewness",
        "excess_kurtosis": "excess kurtosis",
        "share_above": "share above 0.9",
    }
    lines = [
        *page_head(title, command),
        f"{results['captions']} captions of {results['reports']} reports ("
        + ", ".join(f"{name} {count}" for name, count in results["by_anatomy"].items())
        + "). Intervals: 95 % percentile bootstrap by report. "
        "The measures are defined in [diagnostics.md](../../diagnostics.md). "
        "This page contains no text of a report.",
        "",
        "| cosines of captions of two anatomies | "
        + " | ".join(shown.values())
        + " | effective rank | nearest centroid |",
        "|---|" + "---:|" * (len(shown) + 2),
        *[
            f"| {name} | "
            + " | ".join(_with_interval(record["cross_anatomy"], key) for key in shown)
            + f" | {_with_interval(record, 'effective_rank')} | {_with_interval(record, 'anatomy_accuracy')} |"
            for name, record in encoders.items()
        ],
        "",
        "![Cosines of captions by encoder, the first seed of each](similarity.png)",
    ]
    return write_page(folder, lines)


def _first_seeds(encoders: Mapping[str, Any]) -> dict[str, Any]:
    """The encoders by name, each with its first seed."""
    found: dict[str, Any] = {}
    for label, record in encoders.items():
        found.setdefault(label.split(", seed ")[0], record)
    return found


def _group(rows: TextRows) -> StatisticGroup:
    return StatisticGroup(STATISTICS, lambda weights: text_statistics(rows, weights))


def _with_interval(record: Mapping[str, Any], key: str) -> str:
    low, high = record[f"{key}_interval"]
    return "-" if record[key] is None else f"{record[key]:.3f} ({low:.3f} to {high:.3f})"
