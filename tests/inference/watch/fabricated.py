"""A service that answers series without a network and can be killed, and a receiver in a folder."""

import os
import signal
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom

from bundle.ctfindings.inference.batch.run_archive import ArchiveTask
from bundle.ctfindings.inference.encoding import describe_scan
from bundle.ctfindings.inference.findings_record import FindingAnswer, FindingsRecord, ModelInfo
from bundle.ctfindings.inference.output.dicom.source_headers import derived_uid


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


def write_results(task: ArchiveTask, step: Callable[[str], None]) -> None:
    """Writes two objects and a record, and calls ``step`` after each."""
    images = Path(task.study["image"])
    source = pydicom.dcmread(next(images.iterdir()), stop_before_pixels=True)
    source.SeriesInstanceUID, source.Modality = derived_uid("results", images.name), "OT"
    assert task.dicom is not None
    task.dicom.mkdir(parents=True, exist_ok=True)
    for name in ("capture", "report"):
        source.SOPInstanceUID = derived_uid(name, images.name)
        source.save_as(task.dicom / f"{name}.dcm")
        step(f"{name} written")
    answer = FindingAnswer("Lung nodule", 0.75, 0.5, True, "lung")
    scan = describe_scan(images, "DICOM", (2, 2, 2), np.eye(4), images.name)
    FindingsRecord(scan, ModelInfo("chest", "0.1.0", "ab", "Tower"), [answer]).save(task.target)
    step("record written")


class Service:
    """Answers each series; it can be killed, and one series may be unusable."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.killed_after: str = ""
        self.unusable: set[str] = set()

    def __call__(self, task: ArchiveTask) -> None:
        images = Path(task.study["image"])
        self.calls[images.name] += 1
        if images.name in self.unusable:
            raise ValueError(f"{images}: holds no chest; give another one [not-a-chest]")
        write_results(task, self.step)

    def step(self, name: str) -> None:
        if self.killed_after == name:
            self.killed_after = ""
            raise Killed


def answer_on_cluster(marks: Path, task: ArchiveTask) -> None:
    """Answers a series on a worker: leaves a file in ``marks`` for each call, and ends its process by the file that
    ``marks`` has for the step it was in.
    """
    (marks / f"call-{Path(task.study['image']).name}-{uuid.uuid4().hex}").touch()

    def step(name: str) -> None:
        time.sleep(0.05)
        try:
            (marks / name).unlink()
        except FileNotFoundError:
            return
        os.kill(os.getpid(), signal.SIGKILL)

    write_results(task, step)


class FolderReceiver:
    """Keeps each object as a file by its UID. It is asked first, as a DICOMweb server is, and refuses a second copy."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def send(self, files: Sequence[Path]) -> int:
        missing = [file for file in files if not self._place(file).exists()]
        for file in missing:
            with self._place(file).open("xb") as place:
                place.write(file.read_bytes())
            time.sleep(0.05)
        return len(missing)

    def _place(self, file: Path) -> Path:
        return self.folder / str(pydicom.dcmread(file).SOPInstanceUID)
