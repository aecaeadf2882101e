"""Cost of inference and training on this hardware: seconds and ratios, as a table and as JSON.

    python experiments/benchmarks/benchmark.py [--output benchmark.json] [--repeats 3]
    python experiments/benchmarks/benchmark.py --gradient-cache [--micro-batch 4] [--output gradient_cache.json]
    python experiments/benchmarks/benchmark.py --captions REPORTS.csv [--output benchmark_captions.json]

By default: one synthetic scan with the network of ``configs/inference.json`` and the shipped weights (reading and
preprocessing, encoding, scoring the 18 findings, another free-text query on the encoded scan), and a training step with
the default allocator and with ``keep_freed_memory``. Seconds are the shortest of the repeats; ratios carry over to
other hardware better.

With ``--gradient-cache``: seconds and peak memory of a training step by batch size, plain and with gradient caching,
each in its own process, on random scans of the size of ``configs/train.json``. The memory of a process grows over its
first steps, because freed memory is not all reused: every row runs at least four micro-batches.

With ``--captions``: labels and captions of 10,000 reports, in one process and in one per core. Each report combines the
findings of one row of the table with the impression of another.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from monai.bundle import ConfigParser
from monai.engines import SupervisedTrainer
from monai.transforms import Compose

from bundle.ctfindings.cli.error_lines import run_or_exit
from bundle.ctfindings.data.batches import prepare_report_batch
from bundle.ctfindings.files.csv_table import Row, Table, read_table
from bundle.ctfindings.inference.answers import score_findings, score_queries
from bundle.ctfindings.losses.anatomy_head import AnatomyHeadLoss
from bundle.ctfindings.losses.composite import CompositeLoss
from bundle.ctfindings.losses.disease_prompts import DiseasePromptLoss
from bundle.ctfindings.losses.grounding import GroundingLoss
from bundle.ctfindings.losses.siglip import SigLIPLoss
from bundle.ctfindings.networks.checkpoint import load_checkpoint
from bundle.ctfindings.networks.vision_language import VisionLanguageModel
from bundle.ctfindings.phantom.dataset import (
    make_case,
    write_nifti,
)
from bundle.ctfindings.reports.report_table import read_reports
from bundle.ctfindings.training.glibc_allocator import keep_freed_memory
from bundle.ctfindings.training.gradient_cache import GradientCache, MicroBatches
from experiments.benchmarks.measurement import (
    ROOT,
    hardware,
    last_line_of,
    peak_megabytes,
    shortest_seconds,
    write_record,
)
from experiments.text_collapse.collapse import FINDINGS_COLUMNS, IMPRESSION_COLUMNS

REPORTS = 10_000
"""Number of reports of ``--captions``."""


def inference_times(repeats: int) -> dict[str, float]:
    """Seconds of each stage for one scan."""
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "inference.json")
    parser["bundle_root"] = str(ROOT)
    classifier, text = parser.get_parsed_content("network_def").eval(), parser.get_parsed_content("text_tower")()
    load_checkpoint({**dict(classifier.named_children()), "text": text}, parser.get_parsed_content("ckpt_path"))
    pipeline = Compose(parser.get_parsed_content("image_pipeline"))
    _, hu, _, _, affine = make_case(seed=0, index=0)
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        path = Path(folder) / "scan.nii.gz"
        write_nifti(path, hu, affine)
        times = {"read and preprocess": shortest_seconds(lambda: pipeline({"image": path}), repeats)}
        image = pipeline({"image": path})["image"].unsqueeze(0)
        encoded = classifier.image(image.as_tensor())
        times["encode"] = shortest_seconds(lambda: classifier.image(image.as_tensor()), repeats)
        times["score 18 findings, 7 templates"] = shortest_seconds(lambda: classifier.score(encoded), repeats)
        times["findings with their maps"] = shortest_seconds(lambda: score_findings(classifier, encoded), repeats)
        times["one further question"] = shortest_seconds(
            lambda: score_queries(classifier, text, encoded, ["fluid around the lung"]), repeats
        )
    return times


def training_step(repeats: int) -> float:
    """Seconds per scan of a training step without captions, batch of 4."""
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "train.json")
    parser["bundle_root"] = str(ROOT)
    model: VisionLanguageModel = parser.get_parsed_content("network_def").train()
    size = parser.get_parsed_content("roi_size")
    image, mask = torch.rand(4, 1, *size), torch.randint(0, 7, (4, 1, *size), dtype=torch.uint8)

    def step() -> None:
        outputs = model(image, mask)
        (outputs["finding_logits_drawn"].sum() + outputs["anatomy"].sum() + outputs["anatomy_logits"].sum()).backward()

    return shortest_seconds(step, repeats) / 4


class RandomScans:
    """Batches of random scans with mask, finding masks, labels and report, generated on the fly.

    Args:
        count: Number of batches.
        size: Scans of a batch.
        shape: Voxels of a scan.
    """

    def __init__(self, count: int, size: int, shape: list[int]) -> None:
        self.count, self.size, self.shape = count, size, shape

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in range(self.count):
            shape = (self.size, 1, *self.shape)
            yield {
                "image": torch.rand(shape),
                "anatomy": torch.randint(0, 7, shape, dtype=torch.uint8),
                "anatomy_known": torch.ones(self.size, 6, dtype=torch.bool),
                "finding_masks": torch.randint(0, 2**18, shape, dtype=torch.int32),
                "labels": torch.randint(0, 2, (self.size, 18)),
                "report": [{"findings": f"Report {self.size * batch + scan}."} for scan in range(self.size)],
            }


def batch_step(scans: int, micro_batch: int, cached: bool) -> tuple[float, float]:
    """Seconds of a training step on a batch of scans, and peak memory of this process in MB."""
    parser = ConfigParser()
    parser.read_config(ROOT / "configs" / "train.json")
    parser["bundle_root"] = str(ROOT)
    network: VisionLanguageModel = parser.get_parsed_content("network_def")
    losses = {
        "siglip": SigLIPLoss(),
        "prompts": DiseasePromptLoss(),
        "head": AnatomyHeadLoss(),
        "grounding": GroundingLoss(),
    }
    loss = CompositeLoss(losses, dict.fromkeys(losses, 1.0))
    parameters = [value for value in [*network.parameters(), *loss.parameters()] if value.requires_grad]
    size = micro_batch if cached else scans
    steps = max(1, 4 * micro_batch // scans)
    loader = RandomScans(steps * scans // size, size, parser.get_parsed_content("roi_size"))
    trainer = SupervisedTrainer(
        device="cpu",
        max_epochs=1,
        train_data_loader=MicroBatches(loader, scans // size) if cached else loader,
        network=network,
        optimizer=torch.optim.AdamW(parameters, lr=1e-4),
        loss_function=loss,
        prepare_batch=prepare_report_batch,
        iteration_update=GradientCache(waiting_dir=None) if cached else None,
        decollate=False,
    )
    started = time.perf_counter()
    trainer.run()
    return (time.perf_counter() - started) / steps, peak_megabytes()


def gradient_cache_table(micro_batch: int) -> dict[str, Any]:
    """Seconds and peak memory of a step by batch size, with and without gradient caching; prints a table."""
    rows: list[dict[str, Any]] = []
    print(f"{'scans':>6}{'':>8}{'seconds':>10}{'per scan':>10}{'peak MB':>10}{'of micro-batch':>16}")
    for times, cached in ((1, False), (2, False), (4, False), (1, True), (4, True), (16, True), (64, True)):
        way, scans = ("cached" if cached else "plain"), times * micro_batch
        arguments = [__file__, "--batch-step", way, str(scans), "--micro-batch", str(micro_batch)]
        seconds, peak = map(float, last_line_of(arguments).split())
        rows.append(
            {
                "scans": scans,
                "cached": cached,
                "seconds": seconds,
                "peak_mb": peak,
                "ratio": peak / (rows[0]["peak_mb"] if rows else peak),
            }
        )
        print(
            f"{scans:>6}{way:>8}{seconds:>10.1f}{seconds / scans:>10.2f}{peak:>10.0f}{rows[-1]['ratio']:>16.2f}",
            flush=True,
        )
    return {"micro_batch": micro_batch, "rows": rows}


def caption_times(path: Path) -> dict[str, Any]:
    """Seconds for the labels and captions of `REPORTS` reports by number of processes."""
    table = read_table(path)
    findings, impression = table.first_of(FINDINGS_COLUMNS), table.first_of(IMPRESSION_COLUMNS)
    if findings is None or impression is None:
        raise SystemExit(
            f"error: {path}: expected columns for findings and impression, such as "
            f"{FINDINGS_COLUMNS[0]} and {IMPRESSION_COLUMNS[0]}"
        )
    count = len(table.rows)
    rows = [
        Row(
            number,
            {
                findings: table.rows[number % count].values[findings],
                impression: table.rows[other % count].values[impression],
            },
        )
        for number in range(REPORTS)
        for other in [number + 1 + number // count]
    ]
    seconds = {}
    # One process last: its cache of sentences would be inherited by processes that start from it.
    for processes in sorted({1, hardware()["cores"]}, reverse=True):
        started = time.perf_counter()
        found = sum(1 for _ in read_reports(Table(table.path, table.columns, rows), [findings, impression], processes))
        seconds[str(processes)] = time.perf_counter() - started
        print(f"{found} reports, {processes} processes:{seconds[str(processes)]:>8.1f} s", flush=True)
    return {"reports": REPORTS, "rows of the table": count, "seconds by processes": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, help="write the numbers to this JSON file")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs (default %(default)s)")
    parser.add_argument("--training-step", choices=("plain", "kept"), help=argparse.SUPPRESS)
    parser.add_argument("--gradient-cache", action="store_true", help="measure gradient caching")
    parser.add_argument("--micro-batch", type=int, default=4, help="scans of a micro-batch (default %(default)s)")
    parser.add_argument("--captions", type=Path, metavar="CSV", help="measure labels and captions of these reports")
    parser.add_argument("--batch-step", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.batch_step:
        print(*batch_step(int(options.batch_step[1]), options.micro_batch, options.batch_step[0] == "cached"))
        return
    if options.gradient_cache or options.captions:
        record = (
            run_or_exit(caption_times, options.captions)
            if options.captions
            else gradient_cache_table(options.micro_batch)
        )
        write_record(options.output, record)
        return
    if options.training_step:
        if options.training_step == "kept":
            keep_freed_memory()
        print(training_step(options.repeats))
        return
    times = inference_times(options.repeats)
    # The setting of the allocator cannot be undone, so each runs in its own process.
    for setting in ("plain", "kept"):
        arguments = [__file__, "--training-step", setting, "--repeats", str(options.repeats)]
        times[f"training step per scan, memory {setting}"] = float(last_line_of(arguments))
    ratios = {
        "further question / encode": times["one further question"] / times["encode"],
        "training step, memory kept / plain": times["training step per scan, memory kept"]
        / times["training step per scan, memory plain"],
    }
    for name, seconds in times.items():
        print(f"{name:<42}{1000 * seconds:>10.1f} ms")
    for name, ratio in ratios.items():
        print(f"{name:<42}{ratio:>10.3f}")
    write_record(options.output, {"seconds": times, "ratios": ratios})


if __name__ == "__main__":
    main()
