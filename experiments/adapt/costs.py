"""Cost of adaptation in one run, for Astra and for the default tower: seconds and peak memory of every step.

    python -m experiments.adapt.costs data/hybrid/datalist.json docs/experiments/adapt/costs.json

Every step runs in a process of its own, with its peak memory: three scans are encoded; all scans of the datalist
fill the cache; linear_probe and prompt_head adapt to 200 studies from the cache; the adapted checkpoint is loaded, and
answers the findings of a scan and two free texts, of which the second one reads the encoding of the first. The 200
studies are the cached scans several times, with other ids and patients: their number of tokens is real, their AUC means
nothing.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.utils import set_determinism

from bundle.ctfindings.adaptation import Adaptation, EncodedStudies
from bundle.ctfindings.adaptation.head_training import TRAINED
from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.datalist import split_names
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.inference.service import load_service
from bundle.ctfindings.training import return_freed_memory
from experiments.benchmarks.measurement import ROOT, last_line_of, peak_megabytes, write_record

STUDIES = 200
ENCODED = 3
TEXTS = ("fluid around the left lung", "a calcified nodule in the right upper lobe")
OVERLAYS: dict[str, tuple[str, ...]] = {"default": (), "astra": ("configs/networks/astra.json",)}
STEPS = ("encode", "fill", "linear_probe", "prompt_head", "serve")


class Repeated:
    """The cached scans of ``EncodedStudies`` as a number of studies of as many patients."""

    def __init__(self, encoded: EncodedStudies, count: int) -> None:
        self.encoded, self.count = encoded, count
        self.datalist, self.splits = encoded.datalist, encoded.splits

    def studies(self) -> list[dict[str, Any]]:
        """Each scan in turn, with other ids and patients."""
        own = self.encoded.studies()
        numbered = ((str(number), own[number % len(own)]) for number in range(self.count))
        return [{**study, "id": number, "patient": number, "scan": study["id"]} for number, study in numbered]

    def fill(self, studies: list[dict[str, Any]]) -> dict[str, str]:
        """Nothing is encoded: a scan that the cache lacks is an error of ``dataset``."""
        return {study["id"]: "kept" for study in studies}

    def dataset(self, studies: list[dict[str, Any]]) -> CachedStudies:
        """The cached scans, in the order of the studies."""
        by_id = {study["id"]: study for study in self.encoded.studies()}
        dataset = self.encoded.dataset([by_id[study["scan"]] for study in studies])
        missing = [task.study["id"] for task in map(dataset.task, range(len(dataset))) if not Path(task.path).is_file()]
        if missing:
            raise ValueError(f"{dataset.folder}: no tokens of {missing[0]}; run the step fill first")
        return dataset


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datalist", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--towers", nargs="+", choices=OVERLAYS, default=list(OVERLAYS))
    parser.add_argument("--studies", type=int, default=STUDIES, help="cached studies (default %(default)s)")
    parser.add_argument("--cache", type=Path, default=ROOT / "cache")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    run_or_exit(experiment, parser.parse_args())


def experiment(options: argparse.Namespace) -> None:
    """Runs all steps of all towers, or the step that this process is for."""
    if options.step:
        print(json.dumps({**measure(options), "peak_mb": round(peak_megabytes())}))
        return
    record: dict[str, Any] = {"studies": options.studies, "towers": {}}
    for tower in options.towers:
        found = record["towers"][tower] = {}
        with tempfile.TemporaryDirectory() as folder:
            for step in STEPS:
                given = ["--towers", tower, "--studies", str(options.studies), "--cache", str(options.cache)]
                paths = [str(options.datalist), str(options.out), "--folder", folder]
                found[step] = json.loads(
                    last_line_of(["-m", "experiments.adapt.costs", *paths, *given, "--step", step])
                )
                print(tower, step, found[step], flush=True)
                write_record(options.out, record)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """The seconds of one step of one tower."""
    (tower,) = options.towers
    folder, step = Path(options.folder), str(options.step)
    if step == "serve":
        models = [folder / head / "model.pt" for head in ("prompt_head", "linear_probe")]
        written = next((path for path in models if path.is_file()), None)
        return questions(written, OVERLAYS[tower], options.datalist) if written else {"not_answered": "no checkpoint"}
    parser = ConfigParser()
    parser.read_config([str(ROOT / name) for name in ("configs/adapt.json", *OVERLAYS[tower])])
    chosen = {"datalist": str(options.datalist), "splits": split_names(options.datalist)}
    parser.update({"bundle_root": str(ROOT), "cache_dir": str(options.cache), **chosen})
    parser["output_dir"] = str(folder / step)
    if step in TRAINED:
        parser["head"] = step
    return_freed_memory()
    encoded: EncodedStudies = parser.get_parsed_content("encoded")
    if step == "encode":
        return encoding(encoded, folder / "cache")
    if step == "fill":
        started = time.perf_counter()
        made = list(encoded.fill(encoded.studies()).values()).count("made")
        return {"seconds": time.perf_counter() - started, "made": made, "scans": len(encoded.studies())}
    set_determinism(parser["seed"])
    adaptation: Adaptation = parser.get_parsed_content("adaptation")
    adaptation.encoded = Repeated(encoded, options.studies)  # type: ignore[assignment]
    started = time.perf_counter()
    try:
        adaptation.run()
        problem = None
    except ValueError as error:  # A head that learned nothing of the repeated scans has no checkpoint; its time counts.
        if not (folder / step / "adaptation.json").is_file():
            raise
        problem = str(error).partition(": ")[2]
    counts = {"studies": options.studies, "scans": len(encoded.studies())}
    return {"seconds": time.perf_counter() - started, **counts, "not_written": problem}


def encoding(encoded: EncodedStudies, cache: Path) -> dict[str, Any]:
    """Seconds of each of some scans, from the file to a new cache."""
    encoded.cache_dir, seconds = cache, []
    dataset = encoded.dataset(encoded.studies()[:ENCODED])
    for index in range(len(dataset)):
        started = time.perf_counter()
        dataset[index]
        seconds.append(time.perf_counter() - started)
    return {"seconds_by_scan": seconds}


def questions(model: Path, overlays: tuple[str, ...], datalist: Path) -> dict[str, Any]:
    """Seconds to load a checkpoint, to answer the findings and a free text of a scan, and a second free text."""
    content = json.loads(datalist.read_text(encoding="utf-8"))
    study = next(study for split in split_names(datalist) for study in content[split])
    times = [time.perf_counter()]
    service = load_service(ROOT, model, overlays)
    times.append(time.perf_counter())
    scan = service.answer_file(datalist.parent / study["image"])
    times.append(time.perf_counter())
    for text in TEXTS:
        service.ask(scan, text)
        times.append(time.perf_counter())
    names = ("load", "findings", "first_text", "second_text")
    return {name: last - first for name, first, last in zip(names, times, times[1:], strict=False)}


if __name__ == "__main__":
    main()
