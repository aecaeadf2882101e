"""Starting the server: what is refused in one line, before anything heavy is loaded, and what is on by default."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from plugins.monailabel.lib.launcher import _allowed_hosts, _parser, main
from plugins.monailabel.lib.options import Options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--studies", "NOWHERE"], "no such folder"),
        (["--studies", ".", "--port", "99999"], "port"),
        (["--studies", ".", "--conf", "chekpoint", "x.pt"], "chekpoint: unknown; known are bundle"),
        (["--studies", ".", "--conf", "checkpoint", "nothing.pt"], "nothing.pt"),
        (["--studies", ".", "--conf", "bundle", "tests"], "bundle/ctfindings"),
        (["--studies", ".", "--conf", "cache_mb", "plenty"], "'plenty'"),
        (["--studies", ".", "--ssl-keyfile", "key.pem"], "belong together"),
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
    assert message.startswith(f"error: 127.0.0.1:{port}: cannot be listened on") and "--port" in message and "\n" not in message


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
