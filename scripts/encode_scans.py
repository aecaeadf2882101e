"""Encodes all scans of a datalist once with the frozen encoder of Astra or Merlin, so that adaptation needs no encoder.

    python scripts/encode_scans.py data/mine/datalist.json --workers 2

The scans are encoded in half precision into the cache that configs/adapt.json with the overlay of the encoder
(configs/networks/astra.json, merlin.json) reads; labels may change afterwards. Encoded scans are checked and kept, so
run the same command again to resume a stopped run. Weights: make astra.
"""

import argparse
import math
import shutil
from collections import Counter
from pathlib import Path

from monai.bundle import ConfigParser

from bundle.ctfindings.adaptation import EncodedStudies
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import at_least

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", help="datalist with labels or without")
    parser.add_argument("--splits", nargs="+", default=["training"], help="splits to encode (default: training)")
    parser.add_argument("--encoder", choices=("astra", "merlin"), default="astra", help="default: astra")
    parser.add_argument("--weights", help="converted checkpoint (default: models/<encoder>.pt)")
    parser.add_argument("--cache-dir", help="parent of the caches (default: cache)")
    parser.add_argument("--workers", type=at_least(1), default=1, help="processes, up to 3.6 GB each (default: 1)")
    parser.add_argument("--scheduler", metavar="ADDRESS", help="address of a Dask scheduler (docs/scaling.md)")
    options = parser.parse_args()
    config = ConfigParser()
    config.read_config([str(CONFIGS / name) for name in ("adapt.json", f"networks/{options.encoder}.json")])
    for key, value in {"bundle_root": str(ROOT), "frozen_weights": options.weights, **vars(options)}.items():
        if key in config and value is not None:
            config[key] = value
    encoded: EncodedStudies = run_or_exit(config.get_parsed_content, "encoded")
    studies = run_or_exit(encoded.studies)
    folder = Path(str(encoded.dataset(studies).folder))
    free = shutil.disk_usage(folder).free
    expected = len(studies) * _bytes_per_scan(config["network_size"], config["border"])
    print(f"{folder}: {len(studies)} scans, {expected / 1e9:.1f} GB when complete; {free / 1e9:.1f} GB free")
    outcome = run_or_exit(encoded.fill, studies)
    counts = Counter(what if what in ("made", "kept") else "failed" for what in outcome.values())
    print(f"{counts['made']} scans encoded, {counts['kept']} already encoded, {counts['failed']} failed")
    failures = [(study, problem) for study, problem in sorted(outcome.items()) if problem not in ("made", "kept")]
    for study, problem in failures:
        print(f"failed: {study}: {problem}")
    if failures:
        raise SystemExit(f"error: {len(failures)} of {len(outcome)} scans could not be encoded; fix the problems above")


def _bytes_per_scan(size: list[int], border: list[int]) -> int:
    """Image, third and fourth stage in half precision."""
    image = math.prod(voxels + 2 * edge for voxels, edge in zip(size, border, strict=True))
    third = 1024 * math.prod(voxels // (2 * edge) for voxels, edge in zip(size, border, strict=True))
    return 2 * (image + third + third // 4)


if __name__ == "__main__":
    main()
