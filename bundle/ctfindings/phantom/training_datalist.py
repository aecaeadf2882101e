"""The datalist of a training: yours, or that of synthetic scans, which are made at their first use."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from bundle.ctfindings.phantom.dataset import make_dataset


def datalist_or_synthetic(
    datalist: str | Path | None, folder: str | Path, counts: Sequence[int], seed: int, rank: int
) -> Path:
    """The path of a datalist; without one, makes synthetic scans on rank 0 while the other ranks wait for them.

    Args:
        datalist: Your datalist; None for synthetic scans.
        folder: Folder of the synthetic scans, shared by all ranks.
        counts: Number of synthetic training, validation and test scans.
        seed: Random seed of the synthetic scans.
        rank: Rank of this process.

    Raises:
        ValueError: The folder holds synthetic scans with other settings, or cannot be written.
    """
    if datalist:
        return Path(datalist)
    while rank and not (Path(folder) / "datalist.json").is_file():
        time.sleep(0.5)
    training, validation, test = counts
    return make_dataset(Path(folder), training, validation, test, seed)
