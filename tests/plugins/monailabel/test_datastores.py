"""Series of a DICOMweb server in a cache: fetched once and again when they grow, called by a UID that is one, and
nothing is kept for those that were fetched.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import requests
from pydicom.dataset import Dataset

from plugins.monailabel.lib.compatibility import provide_storage_uids
from plugins.monailabel.lib.usage_error import UsageError

provide_storage_uids()
from monailabel.config import settings  # noqa: E402

from plugins.monailabel.lib.application import CTFindingsApp  # noqa: E402
from plugins.monailabel.lib.datastores import SeriesDatastore, folder_datastore  # noqa: E402
from plugins.monailabel.lib.options import Options  # noqa: E402
from tests.ports import free_port  # noqa: E402


class Fetching(SeriesDatastore):
    """Without a server: a fetch waits until it may end, and leaves a folder."""

    def __init__(self, folder: Path) -> None:
        client = SimpleNamespace(base_url="http://127.0.0.1/dicom-web", search_for_series=lambda **_: [])
        self.may_end, self.fetched = threading.Event(), 0
        super().__init__(client, {}, str(folder))

    def _fetch(self, series: str, folder: Path) -> None:
        self.fetched += 1
        assert self.may_end.wait(60)
        folder.mkdir()


@pytest.fixture
def datastore(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path)


@pytest.mark.parametrize("name", ["..", ".", "1..2", ".1", "1.", "1.2\n", "1." * 32 + "1", "a", ""])
def test_what_is_no_uid_is_refused(name: str, datastore: Fetching) -> None:
    datastore.may_end.set()
    with pytest.raises(UsageError, match="is no SeriesInstanceUID"):
        datastore.get_image_uri(name)


def test_a_series_is_fetched_once_and_its_lock_is_forgotten(datastore: Fetching) -> None:
    uid = "1.2.840.10008"
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(datastore.get_image_uri, uid) for _ in range(4)]
        datastore.may_end.set()
        assert len({each.result() for each in asked}) == 1
    assert datastore.fetched == 1 and not datastore._fetching


class Growing:
    """A DICOMweb server with one series, of as many images as have arrived, and an empty one; its lists have one series
    a page.
    """

    base_url = "http://127.0.0.1/dicom-web"
    uid = "1.2.840.10008"

    def __init__(self) -> None:
        self.images, self.counts, self.searches, self.down = 2, True, 0, False
        self.extra, self.fetches, self.broken = 0, 0, False

    def search_for_series(self, search_filters: Any, fields: Any = None, offset: int = 0) -> list[Any]:
        self.searches += 1
        if self.down:
            raise requests.ConnectionError("refused")
        uids = [self.uid, "1.2.3"][offset : offset + 1]
        count = {"00201209": {"vr": "IS", "Value": [self.images + self.extra]}} if self.counts and fields else {}
        study = {"0020000D": {"vr": "UI", "Value": ["1.2"]}}
        return [{"0020000E": {"vr": "UI", "Value": [uid]}, **study, **count} for uid in uids]

    def retrieve_series(self, study: str, series: str) -> list[Any]:
        self.fetches += 1
        if self.broken:
            raise requests.ConnectionError("reset")
        return [_image(number) for number in range(self.images)]


def _image(number: int) -> Dataset:
    image = Dataset()
    image.SOPInstanceUID = f"1.{number}"
    image.save_as = lambda path: Path(path).write_bytes(b"image")
    return image


def test_a_series_that_was_fetched_while_it_arrived_is_fetched_again_when_there_are_more_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen() -> int:
        return len(list(Path(datastore.get_image_uri(archive.uid)).iterdir()))

    archive = Growing()
    datastore = SeriesDatastore(archive, {}, str(tmp_path))
    assert seen() == 2
    archive.images = 5
    assert seen() == 2, "compared with the server when it was fetched"
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY", -1)
    assert seen() == 5
    monkeypatch.undo()
    archive.images = 6
    assert seen() == 5, "asked again only after the time that lists are kept"
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY", -1)
    assert seen() == 6
    archive.images, archive.counts = 7, False
    assert seen() == 6, "a server that counts nothing is not asked for the images again"
    archive.counts, archive.down = True, True
    assert seen() == 6, "a series in the cache is served though the server is gone"
    folder = Path(datastore.get_image_uri(archive.uid))
    assert [path.name for path in folder.parent.iterdir() if path.name.startswith(".partial")] == []


def test_a_series_whose_number_of_images_never_agrees_is_fetched_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY", -1)
    archive = Growing()
    archive.extra = 1  # an object that is listed and never given
    datastore = SeriesDatastore(archive, {}, str(tmp_path))
    for _ in range(4):
        assert len(list(Path(datastore.get_image_uri(archive.uid)).iterdir())) == 2
    assert archive.fetches == 2
    archive.images = 3
    for _ in range(2):
        assert len(list(Path(datastore.get_image_uri(archive.uid)).iterdir())) == 3
    assert archive.fetches == 3


def test_a_series_that_cannot_be_fetched_again_is_served_as_it_is_and_tried_again_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seen() -> int:
        return len(list(Path(datastore.get_image_uri(archive.uid)).iterdir()))

    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY", -1)
    archive = Growing()
    datastore = SeriesDatastore(archive, {}, str(tmp_path))
    seen()
    archive.images, archive.broken = 5, True
    assert seen() == 2 and archive.fetches == 2
    monkeypatch.undo()
    assert seen() == 2 and archive.fetches == 2, "not tried with each request"
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY", -1)
    archive.broken = False
    assert seen() == 5


def test_a_list_in_pages_is_read_to_its_end(tmp_path: Path) -> None:
    assert SeriesDatastore(Growing(), {}, str(tmp_path)).list_images() == [Growing.uid, "1.2.3"]


def test_a_server_that_is_down_is_told_within_the_time_that_clients_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(settings, "MONAI_LABEL_DICOMWEB_CACHE_PATH", str(tmp_path))
    app = SimpleNamespace(studies=f"http://127.0.0.1:{free_port()}/dicom-web")
    series = CTFindingsApp._init_dicomweb_datastore(app)  # type: ignore[arg-type]
    started = time.monotonic()
    with pytest.raises(UsageError, match="did not list its series") as refused:
        series.list_images()
    assert refused.value.status == 502 and time.monotonic() - started < 60


def test_a_damaged_list_of_labels_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "datastore_v2.json").write_text("{")
    options = Options.of({"work": str(tmp_path / "work"), "writable": "true"})
    with pytest.raises(ValueError, match=r"datastore_v2\.json: cannot be read; restore it, or move it away"):
        folder_datastore(options, tmp_path)
