"""Does the percentile of a free text tell what a scan shows? Synthetic scans, lay texts, and the shipped weights.

    python experiments/free_text/run.py --output docs/evaluation/free_text.json

For each scan, every finding is asked by a lay description that the model never saw, beside texts that have nothing to
do with a chest. Measured: how often a text stands out where its finding is present, where it is absent, and where there
is none; and the AUC of percentile and of score for present against absent.
"""

import argparse
import json
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.query_reading import STRONG, WEAK
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.phantom.dataset import make_case

Answer = tuple[float, float, bool]
"""Percentile and score of a text on a scan, and whether the scan has its finding."""


def stand_out(percentiles: NDArray[np.float64]) -> dict[str, float]:
    """How many answers there are, and the shares that stand out and that do not."""
    return {
        "pairs": len(percentiles),
        "stands_out": round(float((percentiles >= STRONG).mean()), 3),
        "does_not": round(float((percentiles < WEAK).mean()), 3),
    }


def by_finding(rows: Mapping[str, Sequence[Answer]], texts: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """Counts and AUC of each finding; the AUC is None if all scans have it, or none."""
    found = {}
    for name, answers in rows.items():
        percentiles, scores, labels = zip(*answers, strict=True)
        both = 0 < sum(labels) < len(labels)
        found[name] = {
            "text": texts[name],
            "present": sum(labels),
            "stands_out_present": sum(share >= STRONG and label for share, _, label in answers),
            "stands_out_absent": sum(share >= STRONG and not label for share, _, label in answers),
            "auc_percentile": round(float(roc_auc_score(labels, percentiles)), 3) if both else None,
            "auc_score": round(float(roc_auc_score(labels, scores)), 3) if both else None,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=24)
    parser.add_argument("--seed", type=int, default=90_210, help="of the synthetic scans; no training used it")
    args = parser.parse_args()
    texts = tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))
    lay, unrelated, nonsense = texts["findings"], texts["other"]["unrelated"], texts["other"]["nonsense"]
    assert set(lay) == set(FINDING_NAMES)
    service = load_service(ROOT)
    rows: dict[str, list[Answer]] = {name: [] for name in lay}
    others: list[float] = []
    silent = 0
    with tempfile.TemporaryDirectory() as folder:
        for index in range(args.scans):
            case, hu, _, _, affine = make_case(seed=args.seed, index=index)
            path = Path(folder) / "scan.nii.gz"
            nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), path)
            scan = service.answer(service.preprocessing({"image": str(path)}), [*lay.values(), *unrelated, *nonsense])
            answers = {answer.text: answer for answer in scan.record.queries}
            for name, label in zip(FINDING_NAMES, case.labels, strict=True):
                answer = answers[lay[name]]
                rows[name].append((float(answer.percentile or 0.0), answer.score, bool(label)))
            others += [float(answers[text].percentile or 0.0) for text in unrelated]
            silent += sum(answers[text].percentile is None and answers[text].evidence is None for text in nonsense)
            print(f"{index + 1} of {args.scans}", flush=True)
    pairs = [row for finding in rows.values() for row in finding]
    shares, present = np.array([row[0] for row in pairs]), np.array([row[2] for row in pairs])
    findings = by_finding(rows, lay)
    mean = {
        key: round(float(np.mean([each[key] for each in findings.values() if each[key] is not None])), 3)
        for key in ("auc_percentile", "auc_score")
    }
    result = {
        "scans": args.scans,
        "seed": args.seed,
        "weights_sha256": service.model.weights_sha256,
        "present": stand_out(shares[present]),
        "absent": stand_out(shares[~present]),
        "unrelated": stand_out(np.array(others)),
        "nonsense": {"pairs": len(nonsense) * args.scans, "without_score_and_place": silent},
        "mean_auc": mean,
        "findings": findings,
    }
    write_text(args.output, json.dumps(result, indent=1))
    print(json.dumps({key: value for key, value in result.items() if key != "findings"}))


if __name__ == "__main__":
    main()
