"""Our routes in place of MONAI Label's: inference beside other requests, uploads that are whole or gone, training
refused in words.
"""

import json
import logging
import shutil
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, File, Form, Request, UploadFile
from fastapi.background import BackgroundTasks
from fastapi.responses import FileResponse, JSONResponse, Response
from monailabel.endpoints import train as stock_train
from monailabel.interfaces.utils.app import app_instance
from monailabel.utils.others.generic import remove_file
from requests_toolbelt import MultipartEncoder

from .api_key import is_reader
from .dicom_outputs import DICOM_OUTPUTS
from .disclosure import disclosed
from .json_fields import json_object
from .logs import SERVER_LOG
from .roles import ADMIN, USER
from .scan_paths import scan_path
from .uploads import received, saved, suffix_of
from .usage_error import UsageError

logger = logging.getLogger(SERVER_LOG)

router = APIRouter()

_RESERVED = ("model", "image", "label", "session", "output", "description", "save_label", "label_tag")
"""What ``params`` may not say: it would name files of the server, or another model."""

_MEDIA = {
    ".mrk.json": "application/json",
    ".nii.gz": "application/gzip",
    ".dcm": "application/dicom",
    ".zip": "application/zip",
}


@router.post("/infer/{model}", dependencies=[USER])
def infer(
    background: BackgroundTasks,
    model: str,
    image: str = "",
    session_id: str = "",
    params: Annotated[str, Form()] = "{}",
    file: Annotated[UploadFile | None, File()] = None,
    output: Literal["json", "image", "all", "dicom_seg", "dicom_sr", "dicom_sc", "dicom"] | None = None,
) -> Response:
    """Answers of one model for one scan: of the datastore, of a session, or sent along."""
    app = app_instance()
    if model not in app._infers:
        raise UsageError(404, f"model {model[:64]!r} is unknown; known are {', '.join(app._infers)}")
    request: dict[str, Any] = {**_params(params), "model": model, "output": output or "all"}
    if file is not None:
        with received(file) as path:
            request["image"] = str(path)
            return _answer(app, request, output, background)
    request["image"] = scan_path(app, image, session_id)
    return _answer(app, request, output, background)


@router.put("/session/", dependencies=[USER])
def create_session(files: Annotated[list[UploadFile], File()], expiry: int = 0) -> dict[str, Any]:
    """Keeps an uploaded scan, one file or the files of a DICOM series, until it has not been used for ``expiry``
    seconds.
    """
    app = app_instance()
    sessions = app.sessions()
    if sessions is None:
        raise UsageError(403, "sessions are switched off on this server")
    folder = Path(tempfile.mkdtemp(prefix="upload-"))
    session_id = str(uuid.uuid4())
    try:
        # Names of the client's files say nothing here, and may say who the patient is.
        if len(files) == 1:
            scan = saved(files[0], folder / f"scan{suffix_of(files[0])}")
        else:
            scan = folder / "series"
            scan.mkdir()
            for number, upload in enumerate(files):
                saved(upload, scan / f"{number:06d}.dcm")
        _, session = sessions.add_session(str(scan), expiry, session_id=session_id)
    except BaseException:
        sessions.pop(session_id, None)
        shutil.rmtree(Path(sessions.store_path) / session_id, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "session_id": session_id,
        "session_info": {"name": session.name, "create_ts": session.create_ts, "expiry": session.expiry},
    }


@router.post("/train/{model}", dependencies=[ADMIN])
def train(
    request: Request,
    model: str,
    params: dict[str, Any] | None = None,
    run_sync: bool = False,
    enqueue: bool = False,
) -> Any:
    """Starts the fine-tuning of a model in a process of its own."""
    app = app_instance()
    if model not in app._trainers:
        raise UsageError(404, f"model {model[:64]!r} cannot be trained; known are {', '.join(app._trainers)}")
    app._trainers[model].check(params or {}, app.datastore())
    return disclosed(stock_train.run_model(model, params, run_sync, enqueue), is_reader(request))


@router.delete("/train/", dependencies=[ADMIN])
def stop_training(request: Request) -> Any:
    """Ends a running fine-tuning; what it finished stays."""
    stopped = stock_train.stop()
    if stopped is None:
        raise UsageError(404, "no training is running")
    return disclosed(stopped, is_reader(request))


@router.get("/health")
async def health() -> dict[str, str]:
    """Whether the process answers; it does while it loads, too."""
    return {"status": "alive"}


@router.get("/ready")
async def ready() -> dict[str, str]:
    """Whether scans are answered; 503 with what is being loaded until then."""
    return {"status": "ready"}


@router.get("/", include_in_schema=False)
def about(request: Request) -> dict[str, str]:
    """What a browser sees that opens the server's address."""
    return {
        "name": "CT Findings",
        "notice": "Research only. Not a medical device; not for diagnosis.",
        "use": "Connect 3D Slicer to this address; /info/ lists the models and /openapi.json describes the interface.",
    }


def _params(text: str) -> dict[str, Any]:
    params = json_object("params", text, '{"query": "fluid around the lung"}')
    return {key: value for key, value in params.items() if key not in _RESERVED}


def _answer(app: Any, request: dict[str, Any], output: str | None, background: BackgroundTasks) -> Response:
    started = time.perf_counter()
    model = request["model"]
    result = app.infer(request)
    if result["file"]:
        background.add_task(remove_file, result["file"])
    answer = _response(model, result["file"], result["params"], output)
    logger.info("%s answered in %.3f s", model, time.perf_counter() - started)
    return answer


def _response(model: str, path: str | None, params: dict[str, Any], output: str | None) -> Response:
    """Params alone, the file alone, or both as multipart, which is what MONAI Label's clients expect."""
    if path is None or output == "json":
        return JSONResponse(params)
    suffix, media = next((end, kind) for end, kind in _MEDIA.items() if path.endswith(end))
    if output == "image" or output in DICOM_OUTPUTS:
        return FileResponse(path, media_type=media, filename=f"{model}{suffix}")
    content = Path(path).read_bytes()
    fields: dict[str, Sequence[Any]] = {
        "params": (None, json.dumps(params, allow_nan=False), "application/json"),
        "image": (f"{model}{suffix}", content, media),
    }
    message = MultipartEncoder(fields=fields)
    return Response(content=message.to_string(), media_type=message.content_type)
