"""Active learning: the next scan to read is the one that the model is least sure of, or does not know the kind of."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.datastore import Datastore
from monailabel.interfaces.tasks.strategy import Strategy

from bundle.ctfindings.files.errors import ScanError

from .corrections import CorrectionStore
from .datastores import SeriesDatastore
from .doubt import Doubt
from .scan_identity import Signature, signature_of
from .scan_service import ScanService
from .usage_error import UsageError

NEW_SCANS = 4
"""Scans without an answer that a request encodes, by default; its parameter ``encode`` says another number."""


class LeastSure(Strategy):
    """Offers scans outside the domain of the weights first, then those with the largest entropy of their decisions.
    Scans with a correction or a final label are left out.

    Scans that the server has answered are compared at once. Those that it has not are encoded first, a few with each
    request in the order of their ids, so that the choice is among more scans each time.

    Args:
        service: which knows the answered scans.
        corrections: of the readers.
    """

    def __init__(self, service: ScanService, corrections: CorrectionStore) -> None:
        super().__init__("Scans that the model is least sure of, or that are outside its domain")
        self._service = service
        self._corrections = corrections
        self._paths: dict[str, Path] = {}
        self._unreadable: dict[str, Signature] = {}

    def __call__(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any] | None:
        limit = request.get("encode", NEW_SCANS)
        if isinstance(limit, bool) or not isinstance(limit, int) or not 0 <= limit <= 100:
            raise UsageError(400, f"encode: expected a number from 0 to 100, got {str(limit)[:40]!r}")
        unlabeled = sorted(datastore.get_unlabeled_images())
        images = [image for image in unlabeled if not self._corrections.has(image, self._path(image, datastore))]
        doubts = {image: self._known(image, datastore) for image in images if not self._failed(image)}
        for image in [image for image, doubt in doubts.items() if doubt is None][:limit]:
            doubts[image] = self._encoded(image, datastore)
        known = {image: doubt for image, doubt in doubts.items() if doubt is not None}
        if not known:
            return None
        chosen = max(known, key=lambda image: known[image])
        doubt = known[chosen]
        return {
            "id": chosen,
            "outside_domain": doubt.outside_domain,
            "entropy": round(doubt.entropy, 6),
            "compared": len(known),
            "waiting": len(doubts) - len(known),
        }

    def _known(self, image: str, datastore: Datastore) -> Doubt | None:
        path = self._path(image, datastore)
        return self._service.doubt(path) if path else None

    def _path(self, image: str, datastore: Datastore) -> Path | None:
        """Of a scan; None for a series that was not asked for before, because to ask for its path would fetch it."""
        if isinstance(datastore, SeriesDatastore):
            return self._paths.get(image)
        return Path(datastore.get_image_uri(image))

    def _failed(self, image: str) -> bool:
        """Whether the files that could not be read are still the same."""
        try:
            return image in self._unreadable and signature_of(self._paths[image]) == self._unreadable[image]
        except (OSError, ScanError):
            return False

    def _encoded(self, image: str, datastore: Datastore) -> Doubt | None:
        try:
            self._paths[image] = path = Path(datastore.get_image_uri(image))
            self._service.answered(path)
        except UsageError as error:
            if error.status in (413, 422):  # It will not be readable next time either.
                self._unreadable[image] = signature_of(path)
            return None
        return self._service.doubt(path)
