"""One downstream task on one checkpoint: studies, encoder, results, and the files that show them."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from bundle.ctfindings import __version__
from bundle.ctfindings.data.datalist import check_patients, load_datalist
from bundle.ctfindings.data.study_record import SPLITS
from bundle.ctfindings.downstream.encoded_scans import ScanEncoder
from bundle.ctfindings.evaluation.evaluation_page import embedded_figure
from bundle.ctfindings.files.atomic_write import atomic_path, write_text
from bundle.ctfindings.files.html_page import render_page
from bundle.ctfindings.inference.findings_record import DISCLAIMER
from bundle.ctfindings.metrics.bootstrap import Bootstrap
from bundle.ctfindings.networks.checkpoint import sha256_of

Studies = list[dict[str, Any]]


@dataclass(frozen=True)
class Table:
    """A table of results; a cell is a text, or a number with its interval as ``format_value`` writes it."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    page_only: bool = False  # not for a console: it has long texts

    def text(self) -> str:
        """The table for a console."""
        widths = [max(map(len, cells)) for cells in zip(self.columns, *self.rows, strict=True)]
        lines = [self.columns, *self.rows]
        return "\n".join(
            [self.title, *("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in lines)]
        )


@dataclass
class Results:
    """What a task found."""

    metrics: dict[str, Any]  # of ``metrics.json``
    tables: list[Table]
    files: dict[str, Callable[[Path], None]]  # by name: predictions and figures, written at the given path
    warnings: list[str] = field(default_factory=list)


class Task(Protocol):
    """A downstream task."""

    name: str

    def check(self, studies: dict[str, Studies]) -> None:
        """Raises a ValueError in one line if the studies lack what the task needs, before a scan is read."""

    def run(self, encoder: ScanEncoder, studies: dict[str, Studies], bootstrap: Bootstrap) -> Results:
        """Trains on the training split, chooses on the validation split, and scores the test split."""


class TaskRun:
    """Runs a task and writes ``metrics.json``, predictions, figures and ``report.html``; all are computed first.

    Args:
        task: the task.
        encoder: the checkpoint and its scans.
        datalist: JSON file with training, validation and test studies of different patients.
        output_dir: folder of the results; created if missing.
        resamples: bootstrap resamples of the intervals, by patient of the test split.
        seed: random seed of the bootstrap.
    """

    def __init__(
        self,
        task: Task,
        encoder: ScanEncoder,
        datalist: str | Path,
        output_dir: str | Path,
        resamples: int = 1000,
        seed: int = 0,
    ) -> None:
        self.task, self.encoder, self.datalist, self.output_dir = task, encoder, Path(datalist), Path(output_dir)
        self.resamples, self.seed = resamples, seed

    def run(self) -> dict[str, Any]:
        """Runs the task, writes its files and returns the content of ``metrics.json``."""
        studies = {split: load_datalist(self.datalist, split, may_be_empty=False) for split in SPLITS}
        for first, second in (("training", "validation"), ("training", "test"), ("validation", "test")):
            check_patients(studies[first], studies[second], f"{self.datalist}: {first} and {second}")
        if len({study["patient"] for study in studies["test"]}) < 2:
            raise ValueError(f"{self.datalist}: the test split has one patient; intervals need two or more")
        self.task.check(studies)
        self.encoder.load()
        bootstrap = Bootstrap([study["patient"] for study in studies["test"]], self.resamples, self.seed)
        results = self.task.run(self.encoder, studies, bootstrap)
        path = self.encoder.ckpt_path
        record = {
            "task": self.task.name,
            "checkpoint": "random weights" if path is None else Path(path).name,
            "checkpoint_sha256": None if path is None else sha256_of(path),
            "version": __version__,
            "datalist": self.datalist.name,
            "scans": {split: len(listed) for split, listed in studies.items()},
            "test_patients": len(set(bootstrap.patients)),
            "bootstrap": bootstrap.settings(),
            "warnings": results.warnings,
            **results.metrics,
        }
        self._write(record, results)
        print("\n\n".join([*(table.text() for table in results.tables if not table.page_only), *results.warnings]))
        print(f"Page: {self.output_dir / 'report.html'}")
        return record

    def _write(self, record: dict[str, Any], results: Results) -> None:
        content = json.dumps(record, indent=2, allow_nan=False) + "\n"
        for name, write in results.files.items():
            with atomic_path(self.output_dir / name) as path:
                write(path)
        write_text(self.output_dir / "metrics.json", content)
        figures = [self.output_dir / name for name in results.files if name.endswith(".png")]
        page = render_page(
            Path(__file__).parent / "templates" / "downstream.html.jinja",
            record=record,
            tables=results.tables,
            figures={figure.stem.replace("_", " "): embedded_figure(figure) for figure in figures},
            disclaimer=DISCLAIMER,
        )
        write_text(self.output_dir / "report.html", page)
