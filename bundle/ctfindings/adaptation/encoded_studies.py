"""The scans that an adaptation learns from, encoded once by a frozen tower and cached."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from monai.transforms import MapTransform, Transform

from bundle.ctfindings.data.datalist import bare_studies, load_studies
from bundle.ctfindings.data.loaders import cached_dataset, fill_cache
from bundle.ctfindings.data.scan_cache import CachedStudies
from bundle.ctfindings.evaluation.evaluated_model import whole_scan_steps

Studies = list[dict[str, Any]]


class EncodedStudies:
    """The scans of a datalist, encoded once by a frozen tower and cached; labels are not part of the cache.

    Args:
        datalist: JSON file with the splits.
        splits: Splits whose scans are used.
        preprocessing: Image pipeline of whole scans.
        frozen_tokens: Step that adds the tokens: ``FrozenLevelsd``, or one of ``published``.
        cache_dir: Parent of the caches.
        cache_key: Parameters of the pipeline, see ``cached_dataset``.
        workers: Number of processes.
        scheduler: Address of a Dask scheduler; None for processes of this machine.
    """

    def __init__(
        self,
        datalist: str | Path | None,
        splits: Sequence[str],
        preprocessing: Sequence[Transform],
        frozen_tokens: MapTransform,
        cache_dir: str | Path,
        cache_key: Any,
        workers: int = 1,
        scheduler: str | None = None,
    ) -> None:
        if datalist is None:
            raise ValueError("datalist: expected a datalist of scans with labels; add --datalist (docs/datalist.md)")
        self.datalist, self.splits, self.workers, self.scheduler = Path(datalist), list(splits), workers, scheduler
        self.steps = [*whole_scan_steps(preprocessing), frozen_tokens]
        self.cache_dir, self.cache_key = cache_dir, cache_key

    def studies(self) -> Studies:
        """The studies of all splits; ValueError if there is none, or an id occurs twice."""
        studies = load_studies(self.datalist, self.splits)
        if not studies:
            raise ValueError(f"{self.datalist}: no study in {', '.join(self.splits)}; add some, or name other splits")
        return studies

    def dataset(self, studies: Studies) -> CachedStudies:
        """The cached scans of studies, in their order."""
        return cached_dataset(bare_studies(studies), self.steps, (), self.cache_dir, self.cache_key)

    def fill(self, studies: Studies) -> dict[str, str]:
        """Encodes the scans that the cache lacks; ``made``, ``kept`` or the reason of a failure, by study id."""
        return fill_cache([self.dataset(studies)], self.workers, self.scheduler)
