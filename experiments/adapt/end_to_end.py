"""Seconds of the tutorial from start to end: DICOM and a CSV of reports become a checkpoint that a server answers with.

    python scripts/make_hybrid_scans.py REAL_FOLDER data/hybrid --per-finding 2
    python -m experiments.adapt.end_to_end data/hybrid docs/experiments/adapt/end_to_end.json [--encoder astra]

Stand-ins for an export of a PACS: each real chest and one hybrid of it for each of three findings, written as DICOM
series, and a CSV that states in a sentence what was drawn and gives the split, because seven patients are too few to
draw one. Every step is the command of docs/adapt_to_your_hospital.md, in a process of its own; the last one asks the
server for the findings of one scan, as the viewer does. Only seconds and counts are written.
"""

import argparse
import csv
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import requests

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.phantom.case import Case
from bundle.ctfindings.phantom.write_dicom import write_series
from experiments.benchmarks.measurement import ROOT, hardware
from experiments.harness.page import write_results

DRAWN = ("Lung nodule", "Lung opacity", "Pleural effusion")
START_SECONDS = 900


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hybrids", type=Path, help="folder of scripts/make_hybrid_scans.py")
    parser.add_argument("out", type=Path)
    parser.add_argument("--encoder", choices=("default", "astra"), default="default")
    parser.add_argument("--folder", type=Path, help="work folder (default: a temporary one, which is removed)")
    run_or_exit(experiment, parser.parse_args())


def experiment(options: argparse.Namespace) -> None:
    """Runs all steps, and adds the seconds of the encoder to the results."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        studies = chosen_studies(options.hybrids)
        for index, study in enumerate(studies):
            write_dicom(folder / "archive" / study["id"], options.hybrids / study["image"], study["patient"], index)
        write_reports(folder / "reports.csv", studies)
        found = walk(folder, options.encoder)
    results = json.loads(options.out.read_text(encoding="utf-8")) if options.out.is_file() else {"encoders": {}}
    series = {"series": len(studies), "patients": len({study["patient"] for study in studies})}
    results["encoders"][options.encoder] = {**series, **found, "hardware": hardware()}
    write_results(options.out.parent, results, options.out.name)
    print(json.dumps(results["encoders"][options.encoder], indent=2))


def chosen_studies(hybrids: Path) -> list[dict[str, Any]]:
    """Of each patient the unaltered scan, and the first hybrid of each of ``DRAWN``."""
    datalist = json.loads((hybrids / "datalist.json").read_text(encoding="utf-8"))
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for study in (study for split in SPLITS for study in datalist.get(split, ())):
        drawn = study["sites"][0]["finding"] if study.get("sites") else ""
        if drawn in ("", *DRAWN):
            kept.setdefault((study["patient"], drawn), study)
    return list(kept.values())


def write_dicom(folder: Path, path: Path, patient: str, index: int) -> None:
    """Writes a NIfTI scan as a series of axial images; ValueError if its axes are not those of the patient."""
    scan = nib.as_closest_canonical(nib.load(path))
    affine = np.asarray(scan.affine)
    if not np.allclose(affine[:3, :3], np.diag(np.diag(affine)[:3]), atol=1e-3):
        raise ValueError(f"{path}: expected axial images without rotation, found a tilted scan; leave it out")
    x, y, z = (float(size) for size in np.diag(affine)[:3])
    hu = np.asarray(scan.dataobj).round().astype(np.int16)
    bottom = float(affine[2, 3])
    case = Case(index, patient, (), spacing=(x, y, z), image_count=hu.shape[2], z_bottom_mm=bottom)
    write_series(folder, case, hu, affine)


def write_reports(path: Path, studies: Sequence[dict[str, Any]]) -> None:
    """A sentence for each known label of a study, and its split: two patients test, one validates, the others train."""
    order = list(dict.fromkeys(study["patient"] for study in studies))
    split = dict(zip(order, ["test", "test", "validation"], strict=False))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "split", "findings"])
        for study in studies:
            said = zip(FINDING_NAMES, study["labels"], strict=True)
            sentences = [f"{name}." if label else f"No {name.lower()}." for name, label in said if label >= 0]
            writer.writerow([study["id"], split.get(study["patient"], "training"), " ".join(sentences)])


def walk(folder: Path, encoder: str) -> dict[str, Any]:
    """Runs the steps of the tutorial in a folder with ``archive`` and ``reports.csv``."""
    seconds: dict[str, float] = {}
    overlays = [] if encoder == "default" else [f"configs/networks/{encoder}.json"]
    datalist, run, cache = folder / "data" / "datalist.json", folder / "run", folder / "cache"

    def step(name: str, *arguments: object) -> None:
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, encoding="utf-8", check=False
        )
        if done.returncode != 0:
            raise ValueError(f"{name}: {(done.stderr.strip() or done.stdout.strip()).splitlines()[-1]}")
        seconds[name] = round(time.perf_counter() - started, 1)
        print(f"{name}: {seconds[name]} s", flush=True)

    def workflow(*configs: str) -> Sequence[object]:
        files = [*configs[:1], *overlays, *configs[1:]]
        return ["-m", "monai.bundle", "run", "--config_file", str(files), "--datalist", datalist, "--cache_dir", cache]

    prepare = ["scripts/prepare_dicom.py", folder / "archive", "--reports", folder / "reports.csv", "--join", "folder"]
    step("prepare", *prepare, "--output", folder / "data", "--labels-from-reports")
    if overlays:
        step("encode", "scripts/encode_scans.py", datalist, "--encoder", encoder, "--cache-dir", cache)
    step("adapt", *workflow("configs/adapt.json"), "--output_dir", run)
    evaluated = ["--ckpt_path", run / "model.pt", "--eval_dir", folder / "eval", "--resamples", 200]
    step("evaluate", *workflow("configs/train.json", "configs/evaluate.json"), *evaluated)
    record = json.loads((run / "adaptation.json").read_text(encoding="utf-8"))
    assessed = sum(row["assessed"] for row in record["findings"])
    answered = serve(folder, run / "model.pt", overlays, seconds)
    return {"training_scans": record["scans"], "findings_assessed": assessed, "answered": answered, "seconds": seconds}


def serve(folder: Path, model: Path, overlays: Sequence[str], seconds: dict[str, float]) -> int:
    """Starts the server on the prepared scans, and asks for the findings of one; returns how many it answered."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    datalist = json.loads((folder / "data" / "datalist.json").read_text(encoding="utf-8"))
    scan = folder / "data" / datalist["test"][0]["image"]
    conf = [("checkpoint", model), ("work", folder / "server"), *(("overlays", name) for name in overlays)]
    command = [sys.executable, ROOT / "plugins" / "monailabel" / "start_server.py", "--studies", scan.parent]
    command += ["--port", port, *(word for key, value in conf for word in ("--conf", key, value))]
    started = time.perf_counter()
    with (folder / "server.txt").open("wb") as log:
        server = subprocess.Popen([str(word) for word in command], cwd=folder, stdout=log, stderr=log)
        try:
            url = f"http://127.0.0.1:{port}"
            while not _answers(url):
                if server.poll() is not None or time.perf_counter() - started > START_SECONDS:
                    lines = (folder / "server.txt").read_text(errors="replace").strip().splitlines()
                    raise ValueError(f"serve: the server did not start: {lines[-1] if lines else 'no output'}")
                time.sleep(0.2)
            seconds["start_server"] = round(time.perf_counter() - started, 1)
            for name in ("findings", "findings_again"):
                asked = time.perf_counter()
                image = scan.name.removesuffix(".nii.gz")
                answer = requests.post(f"{url}/infer/findings?image={image}&output=json", timeout=START_SECONDS)
                answer.raise_for_status()
                seconds[name] = round(time.perf_counter() - asked, 2)
            return len(answer.json()["record"]["findings"])
        finally:
            server.terminate()
            server.wait(timeout=300)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=10).ok
    except requests.ConnectionError:
        return False


if __name__ == "__main__":
    main()
