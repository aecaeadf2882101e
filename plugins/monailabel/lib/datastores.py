"""Where scans come from: a folder, or a DICOMweb server; and that a full disk or a broken connection leaves no half
files there.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
import tempfile
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import requests
from filelock import FileLock
from monailabel.config import settings
from monailabel.datastore.dicom import DICOMWebDatastore
from monailabel.datastore.local import DataModel, ImageLabelModel, LocalDatastore
from monailabel.datastore.utils.dicom import dicom_web_download_series
from monailabel.interfaces.exception import ImageNotFoundException

from bundle.ctfindings.files.atomic_write import atomic_path, write_text
from bundle.ctfindings.inference.watch.archives import all_series, first_value

from .logs import SERVER_LOG
from .options import Options
from .usage_error import UsageError

logger = logging.getLogger(SERVER_LOG)

READ_ONLY = (
    "the DICOMweb server is read-only here: it accepts no scans, labels or study records; "
    "PUT /corrections/ keeps what a reader says of a series"
)

_UID = re.compile(r"(?=.{1,64}\Z)[0-9]+(\.[0-9]+)*")


def records_folder(options: Options, studies: Path) -> Path:
    """Where labels and study records of a folder of scans are kept: in ``work``, or with ``--writable`` in it."""
    if options.writable:
        return studies
    return options.work / "datastores" / _short_digest(str(studies))


def corrections_folder(options: Options, studies: str) -> Path:
    """Where the corrections of a folder of scans, or of a DICOMweb server, are kept: in ``work``."""
    remote = studies.startswith(("http://", "https://"))
    return options.work / "corrections" / _short_digest(studies.rstrip("/") if remote else str(Path(studies).resolve()))


def folder_datastore(options: Options, studies: Path, read_only: bool = False) -> FolderDatastore:
    """The datastore of a folder of scans; ValueError if its records cannot be read.

    Args:
        options: of the app.
        studies: the folder.
        read_only: whether the scans are those that the records name, without a look at the folder.
    """
    studies = studies.resolve()
    records = records_folder(options, studies)
    try:
        return FolderDatastore(
            records,
            images_dir="." if options.writable else str(studies),
            extensions=settings.MONAI_LABEL_DATASTORE_FILE_EXT,
            auto_reload=settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD and not read_only,
            read_only=read_only,
        )
    except ValueError as error:
        raise ValueError(
            f"{records}/datastore_v2.json: cannot be read; restore it, or move it away to start with an empty one"
        ) from error


class FolderDatastore(LocalDatastore):
    """MONAI Label's folder of scans, which writes each file whole or not at all.

    Args:
        datastore_path: folder of labels and study records.
        images_dir: folder of the scans; the same by default.
        settings: see ``LocalDatastore``.
    """

    def __init__(self, datastore_path: str | Path, images_dir: str = ".", **settings: Any) -> None:
        super().__init__(str(datastore_path), images_dir=images_dir, **settings)
        if self._auto_reload and images_dir != ".":  # The other folder is watched already.
            self._observer.schedule(self._handler, path=images_dir)

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        own_id, extension = self._to_id(os.path.basename(image_filename))
        image_id = image_id or own_id
        name = self._filename(image_id, extension)
        with FileLock(self._lock_file):
            _copy(image_filename, Path(self._datastore.image_path()) / name)
            info = {**(image_info or {}), "ts": int(time.time()), "name": name}
            self._datastore.objects[image_id] = ImageLabelModel(image=DataModel(info=info, ext=extension))
            self._update_datastore_file(lock=False)
        return image_id

    def save_label(self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any]) -> str:
        scan = self._datastore.objects.get(image_id)
        if scan is None:
            raise ImageNotFoundException(f"image {image_id!r} is not in the datastore")
        _, extension = self._to_id(os.path.basename(label_filename))
        name = self._filename(image_id, extension)
        with FileLock(self._lock_file):
            _copy(label_filename, Path(self._datastore.label_path(label_tag)) / name)
            info = {**(label_info or {}), "ts": int(time.time()), "name": name}
            scan.labels[label_tag] = DataModel(info=info, ext=extension)
            self._update_datastore_file(lock=False)
        return image_id

    def _update_datastore_file(self, lock: bool = True) -> None:
        with FileLock(self._lock_file) if lock else nullcontext():
            self._ignore_event_config = True
            content = self._datastore.model_dump(exclude={"base_path"})
            write_text(self._datastore_config_path, json.dumps(content, indent=2, default=str))
            self._config_ts = os.stat(self._datastore_config_path).st_mtime


class SeriesDatastore(DICOMWebDatastore):
    """The CT series of a DICOMweb server, to be read only. A series is in the cache with all images that the server had
    when it was fetched, or not at all; it is fetched again when the server lists another number of images.

    Labels and study records are refused: MONAI Label would send labels back to the DICOMweb server, and records have no
    place here.

    Args:
        client: of the DICOMweb server.
        search_filter: what is listed, such as ``{"Modality": "CT"}``.
        cache_path: folder of the fetched series.
    """

    def __init__(self, client: Any, search_filter: Mapping[str, Any], cache_path: str) -> None:
        # A lock lives as long as somebody fetches the series, or waits for it.
        self._fetching: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
        self._fetching_lock = threading.Lock()
        self._listed: tuple[float, dict[str, tuple[str, str]]] | None = None
        # When a series in the cache was last compared with the server, and the number of images for which it was
        # fetched again: a number that a fetch does not reach is not tried with each request.
        self._compared: dict[str, tuple[float, str]] = {}
        super().__init__(
            client=client, search_filter=dict(search_filter), cache_path=cache_path or None, convert_to_nifti=False
        )

    def get_image_uri(self, image_id: str) -> str:
        """Folder of a series, by its SeriesInstanceUID. Whether it is whole is asked again after
        ``MONAI_LABEL_DICOMWEB_CACHE_EXPIRY`` seconds; if it cannot be fetched again, what is in the cache is served.

        Raises:
            UsageError: when a series is not in the cache and the server knows none, or does not answer.
        """
        if not _UID.fullmatch(image_id):
            raise UsageError(404, f"image {image_id[:64]!r} is no SeriesInstanceUID")
        folder = Path(self._datastore.image_path()).resolve() / image_id
        with self._fetching_lock:
            lock = self._fetching.setdefault(image_id, threading.Lock())
        with lock:
            if not folder.is_dir():
                self._fetch(image_id, folder)
                self._compared[image_id] = (time.monotonic(), "")
            elif not self._is_whole(image_id, folder):
                try:
                    self._fetch(image_id, folder)
                except (OSError, UsageError) as error:
                    logger.warning("series not fetched again (%s); served as fetched", type(error).__name__)
                    self._compared[image_id] = (time.monotonic(), "")
            os.utime(folder)  # A series that is used stays.
        return str(folder)

    def list_images(self) -> list[str]:
        """SeriesInstanceUID of every series that the search finds; asked for again after
        ``MONAI_LABEL_DICOMWEB_CACHE_EXPIRY`` seconds.

        Raises:
            UsageError: when the server does not answer.
        """
        listed = self._listed  # Threads may ask twice; each of them gets a whole list.
        if listed is None or time.monotonic() - listed[0] > settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY:
            try:
                found = all_series(self._client, self._search_filter)
            except requests.RequestException as error:
                raise UsageError(
                    502, f"the DICOMweb server did not list its series ({type(error).__name__}); is it running?"
                ) from error
            about = {
                first_value(each, "0020000E"): (first_value(each, "0008103E"), first_value(each, "00080020"))
                for each in found
            }
            listed = (time.monotonic(), about)
            self._listed = listed
        return list(listed[1])

    def about(self, image_id: str) -> tuple[str, str]:
        """SeriesDescription and StudyDate (ISO 8601) of a listed series, empty where the server names none."""
        description, day = (self._listed or (0.0, {}))[1].get(image_id, ("", ""))
        return description, f"{day[:4]}-{day[4:6]}-{day[6:8]}" if len(day) == 8 and day.isdigit() else ""

    def get_labeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        """None: MONAI Label's own answer reads every segmentation of the DICOMweb server, one at a time."""
        return []

    def get_unlabeled_images(self, label_tag: str | None = None, labels: list[str] | None = None) -> list[str]:
        return self.list_images()

    def datalist(self, full_path: bool = True) -> list[dict[str, Any]]:
        return []

    def get_label_uri(self, label_id: str, label_tag: str, image_id: str = "") -> str:
        return ""

    def add_image(self, image_id: str, image_filename: str, image_info: dict[str, Any]) -> str:
        raise UsageError(400, READ_ONLY)

    def save_label(
        self, image_id: str, label_filename: str, label_tag: str, label_info: dict[str, Any], label_id: str = ""
    ) -> str:
        raise UsageError(400, READ_ONLY)

    def update_image_info(self, image_id: str, info: dict[str, Any]) -> None:
        raise UsageError(400, READ_ONLY)

    def json(self) -> dict[str, Any]:
        """All series of the DICOMweb server; MONAI Label's own answer names only those that were fetched."""
        listing: dict[str, Any] = super().json()
        for series in self.list_images():
            listing["objects"].setdefault(series, {"image": {"ext": "", "info": {}}, "labels": {}})
        return listing

    def _is_whole(self, series: str, folder: Path) -> bool:
        """Whether the cache has as many images of a series as the server lists, or was fetched for this number; true
        if the server lists none.
        """
        now, (compared, fetched_for) = time.monotonic(), self._compared.get(series, (-math.inf, ""))
        if now - compared <= settings.MONAI_LABEL_DICOMWEB_CACHE_EXPIRY:
            return True
        try:
            found = self._client.search_for_series(
                search_filters={"SeriesInstanceUID": series}, fields=["NumberOfSeriesRelatedInstances"]
            )
        except requests.RequestException as error:
            logger.warning("series not compared with the DICOMweb server (%s); served as fetched", type(error).__name__)
            found = []
        listed = next((first_value(each, "00201209") for each in found if first_value(each, "0020000E") == series), "")
        if listed in ("", fetched_for) or int(listed) == len(list(folder.iterdir())):
            self._compared[series] = (now, fetched_for)
            return True
        self._compared[series] = (now, listed)
        return False

    def _fetch(self, series: str, folder: Path) -> None:
        started = time.perf_counter()
        staging = Path(tempfile.mkdtemp(prefix=".partial-", dir=folder.parent))
        earlier = staging.with_name(f"{staging.name}-earlier")
        try:
            dicom_web_download_series(None, series, str(staging), self._client, self._fetch_by_frame)
            if not any(staging.iterdir()):
                raise UsageError(404, f"series {series} holds no images")
            if folder.is_dir():
                folder.rename(earlier)
            staging.rename(folder)
        except IndexError as error:
            raise UsageError(404, f"series {series} is not on the DICOMweb server") from error
        except requests.RequestException as error:
            raise UsageError(
                502, f"the DICOMweb server did not give the series ({type(error).__name__}); is it running?"
            ) from error
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            shutil.rmtree(earlier, ignore_errors=True)
        logger.info("series fetched in %.1f s", time.perf_counter() - started)


def _copy(source: str, target: Path) -> None:
    with atomic_path(target) as temporary:
        shutil.copyfile(source, temporary)


def _short_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
