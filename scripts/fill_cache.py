"""Preprocess all scans of a training run in advance, so that its first epoch is as fast as the others.

    python scripts/fill_cache.py --config_file configs/train.json --datalist data/with_masks/datalist.json --workers 8

Give the config files and keys of the training run, which then reads this cache. Existing entries are checked, and
damaged ones are made again. To resume a stopped run, run the same command again.
"""

import argparse
import os
from collections import Counter
from pathlib import Path

from monai.bundle import ConfigParser

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.cli.options import at_least, config_setting
from bundle.ctfindings.data.loaders import fill_cache
from bundle.ctfindings.data.scan_cache import CachedStudies

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--config_file", nargs="+", default=["configs/train.json"], metavar="JSON", help="default: %(default)s"
    )
    parser.add_argument("--datalist", metavar="JSON", help="datalist; default: the one of the config")
    parser.add_argument(
        "--set",
        type=config_setting,
        nargs="+",
        default=[],
        metavar="KEY=VALUE",
        help="other config keys, with values as in JSON: --set roi_size=[96,80,96]",
    )
    parser.add_argument(
        "--workers", type=at_least(1), default=os.cpu_count() or 1, help="number of processes (default: one per core)"
    )
    parser.add_argument(
        "--scheduler",
        metavar="ADDRESS",
        help="address of a Dask scheduler whose workers fill the cache (docs/scaling.md)",
    )
    options = parser.parse_args()
    for file in options.config_file:
        if not Path(file).is_file():
            raise SystemExit(f"error: {file}: no such config file; check the path, relative to the current folder")
    config = ConfigParser()
    config.read_config(options.config_file)
    config["bundle_root"] = str(ROOT)
    if options.datalist:
        config["datalist"] = Path(options.datalist)
    for key, value in options.set:
        try:
            config[key]  # Reading fails for an unknown key; writing would add it.
            config[key] = value
        except KeyError:
            raise SystemExit(f"error: --set {key}: the config has no such key; check its name") from None
    config.parse()
    datasets = run_or_exit(_datasets, config)
    outcome = run_or_exit(fill_cache, datasets, options.workers, options.scheduler)
    counts = Counter(what if what in ("made", "kept") else "failed" for what in outcome.values())
    print(f"{counts['made']} scans cached, {counts['kept']} already cached, {counts['failed']} failed")
    for study, problem in sorted(outcome.items()):
        if problem not in ("made", "kept"):
            print(f"failed: {study}: {problem}")
    print(*sorted({str(dataset.folder) for dataset in datasets}))
    if counts["failed"]:
        raise SystemExit(
            f"error: {counts['failed']} of {len(outcome)} scans could not be cached; fix the problems listed above"
        )


def _datasets(config: ConfigParser) -> list[CachedStudies]:
    return [config.get_parsed_content(f"{part}#dataset") for part in ("train", "validate")]


if __name__ == "__main__":
    main()
