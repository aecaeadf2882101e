"""The command line of the server: checks the options, sets MONAI Label's own settings, and starts uvicorn."""

from __future__ import annotations

import argparse
import importlib.util
import json
import logging
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .compatibility import provide_storage_uids
from .options import KEYS, Options, use_bundle

APP_DIR = Path(__file__).resolve().parent.parent

SCAN_PATTERNS = ["*.nii.gz", "*.nii", "*.nrrd", "*.mha", "*.zip"]
"""What counts as a scan in a folder of studies; a zip holds one DICOM series."""

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the server until it is stopped.

    Raises:
        SystemExit: with one line when it cannot start.
    """
    args = _parser().parse_args(arguments)
    try:
        options = _check(args)
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    _set_environment(args, options)
    use_bundle(options.bundle)
    provide_storage_uids()

    import uvicorn

    from .logs import log_config
    from .server import create_server

    server = create_server(_allowed_hosts(args))
    uvicorn.run(
        server,
        host=args.host,
        port=args.port,
        access_log=False,
        log_config=log_config(options.work / "server.log", args.verbose),
        ssl_keyfile=args.ssl_keyfile,
        ssl_certfile=args.ssl_certfile,
        timeout_graceful_shutdown=10,
    )


def _parser() -> argparse.ArgumentParser:
    keys = "; ".join(f"{key}: {meaning}" for key, meaning in KEYS.items())
    parser = argparse.ArgumentParser("start_server.py", description="MONAI Label server of CT Findings. Research only; not for diagnosis.")
    parser.add_argument("--studies", required=True, help="folder of scans, or address of a DICOMweb server")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; 127.0.0.1, this machine only, by default")
    parser.add_argument("--port", type=int, default=8000, help="8000 by default")
    parser.add_argument("--conf", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help=keys)
    parser.add_argument("--ssl-keyfile", help="key for HTTPS")
    parser.add_argument("--ssl-certfile", help="certificate for HTTPS")
    parser.add_argument(
        "--verbose", action="store_true", help="log MONAI Label's messages as well, which hold names of files and ids of images"
    )
    return parser


def _check(args: argparse.Namespace) -> Options:
    """Everything that can be refused before the libraries are loaded."""
    if importlib.util.find_spec("monailabel") is None:
        raise ValueError("MONAI Label is not installed; see docs/administrator.md for the two commands")
    options = Options.of(dict(args.conf))
    if not args.studies.startswith(("http://", "https://")) and not Path(args.studies).is_dir():
        raise ValueError(f"--studies {args.studies}: no such folder; give a folder of scans, or the address of a DICOMweb server")
    if not 1 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: a port is a number from 1 to 65535")
    _check_address(args.host, args.port)
    if (args.ssl_keyfile is None) != (args.ssl_certfile is None):
        raise ValueError("--ssl-keyfile and --ssl-certfile belong together; give both")
    if options.checkpoint is not None and not options.checkpoint.is_file():
        raise ValueError(f"--conf checkpoint: {options.checkpoint}: no such file")
    options.work.mkdir(parents=True, exist_ok=True)
    return options


def _check_address(host: str, port: int) -> None:
    """Refuses an address that cannot be listened on, before the seconds that loading takes."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name == "posix":  # As asyncio does: a port whose last connections are still closing is not in use.
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        reason = error.strerror or error
        raise ValueError(f"{host}:{port}: cannot be listened on ({reason}); give another --port or --host") from None


def _set_environment(args: argparse.Namespace, options: Options) -> None:
    """Settings that MONAI Label reads when it is imported, here and in the processes it starts. Those of the user's environment win."""
    remote = args.studies.startswith(("http://", "https://"))
    fixed = {
        "MONAI_LABEL_APP_DIR": str(APP_DIR),
        "MONAI_LABEL_STUDIES": args.studies if remote else str(Path(args.studies).resolve()),
        "MONAI_LABEL_APP_CONF": json.dumps(dict(args.conf)),
        "MONAI_LABEL_SERVER_PORT": str(args.port),
        # Loading the app must not load lib a second time: classes of errors would no longer be the same.
        "MONAI_LABEL_RELOAD_APP_LIB": "false",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(APP_DIR)])),
    }
    defaults: dict[str, Any] = {
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps(SCAN_PATTERNS),
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
    """Names under which the server may be addressed: on the loopback only those, so that no web page can reach it by a name of its own."""
    return [*LOOPBACK, "[::1]"] if args.host in LOOPBACK else ["*"]
