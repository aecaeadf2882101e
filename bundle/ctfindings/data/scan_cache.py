"""Scan cache: one memory-mapped safetensors file per study, whose header holds checksums and other fields as JSON."""

import copy
import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
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
from bundle.ctfindings.data.study_record import PATH_KEYS
from bundle.ctfindings.files.atomic_write import atomic_path, write_text
from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.files.fingerprint import FileSignature, file_signature

logger = logging.getLogger(__name__)

PIPELINE_FILE = "pipeline.json"


class DamagedEntry(ValueError):
    """A cache entry that differs from what was written."""


class FetchTask(NamedTuple):
    """One entry: its file, and the study and steps that make it."""

    path: str
    study: Mapping[str, Any]
    steps: Compose


class CachedStudies(Dataset):
    """Studies as tensors: ``deterministic`` steps run once and are cached; for the rest see ``cached_dataset``."""

    def __init__(
        self,
        studies: Sequence[dict[str, Any]],
        deterministic: Sequence[Transform],
        augmentation: Sequence[Transform],
        cache_dir: str | Path | None,
        cache_key: Any,
    ) -> None:
        super().__init__(list(studies), Compose(list(augmentation)))
        self.deterministic = Compose(list(deterministic))
        self.folder: Path | None = None
        if cache_dir is not None:
            description = describe_pipeline(deterministic, cache_key)
            self.folder = Path(cache_dir) / version_of(description)
            if not (self.folder / PIPELINE_FILE).is_file():
                write_text(self.folder / PIPELINE_FILE, json.dumps(description, indent=1) + "\n")

    def _transform(self, index: int) -> dict[str, Any]:
        if self.folder is None:
            return dict(self.transform(_preprocessed(self.data[index], self.deterministic)))
        return dict(self.transform(fetch(self.task(index))[0]))

    def task(self, index: int) -> FetchTask:
        """The entry of a study, in a form that another process can work on; ValueError if there is no cache."""
        if self.folder is None:
            raise ValueError("cache_dir: is null, so there is no cache to fill; set a folder")
        study = self.data[index]
        return FetchTask(str(self.folder / f"{study_digest(study)}.safetensors"), study, self.deterministic)


def study_digest(study: Mapping[str, Any]) -> str:
    """Name of a study in the cache: a hash of its fields and of size and time of its files."""
    files = {key: _signature(study[key]) for key in PATH_KEYS if key in study}
    content = json.dumps([study, files], sort_keys=True, default=_plain)
    return hashlib.sha256(content.encode()).hexdigest()


def _signature(path: Any) -> FileSignature | None:
    """None for a path that cannot be read; the error belongs to the transform that reads it."""
    try:
        return file_signature(str(path))
    except (OSError, ScanError):
        return None


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else str(value)


def _preprocessed(study: Mapping[str, Any], steps: Compose) -> dict[str, Any]:
    return dict(steps(copy.deepcopy(dict(study))))


def fetch(task: FetchTask) -> tuple[dict[str, Any], str]:
    """Reads an entry, or makes it if it is missing or damaged, and logs the damage; with ``kept`` or ``made``.

    ScanError for an unusable scan.
    """
    path = Path(task.path)
    if path.is_file():
        try:
            return read_entry(path), "kept"
        except DamagedEntry as error:
            logger.warning("%s; it is made again", error)
    study = _preprocessed(task.study, task.steps)
    write_entry(path, study)
    return study, "made"


def fill(task: FetchTask) -> str:
    """Makes an entry, or checks the one on disk; returns ``made`` or ``kept``."""
    return fetch(task)[1]


def write_entry(path: Path, study: Mapping[str, Any]) -> None:
    """Writes a study; ValueError if a field is neither a tensor nor JSON, or the folder cannot be written to."""
    tensors = {
        name: torch.as_tensor(value).contiguous()
        for name, value in study.items()
        if isinstance(value, torch.Tensor | np.ndarray)
    }
    try:
        text = json.dumps({name: value for name, value in study.items() if name not in tensors})
    except TypeError as error:
        raise ValueError(f"study {study.get('id', '')}: {error}; a cached study holds tensors and JSON only") from error
    checks = {name: isal_zlib.crc32(_bytes_of(tensor)) for name, tensor in tensors.items()}
    metadata = {"study": text, "study_crc32": str(isal_zlib.crc32(text.encode())), "crc32": json.dumps(checks)}
    try:
        with atomic_path(path) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        problem = f"the cache cannot be written ({getattr(error, 'strerror', None) or error})"
        raise ValueError(f"{path.parent}: {problem}; free some space, or set another cache_dir") from error


def read_entry(path: Path) -> dict[str, Any]:
    """Reads a study, its tensors mapped privately; DamagedEntry if the file is truncated or a checksum differs."""
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
        raise DamagedEntry(f"{path}: cannot be read, it is truncated or damaged ({error})") from error


def _bytes_of(tensor: torch.Tensor) -> np.ndarray:
    """The bytes of a contiguous tensor of any type, without a copy."""
    return tensor.reshape(-1).view(torch.uint8).numpy()
