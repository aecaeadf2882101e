"""From a datalist to batches: preprocessed once and cached on disk, augmented anew every epoch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from monai.data import DistributedSampler, PersistentDataset, ThreadDataLoader
from monai.transforms import CastToTyped, Compose, EnsureTyped, Transform

from bundle.ctfindings import __version__
from bundle.ctfindings.data import MASK_KEYS, collate_studies


def cached_dataset(
    studies: Sequence[dict[str, Any]],
    preprocessing: Sequence[Transform],
    augmentation: Sequence[Transform] = (),
    cache_dir: str | Path | None = None,
    cache_key: Any = None,
) -> PersistentDataset:
    """Studies as tensors; the deterministic steps run once per scan and are kept in half precision.

    Args:
        studies: from ``load_datalist``.
        preprocessing: the image pipeline.
        augmentation: random transforms, run at every access.
        cache_dir: folder of the cache; None computes every scan at every access.
        cache_key: the pipeline's parameters; another value uses another subfolder, so a changed pipeline never reads stale scans.
    """
    steps = [
        *preprocessing,
        CastToTyped(["image"], torch.float16),
        EnsureTyped(["image", *MASK_KEYS], track_meta=False, allow_missing_keys=True),
        *augmentation,
    ]
    folder = None
    if cache_dir is not None:
        pipeline = [__version__, cache_key, [type(step).__name__ for step in preprocessing]]
        digest = hashlib.sha256(json.dumps(pipeline, sort_keys=True, default=str).encode()).hexdigest()[:12]
        folder = Path(cache_dir) / digest
    return PersistentDataset(list(studies), Compose(steps), cache_dir=folder, hash_func=study_digest)


def study_digest(study: Mapping[str, Any]) -> bytes:
    """Name of a study in the cache: a hash of all it says and of the size and date of its files, the same in every process.

    MONAI's own hash is of the pickle, in which a tensor of torch has another name in every process.
    """
    files = {key: _file_stamp(study[key]) for key in ("image", *MASK_KEYS) if key in study}
    content = json.dumps([study, files], sort_keys=True, default=_plain)
    return hashlib.sha256(content.encode()).hexdigest().encode()


def _file_stamp(path: Any) -> list[int]:
    """Size in bytes and date of change in ns; nothing for what is not there, whose reader says so better."""
    try:
        status = Path(str(path)).stat()
    except OSError:
        return []
    return [status.st_size, status.st_mtime_ns]


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor) else str(value)


def study_loader(
    dataset: PersistentDataset, batch_size: int, shuffle: bool = False, rank: int = 0, world_size: int = 1
) -> ThreadDataLoader:
    """Batches of studies, prepared by a thread while the network computes.

    The order depends on the sampler's epoch alone (see ``EpochSeed``), so that a resumed run sees the batches it would have seen.

    Args:
        dataset: the studies.
        batch_size: studies per batch and rank.
        shuffle: whether to shuffle, and drop an incomplete last batch.
        rank: of this process.
        world_size: number of processes; each gets its own share.
    """
    sampler = DistributedSampler(dataset, even_divisible=shuffle, num_replicas=world_size, rank=rank, shuffle=shuffle)
    return ThreadDataLoader(dataset, batch_size=batch_size, sampler=sampler, num_workers=0, drop_last=shuffle, collate_fn=collate_studies)
