"""Export: ``findings.json``, ``findings.csv`` and ``scene.mrb`` in a new folder, all of them or none."""

from __future__ import annotations

import shutil
import tempfile
from datetime import datetime
from pathlib import Path

import slicer

from ctfindings_client.record import Record

RECORD_FILE = "findings.json"
TABLE_FILE = "findings.csv"
SCENE_FILE = "scene.mrb"


class ExportError(Exception):
    """Nothing was exported; the text is for the user."""


def export(folder: str, record: Record, now: datetime | None = None) -> Path:
    """Writes the three files into a new folder ``ctfindings-<date>-<time>`` below ``folder``.

    The scene file holds everything that is in the scene, the scan included.

    Returns:
        The new folder.

    Raises:
        ExportError: when the folder does not exist, or a file cannot be written; nothing is left behind then.
    """
    parent = Path(folder).expanduser().absolute()
    if not folder.strip() or not parent.is_dir():
        raise ExportError(f"'{folder}' is not a folder; choose an existing one to export into")
    target = parent / f"ctfindings-{now or datetime.now():%Y%m%d-%H%M%S}"
    if target.exists():
        raise ExportError(f"{target} exists already; export again in a second")
    try:
        staging = Path(tempfile.mkdtemp(prefix=".ctfindings-", dir=parent))
    except OSError as error:
        raise ExportError(f"{parent}: cannot be written to ({error.strerror})") from error
    url, root = slicer.mrmlScene.GetURL(), slicer.mrmlScene.GetRootDirectory()
    try:
        (staging / RECORD_FILE).write_text(record.json, encoding="utf-8")
        (staging / TABLE_FILE).write_text(record.csv, encoding="utf-8")
        # The scene is packed with this path inside, which must therefore be absolute.
        if not slicer.mrmlScene.WriteToMRB(str(staging / SCENE_FILE)) or not (staging / SCENE_FILE).is_file():
            raise ExportError(f"{parent}: Slicer could not write the scene; is there enough space?")
        staging.rename(target)
    except OSError as error:
        raise ExportError(f"{parent}: cannot be written to ({error.strerror})") from error
    finally:
        slicer.mrmlScene.SetURL(url)
        slicer.mrmlScene.SetRootDirectory(root)
        shutil.rmtree(staging, ignore_errors=True)
    return target
