"""Preprocessed scans on disk: one memory-mapped file each, checked when it is read, in a folder named by what the
pipeline does.

An entry is a safetensors file: the tensors of a study as they are, and in its header what else the study holds, as
JSON, with checksums.
"""

from __future__ import annotations

import copy
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from isal import isal_zlib
from monai.data import Dataset
from monai.transforms import Compose, Transform
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from bundle.ctfindings.data.cache_key import describe_pipeline, version_of
from bundle.ctfindings.files.atomic_write import atomic_path

logger = logging.getLogger(__name__)

PIPELINE_FILE = "pipeline.json"


class DamagedEntry(ValueError):
    """An entry of the cache that is not what was written."""


class CachedStudies(Dataset):
    """Studies as tensors: the deterministic steps from the cache, which is filled when it lacks one, and the random
    steps anew.

    Args:
        studies: from ``load_datalist``.
        deterministic: steps whose result is kept.
        transform: steps that run at every access.
        cache_dir: holds a folder for each pipeline; None computes every scan at every access.
        cache_key: anything else that should tell one cache from another.
        digest: name of a study in the cache.
    """

    def __init__(
        self,
        studies: Sequence[dict[str, Any]],
        deterministic: Sequence[Transform],
        transform: Sequence[Transform] = (),
        cache_dir: str | Path | None = None,
        cache_key: Any = None,
        digest: Callable[[Mapping[str, Any]], str] = str,
    ) -> None:
        super().__init__(list(studies), Compose(list(transform)))
        self.deterministic = Compose(list(deterministic))
        self.digest = digest
        self.folder: Path | None = None
        if cache_dir is not None:
            description = describe_pipeline(deterministic, cache_key)
            self.folder = Path(cache_dir) / version_of(description)
            if not (self.folder / PIPELINE_FILE).is_file():
                with atomic_path(self.folder / PIPELINE_FILE) as temporary:
                    temporary.write_text(json.dumps(description, indent=1) + "\n", encoding="utf-8")

    def _transform(self, index: int) -> dict[str, Any]:
        study = self.data[index]
        return dict(self.transform(self._compute(study) if self.folder is None else fetch(self.task(index))))

    def task(self, index: int) -> FetchTask:
        """What it takes to have the entry of a study, for another process too.

        Raises:
            ValueError: when there is no cache.
        """
        if self.folder is None:
            raise ValueError("cache_dir: is null, so there is no cache to fill; give a folder")
        study = self.data[index]
        return FetchTask(str(self.folder / f"{self.digest(study)}.safetensors"), study, self.deterministic)

    def _compute(self, study: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.deterministic(copy.deepcopy(dict(study))))


class FetchTask(NamedTuple):
    """One entry: its file, and the study and the steps that make it."""

    path: str
    study: Mapping[str, Any]
    steps: Compose


def fetch(task: FetchTask) -> dict[str, Any]:
    """The entry from its file; made, and written, when it is not there or damaged, which is logged with its name.

    Raises:
        ScanError: when the scan of the study cannot be used.
    """
    path = Path(task.path)
    if path.is_file():
        try:
            return read_entry(path)
        except DamagedEntry as error:
            logger.warning("%s; it is made again", error)
    study = dict(task.steps(copy.deepcopy(dict(task.study))))
    write_entry(path, study)
    return study


def fill(task: FetchTask) -> str:
    """``made`` or ``kept``: the entry is on disk and whole afterwards."""
    path = Path(task.path)
    if path.is_file():
        try:
            read_entry(path)
            return "kept"
        except DamagedEntry as error:
            logger.warning("%s; it is made again", error)
    write_entry(path, dict(task.steps(copy.deepcopy(dict(task.study)))))
    return "made"


def write_entry(path: Path, study: Mapping[str, Any]) -> None:
    """Writes a study, complete or not at all.

    Raises:
        ValueError: when it holds something that is neither a tensor nor JSON, or the disk does not take it: names the
            folder.
    """
    tensors = {
        name: torch.as_tensor(value).contiguous()
        for name, value in study.items()
        if isinstance(value, torch.Tensor | np.ndarray)
    }
    rest = {name: value for name, value in study.items() if name not in tensors}
    try:
        text = json.dumps(rest)
    except TypeError as error:
        raise ValueError(f"study {study.get('id', '')}: {error}; a cached study holds tensors and JSON only") from error
    checks = {name: isal_zlib.crc32(_bytes_of(tensor)) for name, tensor in tensors.items()}
    metadata = {"study": text, "study_crc32": str(isal_zlib.crc32(text.encode())), "crc32": json.dumps(checks)}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"{path.parent}: the cache cannot be written ({reason}); make room, or give another cache_dir"
        ) from error


def read_entry(path: Path) -> dict[str, Any]:
    """The study of a file; its tensors are mapped from it, private to this process.

    Raises:
        DamagedEntry: when the file is cut off or a checksum differs; names it.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        checks = {**json.loads(metadata["crc32"]), "": int(metadata["study_crc32"])}
        found = {name: isal_zlib.crc32(_bytes_of(tensor)) for name, tensor in tensors.items()}
        found[""] = isal_zlib.crc32(metadata["study"].encode())
        wrong = sorted(name or "header" for name in checks.keys() | found.keys() if checks.get(name) != found.get(name))
        if wrong:
            raise DamagedEntry(f"{path}: the checksum of {wrong[0]} differs from what was written")
        return {**json.loads(metadata["study"]), **tensors}
    except (SafetensorError, OSError, KeyError, TypeError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DamagedEntry(f"{path}: cannot be read, it is cut off or damaged ({error})") from error


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """The bytes of a contiguous tensor of any type, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()
