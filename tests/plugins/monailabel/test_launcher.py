"""Starting the server: what is refused in one line, before anything heavy is loaded, and what is on by default."""

import importlib
import os
import runpy
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from plugins.monailabel.lib.key_file import key_from
from plugins.monailabel.lib.launcher import _allowed_hosts, _check, _exposure, _parser, _readable_by_others, main
from plugins.monailabel.lib.options import Options
from plugins.monailabel.lib.temporary import claim_work
from tests.ports import free_port


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--studies", "NOWHERE"], "no such folder"),
        (["--studies", ".", "--port", "99999"], "port"),
        (["--studies", ".", "--conf", "chekpoint", "x.pt"], "chekpoint: unknown; known are bundle"),
        (["--studies", ".", "--conf", "checkpoint", "nothing.pt"], "nothing.pt"),
        (["--studies", ".", "--conf", "bundle", "tests"], "bundle/ctfindings"),
        (["--studies", ".", "--conf", "cache_mb", "plenty"], "'plenty'"),
        (
            ["--studies", ".", "--conf", "overlays", "configs/networks/base.json,configs/nothing.json"],
            "configs/nothing.json: no such file",
        ),
        (["--studies", ".", "--ssl-keyfile", "key.pem"], "belong together"),
        (
            ["--studies", ".", "--conf", "upload_mb", "-1"],
            "upload_mb: expected a positive number, got '-1'; it is the largest",
        ),
        (["--studies", ".", "--api-key", __file__], "others may read it; chmod 600"),
    ],
)
def test_what_cannot_start_is_refused_in_one_line(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as refused:
        main([*arguments, "--conf", "work", str(tmp_path / "work")])
    message = str(refused.value)
    assert message.startswith("error: ") and words in message and "\n" not in message


def test_a_port_in_use_is_refused_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SystemExit) as refused:
        port = str(other.getsockname()[1])
        main(["--studies", str(tmp_path), "--port", port, "--conf", "work", str(tmp_path / "work")])
    message = str(refused.value)
    assert (
        message.startswith(f"error: 127.0.0.1:{port}: cannot listen there")
        and "--port" in message
        and "\n" not in message
    )


def test_only_this_machine_is_served_by_default() -> None:
    args = _parser().parse_args(["--studies", "."])
    assert args.host == "127.0.0.1"
    assert "*" not in _allowed_hosts(args) and "127.0.0.1" in _allowed_hosts(args)
    assert _allowed_hosts(_parser().parse_args(["--studies", ".", "--host", "192.0.2.7"])) == ["*"]


def test_options_have_defaults_inside_the_bundle(bundle_root: Path) -> None:
    options = Options.of({})
    assert (options.bundle, options.checkpoint, options.cache_bytes) == (bundle_root, None, 512_000_000)
    assert options.work == bundle_root / "runs" / "monailabel"
    assert Options.of({"overlays": "a.json, b.json"}).overlays == ("a.json", "b.json")


def test_folders_that_cannot_be_written_to_are_refused_in_one_line(tmp_path: Path) -> None:
    closed = Path("/proc/self/fd")  # Takes no files, not even those of root.
    if not closed.is_dir():
        pytest.skip("there is no /proc here")
    file = tmp_path / "file"
    file.write_bytes(b"")
    for arguments, words in [
        (
            ["--studies", str(closed), "--writable", "--conf", "work", str(tmp_path / "work")],
            f"--studies {closed}: cannot be written to",
        ),
        (
            ["--studies", str(tmp_path), "--conf", "work", str(closed)],
            f"--conf work: {closed.resolve()}: cannot be written to",
        ),
        (["--studies", str(tmp_path), "--conf", "work", str(file)], f"--conf work: {file}: cannot be created"),
        (
            ["--studies", str(tmp_path), "--conf", "work", str(file / "work")],
            f"--conf work: {file / 'work'}: cannot be created",
        ),
    ]:
        with pytest.raises(SystemExit) as refused:
            main(arguments)
        assert str(refused.value).startswith(f"error: {words}") and "\n" not in str(refused.value)


@pytest.mark.skipif(os.name != "posix", reason="modes of folders are those of POSIX")
def test_only_their_owner_reads_the_scans_in_the_work_folder(tmp_path: Path) -> None:
    work = tmp_path / "runs" / "work"
    before = os.umask(0o022)
    try:
        _check(
            _parser().parse_args(["--studies", str(tmp_path), "--port", str(free_port()), "--conf", "work", str(work)])
        )
    finally:
        os.umask(before)
    assert work.stat().st_mode & 0o777 == 0o700
    assert _readable_by_others(work) is None
    work.chmod(0o750)
    warning = _readable_by_others(work)
    assert warning is not None and str(work) in warning and "chmod 700" in warning


@pytest.mark.parametrize(
    ("host", "authentication", "encryption", "words"),
    [
        ("127.0.0.1", False, False, None),
        ("::1", False, False, None),
        ("0.0.0.0", False, False, "without password and without encryption"),
        ("192.0.2.7", True, False, "without encryption"),
        ("server.example.org", False, True, "without password"),
        ("0.0.0.0", True, True, None),
    ],
)
def test_a_server_that_others_reach_without_protection_is_warned_of(
    host: str, authentication: bool, encryption: bool, words: str | None
) -> None:
    warning = _exposure(host, authentication, encryption)
    assert (
        warning is None
        if words is None
        else warning is not None and f"--host {host}" in warning and f"{words};" in warning
    )


def test_what_only_loading_shows_is_one_line_too(bundle_root: Path, untrained_weights: Path, tmp_path: Path) -> None:
    """A network that the weights do not fit; on all addresses, which is warned of."""
    studies = tmp_path / "studies"
    studies.mkdir()
    command = [
        sys.executable,
        str(bundle_root / "plugins" / "monailabel" / "start_server.py"),
        "--studies",
        str(studies),
    ]
    command += [
        "--host",
        "0.0.0.0",
        "--port",
        str(free_port()),
        "--conf",
        "work",
        str(tmp_path / "work"),
        "--conf",
        "checkpoint",
        str(untrained_weights),
    ]
    command += ["--conf", "overlays", "configs/networks/base.json"]
    run = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=600, cwd=tmp_path)
    lines = run.stderr.splitlines()
    assert run.returncode == 1 and "Traceback" not in run.stderr, run.stderr[-3000:]
    assert lines[-1].startswith("error: ") and str(untrained_weights) in lines[-1]
    assert any(line.startswith("warning: --host 0.0.0.0: ") for line in lines)


def test_ctrl_c_while_the_libraries_load_ends_without_a_traceback(
    bundle_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    folder = bundle_root / "plugins" / "monailabel"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(importlib.import_module("lib.launcher"), "main", interrupted)
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(folder / "start_server.py"), run_name="__main__")
    assert ended.value.code == 130


def test_a_new_key_is_for_its_owner_only_and_stays(tmp_path: Path) -> None:
    file = tmp_path / "api_key"
    key = key_from(file)
    assert len(key) >= 32 and file.stat().st_mode & 0o777 == 0o600
    assert key_from(file) == key
    file.write_text("short\n")
    with pytest.raises(ValueError, match="16 or more"):
        key_from(file)
    with pytest.raises(ValueError, match=r"cannot be read or made .* check its folder"):
        key_from(tmp_path / "gone" / "api_key")


def test_the_temporary_folder_is_emptied_at_start_and_belongs_to_one_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())
    monkeypatch.setenv("TMPDIR", "")
    before = os.umask(0o022)
    left = tmp_path / "tmp" / "upload-x" / "scan.nii.gz"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"voxels")
    try:
        lock = claim_work(tmp_path)
        assert not list((tmp_path / "tmp").iterdir())
        with tempfile.NamedTemporaryFile() as file:
            assert Path(file.name).parent == tmp_path / "tmp" and Path(file.name).stat().st_mode & 0o077 == 0
        (tmp_path / "new").touch()
        assert (tmp_path / "new").stat().st_mode & 0o777 == 0o600
        with pytest.raises(ValueError, match="another server uses this folder"):
            claim_work(tmp_path)
        lock.release()
    finally:
        os.umask(before)
