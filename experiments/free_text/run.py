"""Does the percentile of a free text tell what a scan shows? Synthetic scans, lay texts, and the shipped weights.

    python experiments/free_text/run.py --output docs/evaluation/free_text.json

For each scan, every finding is asked by a lay description that the model never saw, beside texts that have nothing to
do with a chest. Measured: how often a text stands out where its finding is present, where it is absent, and where there
is none; and the AUC of percentile and of score for present against absent. Intervals are by scan.
"""

import argparse
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.query_reading import STRONG, WEAK
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.metrics.json_numbers import number
from bundle.ctfindings.phantom.dataset import make_case
from experiments.harness.page import write_results

Table = NDArray[np.float64]


def stand_out(shares: Table, chosen: NDArray[np.bool_], scans: Bootstrap) -> dict[str, Any]:
    """How many answers there are, and the shares that stand out and that do not, with intervals by scan.

    Args:
        shares: Percentiles, ``[S, T]``.
        chosen: The answers that count, ``[S, T]``.
        scans: Bootstrap of the scans.
    """
    return {
        "pairs": int(chosen.sum()),
        **{
            name: scans.row_interval(lambda hit, own: hit.sum() / own.sum(), [hits & chosen, chosen]).entry()
            for name, hits in (("stands_out", shares >= STRONG), ("does_not", shares < WEAK))
        },
    }


def by_finding(
    texts: Sequence[str], shares: Table, scores: Table, present: NDArray[np.bool_], scans: Bootstrap
) -> tuple[dict[str, Any], dict[str, Any]]:
    """AUC of percentile and score, mean over the findings; counts and AUC of each. Tables are ``[S, C]``."""
    found = {"auc_percentile": scans.auc(shares, present), "auc_score": scans.auc(scores, present)}
    findings = {
        name: {
            "text": texts[column],
            "present": int(present[:, column].sum()),
            "stands_out_present": int((shares[:, column] >= STRONG)[present[:, column]].sum()),
            "stands_out_absent": int((shares[:, column] >= STRONG)[~present[:, column]].sum()),
            **{key: number(float(auc.findings.estimate[column])) for key, auc in found.items()},
        }
        for column, name in enumerate(FINDING_NAMES)
    }
    return {key: auc.macro.entry() for key, auc in found.items()}, findings


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--scans", type=int, default=24)
    parser.add_argument("--seed", type=int, default=90_210, help="of the synthetic scans; no training used it")
    args = parser.parse_args()
    texts: Mapping[str, Any] = tomllib.loads(Path(__file__).with_name("texts.toml").read_text(encoding="utf-8"))
    lay = [texts["findings"][name] for name in FINDING_NAMES]
    unrelated, nonsense = texts["other"]["unrelated"], texts["other"]["nonsense"]
    service = load_service(ROOT)
    asked, labels, silent = [], [], 0
    with tempfile.TemporaryDirectory() as folder:
        for index in range(args.scans):
            case, hu, _, _, affine = make_case(seed=args.seed, index=index)
            path = Path(folder) / "scan.nii.gz"
            nib.save(nib.Nifti1Image(hu.astype(np.int16), affine), path)
            scan = service.answer(service.preprocessing({"image": str(path)}), [*lay, *unrelated, *nonsense])
            answers = {answer.text: answer for answer in scan.record.queries}
            asked.append([(answers[text].percentile or 0.0, answers[text].score) for text in [*lay, *unrelated]])
            labels.append(case.labels)
            silent += sum(answers[text].percentile is None and answers[text].evidence is None for text in nonsense)
            print(f"{index + 1} of {args.scans}", flush=True)
    shares, scores = np.moveaxis(np.array(asked, dtype=np.float64), -1, 0)
    present, scans, count = np.array(labels, dtype=bool), Bootstrap([str(scan) for scan in range(args.scans)]), len(lay)
    mean, findings = by_finding(lay, shares[:, :count], scores[:, :count], present, scans)
    others = shares[:, count:]
    result = {
        "scans": args.scans,
        "seed": args.seed,
        "weights_sha256": service.model.weights_sha256,
        "bootstrap": {**scans.settings(), "unit": "scan"},
        "present": stand_out(shares[:, :count], present, scans),
        "absent": stand_out(shares[:, :count], ~present, scans),
        "unrelated": stand_out(others, np.ones(others.shape, bool), scans),
        "nonsense": {"pairs": len(nonsense) * args.scans, "without_score_and_place": silent},
        "mean_auc": mean,
        "findings": findings,
    }
    write_results(args.output.parent, result, args.output.name)
    print({key: value for key, value in result.items() if key != "findings"})


if __name__ == "__main__":
    main()
