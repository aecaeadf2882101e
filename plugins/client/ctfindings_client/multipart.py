"""multipart/form-data, both ways: what MONAI Label takes and what it answers with. Standard library only."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesHeaderParser

_LINE_END = b"\r\n"


@dataclass(frozen=True)
class Part:
    """One part of a form.

    Attributes:
        name: of the field.
        content: its bytes.
        filename: of a file; None for a plain field.
    """

    name: str
    content: bytes
    filename: str | None = None


def encode(parts: Sequence[Part]) -> tuple[str, list[bytes]]:
    """A form as content type and blocks of bytes, in the order in which they are sent; contents are not copied.

    Raises:
        ValueError: when a name would break out of its header.
    """
    boundary = uuid.uuid4().hex
    blocks: list[bytes] = []
    for part in parts:
        for text in (part.name, part.filename or ""):
            if any(character in text for character in '"\r\n'):
                raise ValueError(f"form field {text!r}: quotes and line breaks are not allowed in a name")
        header = f'--{boundary}\r\nContent-Disposition: form-data; name="{part.name}"'
        if part.filename is not None:
            header += f'; filename="{part.filename}"\r\nContent-Type: application/octet-stream'
        blocks += [header.encode("utf-8") + 2 * _LINE_END, part.content, _LINE_END]
    blocks.append(f"--{boundary}--\r\n".encode("ascii"))
    return f"multipart/form-data; boundary={boundary}", blocks


def decode(content_type: str, body: bytes) -> list[Part]:
    """The parts of a form.

    Raises:
        ValueError: when the content type names no boundary, or the body does not hold complete parts.
    """
    boundary = _parameters("Content-Type", content_type).get("boundary")
    if not boundary:
        raise ValueError(f"answer of type {content_type!r} names no boundary")
    mark = b"--" + boundary.encode("ascii")
    # The first boundary has no line break before it; with one added, all of them look alike.
    pieces = (_LINE_END + body).split(_LINE_END + mark)
    if len(pieces) < 2 or not pieces[-1].startswith(b"--"):
        raise ValueError("answer ends before its last boundary")
    return [_part(piece) for piece in pieces[1:-1]]


def _part(piece: bytes) -> Part:
    head, gap, content = piece.partition(2 * _LINE_END)
    if not gap:
        raise ValueError("a part of the answer has no end of its header")
    disposition = BytesHeaderParser().parsebytes(head.lstrip(b" \t\r\n")).get("Content-Disposition", "")
    named = _parameters("Content-Disposition", disposition)
    return Part(named.get("name", ""), content, named.get("filename"))


def _parameters(header: str, value: str) -> Mapping[str, str]:
    message = Message()
    message[header] = value
    return {key.lower(): str(text) for key, text in message.get_params(failobj=[], header=header)[1:]}
