"""Routes of the corrections, which need the key of the server because they hold the texts of reports; and the list of
scans, which says where there are some.
"""

from datetime import date
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Body, Request
from monailabel.interfaces.utils.app import app_instance

from .api_key import is_reader
from .corrections import agreement
from .datastores import SeriesDatastore
from .roles import ANNOTATOR, USER
from .scan_paths import scan_path
from .usage_error import UsageError

router = APIRouter()


@router.get("/corrections/", dependencies=[USER])
def corrections(request: Request, image: str = "", session_id: str = "") -> dict[str, Any]:
    """What readers said of a scan."""
    _check_reader(request)
    app = app_instance()
    path = Path(scan_path(app, image, session_id))
    return dict(app.corrections.read(_scan_id(app, image, session_id, path), path))


@router.put("/corrections/", dependencies=[ANNOTATOR])
def correct(
    request: Request, change: Annotated[dict[str, Any], Body()], image: str = "", session_id: str = ""
) -> dict[str, Any]:
    """Changes what the body names, and answers with all that is now kept of the scan.

    A scan that is in no folder of the server, uploaded or of a DICOMweb server, is kept with its first correction:
    voxels and geometry, without its header.
    """
    _check_reader(request)
    app = app_instance()
    path = Path(scan_path(app, image, session_id))
    copied = bool(session_id) or isinstance(app.datastore(), SeriesDatastore)
    return dict(
        app.corrections.change(
            _scan_id(app, image, session_id, path),
            path,
            change,
            app.service.answered(path).record,
            (lambda file: app.service.write_scan(path, file)) if copied else None,
        )
    )


@router.get("/corrections/agreement", dependencies=[USER])
def agreements(request: Request) -> dict[str, Any]:
    """How often readers agree with the model, by finding."""
    _check_reader(request)
    records = app_instance().corrections.all()
    return {"scans": len(records), "findings": agreement(records)}


@router.get("/datastore/scans", dependencies=[USER])
def scan_list() -> list[dict[str, Any]]:
    """The scans, each with the day of its file, what the model said since the server started, and whether a reader
    corrected it. Of a series the description, the day of the study and whether it was corrected are known, because a
    look at it would fetch it; names of patients are not asked for.
    """
    app = app_instance()
    datastore = app.datastore()
    remote = isinstance(datastore, SeriesDatastore)
    listed = []
    for image in sorted(datastore.list_images()):
        path = None if remote else Path(datastore.get_image_uri(image))
        if path is not None and not path.exists():
            continue  # Removed since the folder was listed.
        doubt = None if path is None else app.service.doubt(path)
        description, day = datastore.about(image) if path is None else ("", _day(path))
        listed.append(
            {
                "id": image,
                "description": description or None,
                "date": day or None,
                "present": None if doubt is None else doubt.present,
                "outside_domain": None if doubt is None else doubt.outside_domain,
                "corrected": app.corrections.has(image, path),
            }
        )
    return listed


def _day(path: Path) -> str:
    return date.fromtimestamp(path.stat().st_mtime).isoformat()


def _check_reader(request: Request) -> None:
    if not is_reader(request):
        raise UsageError(
            401, "corrections are shown and kept with the key of the server only; send 'Authorization: Bearer KEY'"
        )


def _scan_id(app: Any, image: str, session_id: str, path: Path) -> str:
    """The id of a scan of the datastore, or for an uploaded one a name made of its content."""
    return f"upload-{app.service.digest(path)[:16]}" if session_id else image
