"""MONAI Label's own answers behind routes of ours: those that clients use, each in a thread, with what they are sent
checked first.

MONAI Label's routes are coroutines that wait for disks and for other servers, so that one of them holds up every other
request. Left out are those for batches, scores, weights and archives of the whole datastore, which nothing here uses
and which write files of their own.
"""

from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Request, UploadFile
from monailabel.endpoints import activelearning, datastore, session, train
from monailabel.endpoints.user.auth import User
from monailabel.interfaces.datastore import DefaultLabelTag
from monailabel.interfaces.utils.app import app_instance

from bundle.ctfindings.networks.checkpoint import sha256_of

from .api_key import is_reader
from .datastores import READ_ONLY, SeriesDatastore
from .disclosure import disclosed
from .json_fields import json_object
from .names import is_id
from .roles import ADMIN, ANNOTATOR, USER
from .scan_files import scan_suffix
from .session_store import is_session_id
from .taught_studies import STUDY, check_taught
from .uploads import received
from .usage_error import UsageError

router = APIRouter()


@router.get("/info/", dependencies=[USER])
def info() -> Any:
    """Models, training and datastore of this server."""
    return app_instance().info()


@router.get("/datastore/", dependencies=[USER])
def scans(request: Request, output: datastore.ResultType | None = None) -> Any:
    """Counts of scans and labels, or with ``output=all`` each of them."""
    return disclosed(datastore.datastore(output), is_reader(request))


@router.put("/datastore/", include_in_schema=False)
@router.put("/datastore/image")
def add_image(
    file: Annotated[UploadFile, File()],
    image: str | None = None,
    params: Annotated[str, Form()] = "{}",
    user: User = ANNOTATOR,
) -> Any:
    """Adds a scan to the folder, if the server was started with ``--writable``."""
    app = app_instance()
    info = json_object("params", params, '{"source": "trial"}')
    _check_writable(app)
    image_id = image or str(file.filename or "")
    image_id = image_id.removesuffix(scan_suffix(image_id) or "")
    if not image_id or not is_id(image_id):
        raise UsageError(400, "image: give an id of letters, digits, '.', '_' and '-'")
    if image_id in app.datastore().list_images():
        raise UsageError(409, f"image {image_id!r} is in the datastore, and is not overwritten; give another id")
    with received(file) as path:
        app.service.check_scan(path)
        return {"image": app.datastore().add_image(image_id, str(path), {**info, "user": user.username})}


@router.delete("/datastore/", include_in_schema=False)
@router.delete("/datastore/image")
def remove_image(id: str, user: User = ADMIN) -> Any:
    """Removes a scan with its labels, if the server was started with ``--writable``."""
    _check_writable(app_instance())
    removed = datastore.remove_image(id, user.username)
    app_instance().corrections.forget(id)
    return removed


@router.head("/datastore/image", dependencies=[USER])
def check_image(image: str, check_sum: str | None = None) -> Any:
    """Whether there is such a scan."""
    _refuse_series()
    answer = datastore.download_image(image, check_only=True)
    path = Path(app_instance().datastore().get_image_uri(image))
    if check_sum and check_sum.upper().removeprefix("SHA256:") != sha256_of(path).upper():
        raise UsageError(404, "the scan has another SHA-256")
    return answer


@router.get("/datastore/image", dependencies=[USER])
def download_image(image: str) -> Any:
    """The file of a scan."""
    _refuse_series()
    return datastore.download_image(image)


@router.get("/datastore/image/info", dependencies=[USER])
def image_info(request: Request, image: str) -> Any:
    """What is known of a scan."""
    return disclosed(datastore.get_image_info(image), is_reader(request))


@router.put("/datastore/image/info")
def update_image_info(image: str, info: Annotated[str, Form()] = "{}", user: User = ANNOTATOR) -> Any:
    """Adds to what is known of a scan; its ``study`` is what fine-tuning reads."""
    content = json_object("info", info, '{"study": {"report": {"findings": "Clear lungs."}}}')
    if STUDY in content:
        check_taught(image, content[STUDY])
    return datastore.update_image_info(image, info, user.username)


@router.put("/datastore/label")
def save_label(
    image: str,
    label: Annotated[UploadFile, File()],
    params: Annotated[str, Form()] = "{}",
    tag: str = DefaultLabelTag.FINAL.value,
    user: User = ANNOTATOR,
) -> Any:
    """Keeps an anatomy mask of a scan, on its grid."""
    app = app_instance()
    info = json_object("params", params, '{"label_info": []}')
    if isinstance(app.datastore(), SeriesDatastore):
        raise UsageError(400, READ_ONLY)
    if not is_id(tag):
        raise UsageError(400, "tag: give letters, digits, '.', '_' and '-', such as final")
    if image not in app.datastore().list_images():
        raise UsageError(404, f"image {image!r} is not in the datastore; GET /datastore/?output=all lists what is")
    with received(label) as path:
        app.service.check_mask(path, Path(app.datastore().get_image_uri(image)))
        saved = app.datastore().save_label(image, str(path), tag, {**info, "user": user.username})
    app.on_save_label(image, saved)
    return {"image": image, "label": saved}


@router.delete("/datastore/label")
def remove_label(id: str, tag: str, user: User = ADMIN) -> Any:
    """Removes a label."""
    return datastore.remove_label(id, tag, user.username)


@router.head("/datastore/label", dependencies=[USER])
def check_label(image: str, tag: str) -> Any:
    """Whether there is such a label."""
    return datastore.download_label(image, tag, check_only=True)


@router.get("/datastore/label", dependencies=[USER])
def download_label(label: str, tag: str) -> Any:
    """The file of a label."""
    return datastore.download_label(label, tag)


@router.get("/datastore/label/info", dependencies=[USER])
def label_info(request: Request, label: str, tag: str) -> Any:
    """What is known of a label."""
    return disclosed(datastore.get_label_info(label, tag), is_reader(request))


@router.put("/datastore/label/info")
def update_label_info(label: str, tag: str, info: Annotated[str, Form()] = "{}", user: User = ANNOTATOR) -> Any:
    """Adds to what is known of a label."""
    json_object("info", info, '{"checked": true}')
    return datastore.update_label_info(label, tag, info, user.username)


@router.get("/session/{session_id}", dependencies=[USER])
def get_session(session_id: str, update_ts: bool = False) -> Any:
    """Whether an uploaded scan is still kept."""
    _check_session(session_id)
    return disclosed(session.get_session(session_id, update_ts, False), reader=False)


@router.delete("/session/{session_id}", dependencies=[USER])
def remove_session(session_id: str) -> Any:
    """Removes an uploaded scan."""
    _check_session(session_id)
    return session.remove_session(session_id)


@router.post("/activelearning/{strategy}")
def next_sample(request: Request, strategy: str, params: dict[str, Any] | None = None, user: User = USER) -> Any:
    """A scan without a label: the first by id, or a random one."""
    return disclosed(activelearning.sample(strategy, params, user.username), is_reader(request))


@router.get("/train/", dependencies=[USER])
def training_status(request: Request, all: bool = False, check_if_running: bool = False) -> Any:
    """How far a fine-tuning is."""
    return disclosed(train.status(all, check_if_running), is_reader(request))


def _check_writable(app: Any) -> None:
    if isinstance(app.datastore(), SeriesDatastore):
        raise UsageError(400, READ_ONLY)
    if not app.options.writable:
        raise UsageError(403, "the folder of scans is read-only here; the administrator can start with --writable")


def _refuse_series() -> None:
    """Before the series is fetched, which is a folder of files."""
    if isinstance(app_instance().datastore(), SeriesDatastore):
        raise UsageError(404, "a series of a DICOMweb server is not one file; ask the model 'scan' for its voxels")


def _check_session(session_id: str) -> None:
    if not is_session_id(session_id):
        raise UsageError(404, "the session is unknown or has expired; upload the scan again")
