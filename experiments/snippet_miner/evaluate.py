r"""Precision and recall of the snippet miner on labelled sentences, synthetic reports and real reports.

    python experiments/snippet_miner/evaluate.py [--output docs/evaluation/snippet_miner/results.json] \
        [--datalist data/shipped/datalist.json]

Counted are (series, image) pairs; intervals are 95 % Wilson intervals. Missing sets are skipped. The real reports
are expected beside the checkout. docs/snippets.md describes the sets.
"""

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, cast

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

import nibabel as nib
import numpy as np
from scipy.stats import binomtest

from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.files.csv_table import Table, read_table
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.reports.sentences import split_sentences
from bundle.ctfindings.reports.snippets.miner import mine_report
from bundle.ctfindings.reports.snippets.snippet_table import Counts, MinedSnippet, mine_table
from experiments.harness.page import write_results
from experiments.snippet_miner.labelled_sentences import Score, load_labelled_sentences, score_sentences
from experiments.snippet_miner.volume_slices import VolumeSlices

LABELLED = ROOT / "tests" / "reports" / "snippets" / "labelled_sentences.tsv"
REAL_REFERENCES = ROOT / "tests" / "reports" / "snippets" / "real_references.tsv"
REAL_REPORTS = ROOT.parent / "shared" / "data" / "reports"
REAL_TABLES = (
    (
        "ctrate_validation_reports.csv",
        "VolumeName",
        ["ClinicalInformation_EN", "Technique_EN", "Findings_EN", "Impressions_EN"],
    ),
    ("manual_labels_18.csv", "AccessionNo", ["report_text"]),
)


def as_record(score: Score) -> dict[str, Any]:
    """Counts, rates and their intervals."""
    record: dict[str, Any] = score._asdict()
    for name, share, total in (
        ("precision", score.precision, score.found + score.wrong),
        ("recall", score.recall, score.found + score.missed),
    ):
        if total:
            interval = binomtest(score.found, total).proportion_ci(method="wilson")
            record[name] = round(share, 4)
            record[f"{name}_ci95"] = [round(interval.low, 4), round(interval.high, 4)]
    return record


def labelled() -> dict[str, Any]:
    """Scores of the labelled sentences by subset, by language and by kind."""
    sentences = load_labelled_sentences(LABELLED)
    record: dict[str, Any] = {
        "sentences": len(sentences),
        "without_reference": sum(not each.expected for each in sentences),
    }
    record["all"] = as_record(score_sentences(sentences))
    for name, keys in (
        ("set", [each.subset for each in sentences]),
        ("language", [each.language for each in sentences]),
    ):
        record[name] = {
            key: as_record(score_sentences(each for each, own in zip(sentences, keys, strict=True) if own == key))
            for key in sorted(set(keys))
        }
    return record


def synthetic(datalist: Path) -> dict[str, Any]:
    """Pairs, texts and z of the synthetic reports, whose snippets are known; z is read from the stored volumes."""
    studies = [study for split in SPLITS for study in json.loads(datalist.read_text(encoding="utf-8"))[split]]
    score, texts, worst_mm = Counter[str](), 0, 0.0
    for study in progress_bar(studies, "synthetic reports"):
        mined = mine_report([study["report"]["findings"], study["report"]["impression"]]).snippets
        truth = study.get("snippets", [])
        got, known = Counter((s.series, s.image) for s in mined), Counter((s["series"], s["image"]) for s in truth)
        right = sum((got & known).values())
        score.update(found=right, wrong=sum(got.values()) - right, missed=sum(known.values()) - right)
        texts += sum(
            (Counter((s.image, s.text) for s in mined) & Counter((s["image"], s["text"]) for s in truth)).values()
        )
        volume = cast(nib.Nifti1Image, nib.load(datalist.parent / study["image"]))
        slices = VolumeSlices(np.asarray(volume.affine), volume.shape)
        z_of = {(s["series"], s["image"]): s["z_mm"] for s in truth}
        for snippet in mined:
            place = slices.position(snippet.series, snippet.first, snippet.last)
            if place.z_mm is not None and (snippet.series, snippet.image) in z_of:
                worst_mm = max(worst_mm, abs(place.z_mm - z_of[snippet.series, snippet.image]))
    pairs = Score(score["found"], score["wrong"], score["missed"])
    return {
        "reports": len(studies),
        **as_record(pairs),
        "texts_exact": texts,
        "largest_z_difference_mm": round(worst_mm, 4),
    }


def real(folder: Path) -> dict[str, Any]:
    """The real reports, compared with the references that a reader found in them."""
    known: Counter[tuple[str, int | None, int]] = Counter()
    for row in read_table(REAL_REFERENCES).rows:
        series = int(row.values["series"]) if row.values["series"] else None
        known[row.values["id"], series, int(row.values["image"])] += 1
    mined: Counter[tuple[str, int | None, int]] = Counter()
    counts, sentences, started = Counts(), 0, time.perf_counter()
    tables: list[tuple[Table, str, list[str]]] = [
        (read_table(folder / name), key, columns) for name, key, columns in REAL_TABLES
    ]
    for table, key, columns in tables:
        for results in mine_table(table, key, columns, None, counts):
            mined.update(
                {
                    (each.id, each.snippet.series, each.snippet.image)
                    for each in results
                    if isinstance(each, MinedSnippet)
                }
            )
    seconds = time.perf_counter() - started
    for table, _, columns in tables:
        sentences += sum(len(split_sentences(row.values[column])) for row in table.rows for column in columns)
    right = sum((mined & known).values())
    score = Score(right, sum(mined.values()) - right, sum(known.values()) - right)
    return {
        "reports": counts.reports,
        "sentences": sentences,
        **as_record(score),
        "refused": dict(counts.refused),
        "reports_per_second": round(counts.reports / seconds),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "evaluation" / "snippet_miner" / "results.json")
    parser.add_argument(
        "--datalist",
        type=Path,
        default=ROOT / "data" / "shipped" / "datalist.json",
        help="synthetic scans with snippets (default %(default)s)",
    )
    options = parser.parse_args()
    results: dict[str, Any] = {"labelled_sentences": labelled()}
    for name, source, measure in (
        ("synthetic_reports", options.datalist, synthetic),
        ("real_reports", REAL_REPORTS, real),
    ):
        if source.exists():
            results[name] = measure(source)
        else:
            print(f"{name}: skipped, {source} not found")
    write_results(options.output.parent, results, options.output.name)
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
