"""What the viewer refuses before it starts, and whose requests it answers."""

import argparse
import importlib.machinery
import importlib.util
import re
import runpy
import socket
from pathlib import Path
from typing import Any

import pytest
from ctfindings_client.transport import LOOPBACK
from ctfindings_viewer import guard, launcher


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if trame-slicer was installed."""
    found = importlib.machinery.ModuleSpec("trame_slicer", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: found)


def options(**changes: Any) -> argparse.Namespace:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    return argparse.Namespace(
        **{
            "server": "http://127.0.0.1:8000",
            "host": "127.0.0.1",
            "port": port,
            "scan": None,
            "api_key": None,
            **changes,
        }
    )


def test_the_environment_is_named_when_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="make viewer"):
        launcher.main([])


def test_it_listens_on_this_machine_only_unless_told_otherwise() -> None:
    parsed = launcher._parser().parse_args([])
    assert (parsed.host, parsed.port, parsed.server) == ("127.0.0.1", 8080, "http://127.0.0.1:8000")


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("localhost", False), ("0.0.0.0", True)])
@pytest.mark.usefixtures("installed")
def test_a_viewer_that_other_machines_reach_is_warned_of(
    host: str, warned: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Checked(Exception):
        pass

    def stop() -> None:  # the libraries load after this
        raise Checked

    monkeypatch.setattr(launcher, "draw_without_a_screen", stop)
    with pytest.raises(Checked):
        launcher.main(["--host", host, "--port", str(options().port)])
    said = capsys.readouterr()
    line = said.err
    assert said.out == "Loading the viewer ...\n"
    assert line.startswith(f"warning: --host {host}: ") and "without password" in line if warned else line == ""


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server": "ftp://x"}, "--server: .*not a server address"),
        ({"port": 70000}, "--port 70000"),
        ({"scan": Path("nowhere.nii.gz")}, "no such file"),
        ({"api_key": Path("nowhere")}, "--api-key nowhere: no such file"),
        ({"api_key": Path(__file__), "server": "http://pacs.example.org:8000"}, "a key is only sent over https"),
    ],
)
@pytest.mark.usefixtures("installed")
def test_options_that_cannot_be_used_are_refused(changes: dict[str, Any], message: str) -> None:
    launcher.check(options())
    with pytest.raises(ValueError, match=message):
        launcher.check(options(**changes))


@pytest.mark.usefixtures("installed")
def test_a_file_of_another_format_and_a_taken_port_are_refused(tmp_path: Path) -> None:
    picture = tmp_path / "scan.png"
    picture.write_bytes(b"")
    with pytest.raises(ValueError, match="unknown format"):
        launcher.check(options(scan=picture))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ValueError, match="cannot listen there"):
            launcher.check(options(port=taken.getsockname()[1]))


@pytest.mark.parametrize(
    ("host", "origin", "answered"),
    [
        ("127.0.0.1:8080", None, True),
        ("localhost:8080", "http://localhost:8080", True),
        ("[::1]:8080", "http://[::1]:8080", True),
        ("127.0.0.1:8080", "https://evil.example.org", False),  # a page of another site that opens a WebSocket
        ("127.0.0.1:8080", "http://127.0.0.1:9999", False),  # another program's page
        ("127.0.0.1:8080", "null", False),  # a file, or a frame without an origin
        ("evil.example.org", "http://evil.example.org", False),  # a name that was made to point here
        ("", None, False),
    ],
)
def test_only_the_viewers_own_page_is_answered(host: str, origin: str | None, answered: bool) -> None:
    assert guard.allowed(host, origin, LOOPBACK) is answered


def test_beyond_this_machine_the_names_that_were_given_are_answered_and_no_other() -> None:
    hosts = {*LOOPBACK, "viewer.example.org"}
    assert guard.allowed("viewer.example.org", "https://viewer.example.org", hosts)
    assert not guard.allowed("viewer.example.org", "https://evil.example.org", hosts)
    assert not guard.allowed("evil.example.org", "https://evil.example.org", hosts)


def test_the_page_may_load_nothing_from_elsewhere() -> None:
    rules = dict(rule.split(" ", 1) for rule in guard.POLICY.split("; "))
    assert rules["default-src"] == "'self'"
    assert not re.search(r"https?:|\*", guard.POLICY)


def test_requirements_are_exact_and_hold_the_versions_that_the_docs_name() -> None:
    text = (Path(launcher.__file__).resolve().parents[1] / "requirements.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines and all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    assert "trame-slicer==2.0.0" in lines


def test_ctrl_c_while_the_libraries_load_ends_without_a_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(launcher, "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(Path(launcher.__file__).resolve().parents[1] / "start_viewer.py"), run_name="__main__")
    assert ended.value.code == 130
