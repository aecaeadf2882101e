"""Multipart forms against the parser of the standard library, and bytes that are hard to split."""

from __future__ import annotations

import email
import email.policy

import pytest
from ctfindings_client.multipart import Part, decode, encode

HARD = [b"", b"\r\n", b"\r\n--", b"--\r\n\r\n--\r\n", bytes(range(256)) * 3, b"a\r\n\r\nb\r\n"]


def _body(parts: list[Part]) -> tuple[str, bytes]:
    content_type, blocks = encode(parts)
    return content_type, b"".join(blocks)


def test_another_parser_reads_the_form() -> None:
    content_type, body = _body([Part("params", b'{"query": "x"}'), Part("files", bytes(range(256)), "scan.nii.gz")])
    message = email.message_from_bytes(
        f"Content-Type: {content_type}\r\n\r\n".encode() + body, policy=email.policy.HTTP
    )
    first, second = message.iter_parts()
    assert (first.get_param("name", header="Content-Disposition"), first.get_content()) == ("params", '{"query": "x"}')
    assert (second.get_filename(), second.get_payload(decode=True)) == ("scan.nii.gz", bytes(range(256)))


@pytest.mark.parametrize("content", HARD)
def test_any_bytes_come_back(content: bytes) -> None:
    parts = [Part("params", b"{}"), Part("image", content, "a.nii.gz")]
    assert decode(*_body(parts)) == parts


def test_quoted_boundaries_and_preambles_are_understood() -> None:
    body = b"ignored\r\n--x y\r\ncontent-disposition: form-data; name=params\r\n\r\n{}\r\n--x y--\r\nignored"
    assert decode('multipart/form-data; boundary="x y"', body) == [Part("params", b"{}")]


@pytest.mark.parametrize(
    ("content_type", "cut", "message"),
    [("application/json", 0, "names no boundary"), ("", 0, "names no boundary"), (None, 6, "last boundary")],
)
def test_what_is_no_complete_form_is_refused(content_type: str | None, cut: int, message: str) -> None:
    own_type, body = _body([Part("params", b"{}")])
    with pytest.raises(ValueError, match=message):
        decode(own_type if content_type is None else content_type, body[: len(body) - cut])


@pytest.mark.parametrize("name", ['a"b', "a\r\nContent-Type: x"])
def test_names_cannot_break_out_of_their_header(name: str) -> None:
    with pytest.raises(ValueError, match="not allowed"):
        encode([Part("files", b"", name)])
