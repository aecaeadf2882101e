"""Series of a DICOMweb server in a cache: fetched once, called by a UID that is one, and nothing is kept for those that
were fetched.
"""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

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
