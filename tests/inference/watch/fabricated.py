"""A service that answers series without a network, and can be killed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pydicom

from bundle.ctfindings.inference.batch.run_archive import ArchiveTask
from bundle.ctfindings.inference.encoding import describe_scan
from bundle.ctfindings.inference.findings_record import FindingAnswer, FindingsRecord, ModelInfo
from bundle.ctfindings.inference.output.dicom.source_headers import derived_uid


class Killed(BaseException):
    """Stands for kill -9: nothing catches it."""


class Service:
    """Writes two objects and a record for each series; it can be killed, and one series may be unusable."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.killed_after: str = ""
        self.unusable: set[str] = set()

    def __call__(self, task: ArchiveTask) -> None:
        images = Path(task.study["image"])
        self.calls[images.name] += 1
        if images.name in self.unusable:
            raise ValueError(f"{images}: holds no chest; give another one [not-a-chest]")
        source = pydicom.dcmread(next(images.iterdir()), stop_before_pixels=True)
        source.SeriesInstanceUID, source.Modality = derived_uid("results", images.name), "OT"
        assert task.dicom is not None
        task.dicom.mkdir(parents=True, exist_ok=True)
        for name in ("capture", "report"):
            source.SOPInstanceUID = derived_uid(name, images.name)
            source.save_as(task.dicom / f"{name}.dcm")
            self.step(f"{name} written")
        answer = FindingAnswer("Lung nodule", 0.75, 0.5, True, "lung")
        scan = describe_scan(images, "DICOM", (2, 2, 2), np.eye(4), images.name)
        FindingsRecord(scan, ModelInfo("chest", "0.1.0", "ab", "Tower"), [answer]).save(task.target)
        self.step("record written")

    def step(self, name: str) -> None:
        if self.killed_after == name:
            self.killed_after = ""
            raise Killed
