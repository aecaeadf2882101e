"""From a datalist to batches: preprocessed once and cached on disk, augmented anew every epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DistributedSampler, ThreadBuffer, ThreadDataLoader
from monai.transforms import CastToTyped, EnsureTyped, Transform
from torch.utils.data import DataLoader

from bundle.ctfindings.data.datalist import MASK_KEYS, collate_studies
from bundle.ctfindings.data.scan_cache import CachedStudies, fill
from bundle.ctfindings.files.parallel_map import parallel_map
from bundle.ctfindings.files.fingerprint import FileSignature, file_signature


def cached_dataset(
    studies: Sequence[dict[str, Any]],
    preprocessing: Sequence[Transform],
    augmentation: Sequence[Transform] = (),
    cache_dir: str | Path | None = None,
    cache_key: Any = None,
) -> CachedStudies:
    """Studies as tensors; the deterministic steps run once per scan and are kept in half precision.

    Args:
        studies: from ``load_datalist``.
        preprocessing: the image pipeline, without random steps.
        augmentation: random transforms, run at every access.
        cache_dir: folder of the cache; None computes every scan at every access. Each pipeline has a subfolder, named
            by the classes and parameters of all its steps and by the versions of the code, so that other steps never
            read its scans. What a step calls may change within a version without another name: see ``describe``.
        cache_key: anything else that should tell one cache from another.
    """
    steps = [
        *preprocessing,
        CastToTyped(["image"], torch.float16),
        EnsureTyped(["image", *MASK_KEYS], track_meta=False, allow_missing_keys=True),
    ]
    return CachedStudies(studies, steps, augmentation, cache_dir, cache_key, study_digest)


def fill_cache(datasets: Sequence[CachedStudies], workers: int = 1, scheduler: str | None = None) -> dict[str, str]:
    """Preprocesses what the caches of the datasets lack, and checks what they have; a run that was stopped goes on
    where it was.

    Args:
        workers, scheduler: see ``parallel_map``.

    Returns:
        What became of each entry, by study id: ``made``, ``kept``, or one line on why it failed.
    """
    ids: dict[str, str] = {}
    tasks = {}
    for dataset in datasets:
        for index, study in enumerate(dataset.data):
            task = dataset.task(index)
            ids[task.path], tasks[task.path] = study["id"], task
    return {
        ids[outcome.key]: outcome.problem or outcome.result
        for outcome in parallel_map(fill, tasks, workers, scheduler, progress="cache")
    }


def study_digest(study: Mapping[str, Any]) -> str:
    """Name of a study in the cache: a hash of all it says and of the size and date of its files, the same in every
    process.
    """
    files = {key: _signature(study[key]) for key in ("image", *MASK_KEYS) if key in study}
    content = json.dumps([study, files], sort_keys=True, default=_plain)
    return hashlib.sha256(content.encode()).hexdigest()


def _signature(path: Any) -> FileSignature | None:
    """Of a file or folder; None for what cannot be asked, whose reader says so better."""
    try:
        return file_signature(str(path))
    except OSError:
        return None


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else str(value)


class StudyLoader(ThreadDataLoader):
    """MONAI's loader, whose thread hands on what it raises.

    ``ThreadBuffer`` takes the end of its thread for the end of the data: a scan that cannot be read would end the epoch
    before it, and the run would go on without a word.
    """

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        failures: list[Exception] = []
        yield from ThreadBuffer(
            _until_failure(DataLoader.__iter__(self), failures), self.buffer_size, self.buffer_timeout
        )
        if failures:
            raise failures[0]


def _until_failure(batches: Iterable[Any], failures: list[Exception]) -> Iterator[Any]:
    try:
        yield from batches
    except Exception as error:
        failures.append(error)


def study_loader(
    dataset: CachedStudies, batch_size: int, shuffle: bool = False, rank: int = 0, world_size: int = 1
) -> StudyLoader:
    """Batches of studies, prepared by a thread while the network computes.

    The order depends on the sampler's epoch alone (see ``EpochSeed``), so that a resumed run sees the batches it would
    have seen.

    Args:
        dataset: the studies; of none there are no batches.
        batch_size: studies per batch and rank.
        shuffle: whether to shuffle, and drop an incomplete last batch where it is not the only one.
        rank: of this process.
        world_size: number of processes; each gets its own share.

    Raises:
        ValueError: when a batch would have no study.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: {batch_size} was given; a batch needs at least 1 study")
    if not len(dataset):
        return StudyLoader(dataset, batch_size=batch_size, num_workers=0, collate_fn=collate_studies)
    sampler = DistributedSampler(dataset, even_divisible=shuffle, num_replicas=world_size, rank=rank, shuffle=shuffle)
    drop_last = shuffle and len(sampler) >= batch_size
    return StudyLoader(
        dataset, batch_size=batch_size, sampler=sampler, num_workers=0, drop_last=drop_last, collate_fn=collate_studies
    )
