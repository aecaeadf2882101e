"""Data loaders: cached datasets of studies, and batches in an order that depends on the epoch alone."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DistributedSampler, MetaTensor, ThreadBuffer, ThreadDataLoader
from monai.transforms import CastToTyped, EnsureTyped, Randomizable, Transform
from torch.utils.data import DataLoader

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data.scan_cache import CachedStudies, fill
from bundle.ctfindings.data.study_record import MASK_KEYS, PATH_KEYS
from bundle.ctfindings.files.parallel_map import parallel_map


def cached_dataset(
    studies: Sequence[dict[str, Any]],
    preprocessing: Sequence[Transform],
    augmentation: Sequence[Transform] = (),
    cache_dir: str | Path | None = None,
    cache_key: Any = None,
) -> CachedStudies:
    """Dataset of studies whose deterministic steps run once per scan and are cached in half precision.

    Args:
        studies: from ``load_datalist``.
        preprocessing: the image pipeline, without random steps.
        augmentation: random transforms, which run at every access; ``keys`` names what one changes, the image if it has
            none.
        cache_dir: parent of the caches, one per pipeline (see ``describe``); None computes every scan at every access.
        cache_key: anything else that distinguishes this cache from others.

    Raises:
        ValueError: tokens of the images are cached, and a random transform would change the images or their masks.
    """
    changing = [
        type(step).__name__
        for step in augmentation
        if isinstance(step, Randomizable) and not set(PATH_KEYS).isdisjoint(getattr(step, "keys", PATH_KEYS))
    ]
    if changing and any(getattr(step, "encodes", False) for step in preprocessing):
        raise ValueError(
            f"augmentation: {changing[0]} changes the scan, but its tokens are cached; remove it from augmentation"
        )
    steps = [
        *preprocessing,
        CastToTyped(["image"], torch.float16),
        EnsureTyped(["image", *MASK_KEYS], track_meta=False, allow_missing_keys=True),
    ]
    return CachedStudies(studies, steps, augmentation, cache_dir, cache_key)


def fill_cache(datasets: Sequence[CachedStudies], workers: int = 1, scheduler: str | None = None) -> dict[str, str]:
    """Preprocesses the scans that the caches lack, and checks the cached ones; for the workers see ``parallel_map``.

    Returns ``made``, ``kept``, or the reason of the failure, by study id.
    """
    entries = [dataset.task(index) for dataset in datasets for index in range(len(dataset))]
    tasks = {task.path: task for task in entries}
    return {
        tasks[outcome.key].study["id"]: outcome.problem or outcome.result
        for outcome in parallel_map(fill, tasks, workers, scheduler, progress="cache")
    }


def collate_studies(studies: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Collates studies: tensors that every study has are stacked, other fields are lists over the studies.

    If only some studies of a batch have a mask, the others get an empty one, with ``anatomy_known`` false.
    """
    batch: dict[str, Any] = {}
    empty = {
        key: torch.zeros_like(study[key])
        for key in MASK_KEYS
        for study in studies
        if isinstance(study.get(key), torch.Tensor)
    }
    if "anatomy" in empty:
        empty["anatomy_known"] = torch.zeros(len(ANATOMY_NAMES), dtype=torch.bool)
    studies = [{**empty, **study} for study in studies]
    for key in sorted({key for study in studies for key in study}):
        values = [study.get(key) for study in studies]
        values = [value.as_tensor() if isinstance(value, MetaTensor) else value for value in values]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        batch[key] = torch.stack(tensors) if len(tensors) == len(values) else values
    return batch


class StudyLoader(ThreadDataLoader):
    """MONAI's loader, but an error in its thread is raised; ``ThreadBuffer`` takes it for the end of the data."""

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
    dataset: CachedStudies, batch_size: int, shuffle: bool = False, rank: int = 0, world_size: int = 1, seed: int = 0
) -> StudyLoader:
    """Loader whose thread prepares batches while the network computes; an empty dataset gives no batches.

    The order depends on the sampler's epoch alone (see ``EpochSeed``), so a resumed run sees the same batches.

    Args:
        batch_size: studies per batch and rank; ValueError below 1.
        shuffle: whether to shuffle, and to drop an incomplete last batch unless it is the only one.
        rank, world_size: this process and the number of processes; each gets its own share.
        seed: of the order, the same on all ranks.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    if not len(dataset):
        return StudyLoader(dataset, batch_size=batch_size, num_workers=0, collate_fn=collate_studies)
    sampler = DistributedSampler(
        dataset, even_divisible=shuffle, num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed
    )
    drop_last = shuffle and len(sampler) >= batch_size
    return StudyLoader(
        dataset, batch_size=batch_size, sampler=sampler, num_workers=0, drop_last=drop_last, collate_fn=collate_studies
    )
