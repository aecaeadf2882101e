"""Do findings that are drawn into real chests raise their own score? Hybrid scans against their unaltered twins.

Usage: python -m experiments.hybrids.paired REAL_FOLDER OUT.json --work FOLDER --weights phantom1=OLD.pt
    phantom2=models/model.pt --fine_tune tuned=models/model.pt

The hybrids of the real chests are made in ``--work`` and kept there. For each finding and weights: the paired AUC,
which is the share of hybrids with a higher probability than the twin of the same patient (chance 0.5), and the AUC of
all hybrids against all twins, which other findings and patients blur; intervals by patient. Weights to fine-tune learn
``finetune.json`` on the hybrids of all patients but two, are chosen on the second to last and answer the scans of the
last; each patient is the last once. Finished trainings are kept in ``--work``.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from bundle.ctfindings.cli.options import config_setting
from bundle.ctfindings.data.datalist import load_datalist
from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.progress import progress_bar
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.metrics.bootstrap import LEVEL, Bootstrap
from bundle.ctfindings.metrics.json_numbers import interval_numbers, number
from bundle.ctfindings.networks.checkpoint import sha256_of
from bundle.ctfindings.phantom.hybrid import HYBRID_FINDINGS
from bundle.ctfindings.sources.hybrid_scans import HybridSettings, make_hybrids
from experiments.domain.real_chests import SCANS
from experiments.harness.page import write_results
from experiments.harness.runs import ROOT, bundle_run, claim_run, split_digests, with_absolute_paths

SIZES_MM = (0, 20, 40, float("inf"))
"""Limits of the groups by diameter of a sphere of the finding's volume."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--weights", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--fine_tune", nargs="+", default=[], metavar="NAME=FILE")
    parser.add_argument("--set", nargs="+", default=[], type=config_setting, metavar="KEY=VALUE", help="of --fine_tune")
    parser.add_argument("--per_finding", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    bases = {name: {"image": str(options.folder / f"{name}.nii.gz")} for name in SCANS}
    settings = HybridSettings(per_finding=options.per_finding, seed=options.seed)
    datalist, problems = make_hybrids(bases, options.work, settings)
    studies = [study for split in SPLITS for study in load_datalist(datalist, split)]
    result: dict[str, Any] = {"bases": len(SCANS), "problems": len(problems), **settings._asdict(), "weights": {}}
    sizes = {study["id"]: diameter_mm(study["finding_masks"]) for study in studies if "twin" in study}
    for name, _, path in (given.partition("=") for given in options.weights):
        result["weights"][name] = {
            "weights_sha256": sha256_of(path),
            **compare(studies, probabilities(studies, Path(path)), sizes),
        }
        write_results(options.out.parent, result, options.out.name)
    for name, _, path in (given.partition("=") for given in options.fine_tune):
        scores: dict[str, dict[str, float]] = {}
        for patient, tuned in fine_tuned(datalist, Path(path), options.work / name, dict(options.set)):
            scores |= probabilities([study for study in studies if study["patient"] == patient], tuned)
        result["weights"][name] = {
            "fine_tuned_from_sha256": sha256_of(path),
            "keys": dict(options.set),
            **compare(studies, scores, sizes),
        }
        write_results(options.out.parent, result, options.out.name)


def probabilities(studies: list[dict[str, Any]], weights: Path) -> dict[str, dict[str, float]]:
    """Probabilities of the findings, by study."""
    service = load_service(".", weights, text=False)
    return {
        study["id"]: {answer.name: answer.probability for answer in service.answer_file(study["image"]).record.findings}
        for study in progress_bar(studies, weights.stem, unit="scan")
    }


def fine_tuned(hybrids: Path, weights: Path, work: Path, keys: dict[str, Any]) -> Iterator[tuple[str, Path]]:
    """Each patient, with weights that were fine-tuned on the scans of the others; one other patient validates."""
    content = json.loads(hybrids.read_text(encoding="utf-8"))
    studies = [with_absolute_paths(study, hybrids.parent) for split in SPLITS for study in content[split]]
    patients = list(dict.fromkeys(study["patient"] for study in studies))
    for place, patient in enumerate(patients):
        validating = patients[place - 1]
        splits: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
        for study in studies:
            split = {patient: "test", validating: "validation"}.get(study["patient"], "training")
            splits[split].append(study)
        run = work / f"fold_{place}"
        datalist = run / "datalist.json"
        write_text(datalist, json.dumps(splits, indent=1) + "\n")
        claim_run(run, {"datalist": split_digests(datalist), "weights": sha256_of(weights), "keys": keys})
        given = {
            "bundle_root": str(ROOT),
            "datalist": str(datalist),
            "init_ckpt": str(weights.resolve()),
            "output_dir": str(run),
            "cache_dir": str(work / "cache"),
            **keys,
        }
        if not (run / "model.pt").is_file():
            bundle_run(
                [str(ROOT / "configs" / name) for name in ("train.json", "finetune.json")], given, run / "log.txt"
            )
        yield patient, run / "model.pt"


def diameter_mm(mask: str) -> float:
    """Diameter of a sphere with the volume of a finding mask."""
    image: Any = nib.load(mask)
    volume = np.count_nonzero(np.asarray(image.dataobj)) * abs(np.linalg.det(image.affine[:3, :3]))
    return float((6 * volume / np.pi) ** (1 / 3))


def compare(
    studies: list[dict[str, Any]], scores: dict[str, dict[str, float]], sizes: dict[str, float]
) -> dict[str, Any]:
    """The paired and the plain AUC of each finding, and the paired AUC by size over all findings."""
    twins = {study["id"]: study for study in studies if "twin" not in study}
    wins: dict[str, list[tuple[str, float]]] = defaultdict(list)
    rows, of_findings = {}, []
    for finding in HYBRID_FINDINGS:
        drawn = [s for s in studies if "twin" in s and s["labels"][FINDING_NAMES.index(finding)] == 1]
        won = []
        for study in drawn:
            with_it, without = scores[study["id"]][finding], scores[study["twin"]][finding]
            won.append((study["patient"], (with_it > without) + (with_it == without) / 2))
            size = sizes[study["id"]]
            low, high = next((low, high) for low, high in pairwise(SIZES_MM) if size < high)
            wins[f"{low:g} to {high:g} mm"].append(won[-1])
        both = [*drawn, *twins.values()]
        of_findings.append(won)
        labels = np.array([[int("twin" in study)] for study in both])
        plain = Bootstrap([study["patient"] for study in both], seed=0).auc(
            np.array([[scores[study["id"]][finding]] for study in both]), labels
        )
        interval = plain.findings.limits(0)
        rows[finding] = {**paired(won), "auc": number(plain.findings.estimate[0]), "auc_interval": interval}
    every = [(patient, value, column) for column, won in enumerate(of_findings) for patient, value in won]
    mean = Bootstrap([patient for patient, *_ in every], seed=0).row_interval(
        lambda value, column: np.mean([value[column == each].mean() for each in np.unique(column)]),
        [np.array([row[place] for row in every]) for place in (1, 2)],
    )
    return {"mean": mean.entry(), "findings": rows, "sizes": {size: paired(won) for size, won in sorted(wins.items())}}


def paired(won: list[tuple[str, float]]) -> dict[str, Any]:
    """Mean of the comparisons with an interval by patient; with the exact limit if every patient agrees."""
    values = np.array([value for _, value in won])
    found = Bootstrap([patient for patient, _ in won], seed=0).row_interval(np.mean, [values])
    low, high = float(found.low), float(found.high)
    limit = ((1 - LEVEL) / 2) ** (1 / len({patient for patient, _ in won}))
    if low == high == 1:
        low = limit
    elif low == high == 0:
        high = 1 - limit
    interval = interval_numbers(low, high)
    return {"hybrids": len(won), "paired_auc": number(float(found.estimate)), "paired_auc_interval": interval}


if __name__ == "__main__":
    main()
