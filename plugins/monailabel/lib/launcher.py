"""The command line of the server: checks the options, sets MONAI Label's own settings, and starts uvicorn."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import logging.config
import multiprocessing
import os
import socket
import sys
import tempfile
from collections.abc import Sequence
from multiprocessing import forkserver
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .compatibility import provide_storage_uids
from .key_file import key_from
from .logs import log_config
from .options import KEYS, Options, use_bundle
from .scan_files import SCAN_SUFFIXES
from .temporary import TEMPORARY, claim_work

if TYPE_CHECKING:
    from starlette.types import ASGIApp

APP_DIR = Path(__file__).resolve().parent.parent

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the server until it is stopped.

    Raises:
        SystemExit: with one line when it cannot start.
    """
    args = _parser().parse_args(arguments)
    try:
        options = _check(args)
        key = key_from(Path(args.api_key) if args.api_key else options.work / "api_key")
        lock = claim_work(options.work)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    print("Loading the server and the model ...", flush=True)
    _set_environment(args, options)
    use_bundle(options.bundle)
    provide_storage_uids()
    multiprocessing.set_forkserver_preload(
        ["lib.reader", "itk", "bundle.ctfindings.inference.output.dicom.segmentation"]
    )
    forkserver.ensure_running()  # It imports what reads scans, beside this process.

    import uvicorn

    from .loading import LoadingServer, Progress

    required = _requires_key(args, options)

    def load(tell: Progress) -> ASGIApp:
        from monailabel.interfaces.utils.app import app_instance

        from .server import create_server

        server = create_server(_allowed_hosts(args), options.limits, key, required)
        # MONAI Label's timer says in six lines that it has started, and sets its own level when it does.
        logging.getLogger("timeloop").addFilter(lambda record: args.verbose or record.levelno >= logging.WARNING)
        tell("model")
        app = app_instance()
        _ = app.service.findings
        app.server_mode(True)
        app.on_init_complete()
        return server

    logging.config.dictConfig(log_config(options.work / "server.log", args.verbose))
    config = uvicorn.Config(
        loading := LoadingServer(load, options.work / TEMPORARY),
        host=args.host,
        port=args.port,
        access_log=False,
        log_config=None,
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        limit_concurrency=int(options.limits.connections),
        timeout_graceful_shutdown=10,
    )
    try:
        loading.run(config)
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {' '.join(str(error).split())}") from None
    finally:
        lock.release()


def _requires_key(args: argparse.Namespace, options: Options) -> bool:
    """Whether clients need the key; prints where it is, and the warnings about what is not protected."""
    authenticated = os.environ.get("MONAI_LABEL_AUTH_ENABLE", "").lower() in ("1", "true", "yes", "on")
    required = not authenticated and (args.require_key or (args.host not in LOOPBACK and not args.insecure))
    warnings = [
        _exposure(args.host, required or authenticated, args.ssl_certfile is not None),
        _readable_by_others(options.work),
        _labels_left(args, options),
    ]
    for warning in filter(None, warnings):
        print(f"warning: {warning}", file=sys.stderr, flush=True)
    if required:
        print(f"Clients need the key in {args.api_key or options.work / 'api_key'}", flush=True)
    return bool(required)


def _parser() -> argparse.ArgumentParser:
    keys = "; ".join(f"{key}: {meaning}" for key, meaning in KEYS.items())
    parser = argparse.ArgumentParser(
        "start_server.py", description="MONAI Label server of CT Findings. Research only; not for diagnosis."
    )
    parser.add_argument("--studies", required=True, help="folder of scans, or address of a DICOMweb server")
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 127.0.0.1, this machine only, by default"
    )
    parser.add_argument("--port", type=int, default=8000, help="8000 by default")
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help=keys)
    parser.add_argument("--ssl-keyfile", help="key for HTTPS")
    parser.add_argument("--ssl-certfile", help="certificate for HTTPS")
    parser.add_argument("--writable", action="store_true", help="scans may be added to and removed from the folder")
    parser.add_argument(
        "--api-key", metavar="FILE", help="file with the key of the server; api_key of the work folder by default"
    )
    parser.add_argument("--require-key", action="store_true", help="ask for the key on this machine, too")
    parser.add_argument("--insecure", action="store_true", help="serve other machines without a key")
    parser.add_argument(
        "--verbose",
        action="store_true",
        help="log MONAI Label's messages as well, which hold names of files and ids of images",
    )
    return parser


def _check(args: argparse.Namespace) -> Options:
    """Everything that can be refused before the libraries are loaded."""
    if importlib.util.find_spec("monailabel") is None:
        raise ValueError("MONAI Label is not installed; see docs/administrator.md for the two commands")
    if args.writable:
        args.conf.append(("writable", "true"))
    options = Options.of(dict(args.conf))
    if not args.studies.startswith(("http://", "https://")):
        if not Path(args.studies).is_dir():
            raise ValueError(
                f"--studies {args.studies}: no such folder; give a folder of scans, or the address of a DICOMweb server"
            )
        if args.writable:
            _check_writable(f"--studies {args.studies}", Path(args.studies), "start without --writable")
    if not 1 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: a port is a number from 1 to 65535")
    _check_address(args.host, args.port)
    if (args.ssl_keyfile is None) != (args.ssl_certfile is None):
        raise ValueError("--ssl-keyfile and --ssl-certfile belong together; give both")
    if options.checkpoint is not None and not options.checkpoint.is_file():
        raise ValueError(f"--conf checkpoint: {options.checkpoint}: no such file; check the path")
    for overlay in options.overlays:
        if not (options.bundle / overlay).is_file():
            raise ValueError(
                f"--conf overlays: {overlay}: no such file in {options.bundle}; paths are relative to the bundle"
            )
    _make_work(options.work)
    return options


def _make_work(work: Path) -> None:
    """Uploads and fetched series lie there, which are images of patients: other users of this machine may not read
    them.
    """
    try:
        work.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--conf work: {work}: cannot be created ({error.strerror}); give another folder") from None
    _check_writable(f"--conf work: {work}", work, "give another folder")


def _check_writable(name: str, folder: Path, remedy: str) -> None:
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise ValueError(f"{name}: cannot be written to ({error.strerror}); {remedy}") from None


def _readable_by_others(work: Path) -> str | None:
    """A warning about a folder that was there before, whose mode is for its owner to change."""
    if os.name != "posix" or not work.stat().st_mode & 0o077:
        return None
    return f"--conf work: {work}: other users of this machine may read the scans in it; chmod 700 closes it"


def _exposure(host: str, authentication: bool, encryption: bool) -> str | None:
    """A warning about a server that other machines reach without a protection."""
    missing = [name for name, there in (("password", authentication), ("encryption", encryption)) if not there]
    if host in LOOPBACK or not missing:
        return None
    return (
        f"--host {host}: other machines reach this server, and its scans, without {' and without '.join(missing)}; "
        "see docs/administrator.md, Beyond this machine"
    )


def _labels_left(args: argparse.Namespace, options: Options) -> str | None:
    """A note about labels that an earlier version, or a writable server, kept beside the scans."""
    if options.writable or not (Path(args.studies) / "datastore_v2.json").is_file():
        return None
    return f"--studies {args.studies}: the labels and study records in it are not used; --writable uses them"


def _check_address(host: str, port: int) -> None:
    """Refuses an address where the server cannot listen, before the seconds that loading takes."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # As asyncio does: a port whose last connections are still closing is not in use.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{host}:{port}: cannot listen there ({reason}); give another --port or --host") from None


def _set_environment(args: argparse.Namespace, options: Options) -> None:
    """Settings that MONAI Label reads when it is imported, here and in the processes it starts. Those of the user's
    environment win.
    """
    remote = args.studies.startswith(("http://", "https://"))
    fixed = {
        "MONAI_LABEL_APP_DIR": str(APP_DIR),
        "MONAI_LABEL_STUDIES": args.studies if remote else str(Path(args.studies).resolve()),
        "MONAI_LABEL_APP_CONF": json.dumps(dict(args.conf)),
        "MONAI_LABEL_SERVER_PORT": str(args.port),
        # Loading the app must not load lib a second time: classes of errors would no longer be the same.
        "MONAI_LABEL_RELOAD_APP_LIB": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [str(options.bundle), str(APP_DIR), os.environ.get("PYTHONPATH")])),
    }
    defaults: dict[str, Any] = {
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps([f"*{suffix}" for suffix in SCAN_SUFFIXES]),
        "MONAI_LABEL_SESSION_PATH": str(options.work / "sessions"),
        "MONAI_LABEL_DICOMWEB_CACHE_PATH": str(options.work / "dicomweb"),
        # The bundle reads DICOM itself: slope of each image, gantry tilt, missing slices.
        "MONAI_LABEL_DICOMWEB_CONVERT_TO_NIFTI": "false",
        "MONAI_LABEL_DICOMWEB_CACHE_EXPIRY": "60",
        "MONAI_LABEL_AUTO_UPDATE_SCORING": "false",
        "HF_HUB_OFFLINE": "1",
    }
    os.environ.update(fixed)
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
    logging.captureWarnings(True)


def _allowed_hosts(args: argparse.Namespace) -> list[str]:
    """Names under which the server may be addressed: on the loopback only those, so that no web page can reach it by a
    name of its own.
    """
    return [*LOOPBACK, "[::1]"] if args.host in LOOPBACK else ["*"]
