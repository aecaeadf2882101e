"""Cost of the input: decoding, the cache, a second worker, and a killed worker.

    python experiments/benchmarks/benchmark_input.py [--scan SCAN] [--scans 8] [--output benchmark_input.json]

1. Reading and preprocessing a scan (a zip of DICOM or a .nii.gz; a synthetic scan by default) against plain isal
   decoding of the same bytes, and the same for its voxels as .nii.gz.
2. Training epochs per hour on synthetic scans with the keys of configs/train.json, without and with the cache.
3. Filling the cache with two workers against one.
4. Findings with two workers while one of them is killed: results that are lost or written twice.

Seconds depend on the hardware, ratios less so. 3 and 4 need the extra `cluster`.
"""

import argparse
import csv
import gzip
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import nibabel as nib
import numpy as np
import psutil
from isal import igzip, isal_zlib
from monai.bundle import ConfigParser
from monai.transforms import Compose

from bundle.ctfindings.data.loaders import fill_cache
from bundle.ctfindings.phantom.dataset import make_dataset
from bundle.ctfindings.scan.load_scan import (
    load_scan,
    read_volume,
)
from experiments.benchmarks.measurement import ROOT, shortest_seconds, write_record
from experiments.harness.shown_command import shown_command

VALIDATION_SCANS = 2
"""The config needs some; they are not trained on."""


def inflate_zip(path: Path) -> int:
    """Decodes every member of a zip with isal alone and returns the number of bytes."""
    total = 0
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            # After the local header of 30 bytes come the name and the extra field, whose lengths are its last four
            # bytes.
            name, extra = (
                int.from_bytes(content[member.header_offset + at : member.header_offset + at + 2], "little")
                for at in (26, 28)
            )
            start = member.header_offset + 30 + name + extra
            data = content[start : start + member.compress_size]
            total += len(
                isal_zlib.decompress(data, wbits=-15) if member.compress_type == zipfile.ZIP_DEFLATED else bytes(data)
            )
    return total


def inflate_gzip(path: Path) -> bytes:
    """The content of a gzip file, decoded with isal."""
    return igzip.decompress(path.read_bytes())


def decoding(scan: Path, folder: Path, repeats: int) -> dict[str, float]:
    """Seconds of plain decoding, reading, and reading with preprocessing, of the scan and of its voxels as .nii.gz."""
    config = ConfigParser()
    config.read_config(ROOT / "configs" / "train.json")
    pipeline = Compose(config.get_parsed_content("image_pipeline"))
    image = load_scan(scan)
    packed = folder / "voxels.nii.gz"
    content = nib.Nifti1Image(np.rint(image[0].numpy()).astype(np.int16), np.asarray(image.affine)).to_bytes()
    packed.write_bytes(gzip.compress(content, 6))
    times: dict[str, float] = {}
    plain = inflate_zip if scan.suffix == ".zip" else inflate_gzip
    for name, path, decode in (
        ("scan", scan, plain),
        ("as nii.gz", packed, inflate_gzip),
    ):
        tasks: dict[str, Callable[[], object]] = {
            "plain isal": partial(decode, path),
            "decode to voxels": partial(read_volume, path),
            "decode, check, HU": partial(load_scan, path),
            "decode and preprocess": partial(pipeline, {"image": str(path)}),
        }
        times |= {f"{name}: {what}": shortest_seconds(task, repeats) for what, task in tasks.items()}
    return times


def training(datalist: Path, folder: Path, cache: Path | None) -> tuple[Any, list[Any]]:
    """A trainer of one epoch, and its datasets."""
    config = ConfigParser()
    config.read_config(ROOT / "configs" / "train.json")
    config.update(
        {"bundle_root": str(ROOT), "datalist": str(datalist), "output_dir": str(folder / "run"), "resume": False}
    )
    config.update({"cache_dir": None if cache is None else str(cache), "epochs": 1, "val_interval": 1000})
    # The warm start runs once, before the epoch that is measured.
    config["warm_start_steps"] = 0
    config.parse()
    return config.get_parsed_content("train#trainer"), [config.get_parsed_content("train#dataset")]


def epochs(datalist: Path, folder: Path) -> dict[str, float]:
    """Seconds of an epoch, and of loading alone, without and with the cache."""
    times = {}
    for name, cache in (("without cache", None), ("with cache", folder / "cache")):
        trainer, datasets = training(datalist, folder, cache)
        if cache is not None:
            fill_cache(datasets)
        started = time.perf_counter()
        for index in range(len(datasets[0])):
            datasets[0][index]
        times[f"loading, {name}"] = time.perf_counter() - started
        started = time.perf_counter()
        trainer.run()
        times[f"epoch, {name}"] = time.perf_counter() - started
    return times


def workers(datalist: Path, folder: Path) -> dict[str, float]:
    """Seconds of filling an empty cache with one worker and with two, including their start."""
    times = {}
    for count in (1, 2):
        command = [sys.executable, "scripts/fill_cache.py", "--datalist", str(datalist), "--workers", str(count)]
        command += ["--set", f"cache_dir={folder / f'cache_{count}'}"]
        started = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        times[f"cache filled by {count}"] = time.perf_counter() - started
    return times


def killed_worker(datalist: Path, folder: Path, scans: int) -> dict[str, int]:
    """Findings with two workers, one of which is killed when half of the scans are done."""
    output = folder / "archive"
    command = [sys.executable, "scripts/run_archive.py", str(datalist), "--output", str(output), "--workers", "2"]
    run = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
    killed = 0
    seen: dict[Path, int] = {}
    while run.poll() is None:
        for path in output.glob("scans/*/findings.json"):
            seen.setdefault(path, path.stat().st_ino)
        if not killed and len(seen) >= scans // 2:
            # The workers are the child processes with the most memory: torch and the network.
            children = sorted(
                psutil.Process(run.pid).children(recursive=True), key=lambda child: child.memory_info().rss
            )
            killed = children[-1].pid
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.05)
    with (output / "findings.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    records = {path: path.stat().st_ino for path in output.glob("scans/*/findings.json")}
    return {
        "scans": scans,
        "finished when a worker was killed": len(seen) if killed and len(seen) < scans else scans // 2,
        "killed": int(killed > 0),
        "rows done": sum(row["status"] == "done" for row in rows),
        "rows failed": sum(row["status"] == "failed" for row in rows),
        "records": len(records),
        "records written again": sum(records.get(path) != inode for path, inode in seen.items()),
        "exit code": run.returncode,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scan", type=Path, help="zip of DICOM or .nii.gz for part 1 (default: a synthetic scan)")
    parser.add_argument("--scans", type=int, default=8, help="synthetic scans of parts 2 to 4 (default %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of part 1 (default %(default)s)")
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        datalist = make_dataset(folder / "scans", options.scans, VALIDATION_SCANS, 0, seed=0)
        scan = options.scan or next((folder / "scans" / "images").glob("*.nii.gz"))
        seconds = decoding(scan, folder, options.repeats) | epochs(datalist, folder) | workers(datalist, folder)
        killed = killed_worker(datalist, folder, options.scans + VALIDATION_SCANS)
    ratios = {
        f"{kind}: {what} / plain isal": seconds[f"{kind}: {what}"] / seconds[f"{kind}: plain isal"]
        for kind in ("scan", "as nii.gz")
        for what in ("decode to voxels", "decode, check, HU", "decode and preprocess")
    }
    ratios["epochs per hour, with cache / without"] = seconds["epoch, without cache"] / seconds["epoch, with cache"]
    ratios["loading / epoch, with cache"] = seconds["loading, with cache"] / seconds["epoch, with cache"]
    ratios["two workers: times as fast as one"] = seconds["cache filled by 1"] / seconds["cache filled by 2"]
    hourly = {what: 3600 / seconds[f"epoch, {what}"] for what in ("without cache", "with cache")}
    for title, table, form in (
        ("", seconds, "{:>10.3f} s"),
        ("", hourly, "{:>10.1f} epochs per hour"),
        ("", ratios, "{:>10.3f}"),
    ):
        for what, value in table.items():
            print(f"{what:<52}" + form.format(value))
        print(title)
    print(json.dumps(killed))
    record = {
        "command": shown_command(sys.argv, {}),
        "scan": scan.name,
        "training_scans": options.scans,
        "seconds": seconds,
        "epochs_per_hour": hourly,
        "ratios": ratios,
        "killed_worker": killed,
    }
    write_record(options.output, record)


if __name__ == "__main__":
    main()
