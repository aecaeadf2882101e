"""The results of one series, made in this process or on a worker of a cluster."""

import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from bundle.ctfindings.files.atomic_write import safe_name, staging_folder
from bundle.ctfindings.inference.batch.run_archive import ArchiveTask, Model
from bundle.ctfindings.inference.output.write_files import RECORD_FILE
from bundle.ctfindings.inference.watch.connections import Unreachable


class Answered(NamedTuple):
    """How a series was answered.

    Attributes:
        seconds: it took.
        without_dicom: why there are no DICOM objects; empty if there are, or if an earlier run made the results.
        unreachable: why its images could not be fetched from the server; empty if they could.
    """

    seconds: float
    without_dicom: str = ""
    unreachable: str = ""


class SeriesTask(NamedTuple):
    """A series to answer.

    Attributes:
        uid: its SeriesInstanceUID.
        fetch: puts its images into a folder.
        fetched: folder of temporary folders for images.
        folder: of its results. It appears when they are complete.
        model: bundle and weights.
        find: writes the findings record and DICOM objects of a task; ValueError if the scan cannot be used.
    """

    uid: str
    fetch: Callable[[Path], None]
    fetched: Path
    folder: Path
    model: Model
    find: Callable[[ArchiveTask], str | None]

    def __repr__(self) -> str:
        """Without names: Dask logs the arguments of a call that failed."""
        return "SeriesTask(...)"


def answer_series(task: SeriesTask) -> Answered:
    """Writes the results of a series, unless they are there.

    Several processes may answer a series, if one of them was taken for dead: the results of the first one stay.
    """
    started, before = time.perf_counter(), os.umask(0o077)  # Results are data of patients.
    without_dicom, unreachable = None, ""
    try:
        if not (task.folder / RECORD_FILE).is_file():
            without_dicom = _write_results(task)
    except Unreachable as error:
        unreachable = str(error)
    finally:
        os.umask(before)
    return Answered(time.perf_counter() - started, without_dicom or "", unreachable)


def _write_results(task: SeriesTask) -> str | None:
    if task.folder.is_dir():
        shutil.rmtree(task.folder)  # Somebody removed its record.
    with tempfile.TemporaryDirectory(dir=task.fetched) as temporary, staging_folder(task.folder) as staging:
        images, results = Path(temporary) / safe_name(task.uid), staging / "results"
        images.mkdir()
        task.fetch(images)
        try:
            without_dicom = task.find(ArchiveTask({"image": str(images)}, results / RECORD_FILE, task.model, results))
        except ValueError as error:
            raise ValueError(str(error).replace(f"{images}: ", "").replace(str(images), "the series")) from None
        try:
            results.rename(task.folder)
        except OSError:
            if not (task.folder / RECORD_FILE).is_file():
                raise
    return without_dicom
