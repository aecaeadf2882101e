"""The command line of the viewer: checks the options, then builds scene and page and serves them."""

import argparse
import ctypes.util
import importlib.util
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

from ctfindings_client.formats import SCAN_SUFFIXES, scan_suffix
from ctfindings_client.transport import LOOPBACK, ServerError, clean_address, is_private

FAREWELL_SECONDS = 2.0
"""How long the viewer waits at its end for the server to hear that an uploaded scan is no longer needed."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Serves the viewer until it is stopped.

    Raises:
        SystemExit: with one line when it cannot start.
    """
    args = _parser().parse_args(arguments)
    try:
        check(args)
        key = args.api_key.read_text(encoding="utf-8").strip() if args.api_key else ""
    except ValueError as error:
        raise SystemExit(f"error: {error}") from None
    except OSError as error:
        raise SystemExit(f"error: --api-key {args.api_key}: cannot be read ({error.strerror})") from None
    if args.host not in LOOPBACK:
        print(
            f"warning: --host {args.host}: other machines can reach this viewer and its scans without password or "
            "encryption, under this name and those of --allowed-host; see docs/viewer.md, What leaves the computer",
            file=sys.stderr,
            flush=True,
        )

    print("Loading the viewer ...", flush=True)
    draw_without_a_screen()

    from trame.app import get_server

    from .guard import protect
    from .viewer import Viewer

    server = get_server("CT Findings", client_type="vue3")
    protect(server, {*LOOPBACK, args.host, *args.allowed_host})
    viewer = Viewer(server, clean_address(args.server), key)
    viewer.start(args.scan)
    shown_host = "127.0.0.1" if args.host in LOOPBACK else args.host
    print(f"CT Findings viewer: http://{shown_host}:{args.port}/ (research only, not a diagnosis)")
    sys.argv = sys.argv[:1]  # trame would read the options again, with other meanings
    try:
        server.start(
            port=args.port,
            host=args.host,
            exec_mode="main",
            open_browser=args.open_browser,
            show_connection_info=False,
            timeout=0,
        )
    finally:
        viewer.studies.farewell(FAREWELL_SECONDS)


def check(args: argparse.Namespace) -> None:
    """Everything that can be refused before the libraries are loaded.

    Raises:
        ValueError: names the option and the remedy.
    """
    if importlib.util.find_spec("trame_slicer") is None:
        raise ValueError(
            "trame-slicer is not installed in this environment; run 'make viewer', then .venv-viewer/bin/python"
        )
    try:
        clean_address(args.server)
    except ServerError as error:
        raise ValueError(f"--server: {error}") from None
    if args.api_key is not None:
        if not args.api_key.is_file():
            raise ValueError(f"--api-key {args.api_key}: no such file; the server keeps its key in work/api_key")
        if not is_private(args.server):
            raise ValueError(f"--server {args.server}: a key is only sent over https; give an https address")
    if not 1 <= args.port <= 65535:
        raise ValueError(f"--port {args.port}: a port is a number from 1 to 65535")
    if args.scan is not None:
        if not args.scan.is_file():
            raise ValueError(f"--scan {args.scan}: no such file")
        if not scan_suffix(args.scan.name):
            raise ValueError(
                f"--scan {args.scan.name}: unknown format; give {', '.join(SCAN_SUFFIXES)} (a zip of one DICOM series)"
            )
    with socket.socket(socket.AF_INET6 if ":" in args.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((args.host, args.port))
        except OSError as error:
            raise ValueError(
                f"--host {args.host} --port {args.port}: cannot listen there ({error.strerror}); choose another"
            ) from None


def draw_without_a_screen() -> None:
    """Tells VTK what to draw with where there is no X server; it would otherwise try one for each view first."""
    if sys.platform.startswith("linux") and not os.environ.get("DISPLAY"):
        drawer = "vtkEGLRenderWindow" if ctypes.util.find_library("EGL") else "vtkOSOpenGLRenderWindow"
        os.environ.setdefault("VTK_DEFAULT_OPENGL_WINDOW", drawer)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "start_viewer.py", description="Findings of a chest CT in a web browser. Research only; not for diagnosis."
    )
    parser.add_argument(
        "--server",
        default="http://127.0.0.1:8000",
        help="address of the CT Findings server; http://127.0.0.1:8000 by default",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", help="address to listen on; 127.0.0.1, this machine only, by default"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a name or address under which other machines reach this viewer, with --host; may be repeated",
    )
    parser.add_argument("--port", type=int, default=8080, help="8080 by default")
    parser.add_argument("--api-key", type=Path, metavar="FILE", help="file with the key of that server")
    parser.add_argument("--scan", type=Path, help=f"scan to open: {', '.join(SCAN_SUFFIXES)}")
    parser.add_argument("--open-browser", action="store_true", help="open the page in the default browser")
    return parser
