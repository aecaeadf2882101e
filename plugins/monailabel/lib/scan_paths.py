"""The scan that a request names: of the datastore, or uploaded into a session."""

import logging
import os
import time
from pathlib import Path
from typing import Any

from monailabel.datastore.local import LocalDatastore

from bundle.ctfindings.files.atomic_write import write_text

from .datastores import SeriesDatastore
from .logs import SERVER_LOG
from .session_store import is_session_id
from .usage_error import UsageError

logger = logging.getLogger(SERVER_LOG)


def scan_path(app: Any, image: str, session_id: str) -> str:
    """File or folder of a scan; a session wins over an image.

    Raises:
        UsageError: if no scan was named, or the server has none of that name.
    """
    if session_id:
        return _session_image(app, session_id)
    if image:
        return _datastore_image(app, image)
    raise UsageError(400, "no scan was named; give image=ID or session_id=ID; /infer takes a file as well")


def _datastore_image(app: Any, image: str) -> str:
    datastore = app.datastore()
    if (
        isinstance(datastore, LocalDatastore)
        and not isinstance(datastore, SeriesDatastore)
        and image not in datastore.list_images()
    ):
        raise UsageError(
            404, f"image {image[:100]!r} is not in the datastore; GET /datastore/?output=all lists what is"
        )
    if isinstance(datastore, SeriesDatastore):  # It may have to be fetched, which takes a thread for as long.
        with app.service.admission.place():
            return str(datastore.get_image_uri(image))
    path = str(datastore.get_image_uri(image))
    if not os.path.exists(path):
        raise UsageError(404, f"image {image[:100]!r} was removed from the datastore")
    return path


def _session_image(app: Any, session_id: str) -> str:
    sessions = app.sessions()
    session = None
    if sessions is not None and is_session_id(session_id):
        session = sessions.get_session(session_id, update_ts=False)
    if session is None:
        raise UsageError(404, "the session is unknown or has expired; upload the scan again")
    session.last_access_ts = int(time.time())
    # MONAI Label writes this file in place; a full disk would empty it, and the session with it.
    meta = Path(sessions.store_path) / session_id / "meta.info"
    try:
        write_text(meta, session.to_str())
    except OSError as error:
        logger.warning(
            "the time of use of a session could not be written (%s); it may expire early", type(error).__name__
        )
    return str(session.image)
