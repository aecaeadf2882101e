"""Requests that a server must survive, each of which should get a sentence: bombs, lies, paths, floods and noise."""

import gzip
import io
import json
import socket
import struct
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import nibabel as nib
import numpy as np
import requests
from isal import igzip_threaded

MARK = "SECRETMARK"
"""In every name and text that is sent, so that it can be searched for in the log."""

SECONDS = 300
Attack = Callable[[str], tuple[int, str]]


def attacks(scan: bytes) -> dict[str, Attack]:
    """What is sent, by name; each takes the server's address and returns the status and the text of the answer.

    Args:
        scan: bytes of a NIfTI scan that the server has as ``first``.
    """
    image = nib.Nifti1Image.from_bytes(gzip.decompress(scan))
    other_grid = nib.Nifti1Image(np.ones((9, 9, 9), np.uint8), np.eye(4)).to_bytes()
    return {
        "zip of 1.5 GB of zeros behind DICM": infer(
            lambda: zip_of(zeros(1_500_000_000, b"\0" * 128 + b"DICM")), ".zip"
        ),
        "the same, padded below the allowed ratio": infer(
            lambda: zip_of(zeros(900_000_000, b"\0" * 128 + b"DICM"), 12), ".zip"
        ),
        "zip of 6000 files": infer(lambda: zip_of(*[[b"x"]] * 6000), ".zip"),
        "zip within a zip": infer(lambda: zip_of([zip_of([b"\0" * 1000])]), ".zip"),
        "zip whose names leave the folder": infer(lambda: zip_of([b"x"], name="../../{}.dcm"), ".zip"),
        "encrypted or damaged zip": infer(lambda: zip_of([b"x" * 99])[:-30], ".zip"),
        "0.7 MB of nii.gz that becomes 0.7 GB": infer(
            lambda: packed(zeros(700_000_000, header((700, 1000, 500)))), ".nii.gz"
        ),
        "nii.gz that needs more memory than a reader may have": infer(
            lambda: packed(zeros(1_700_000_000, header((850, 1000, 1000)) + noise(20))), ".nii.gz"
        ),
        "NIfTI header of 30000 x 30000 x 30000": infer(lambda: header((30000, 30000, 30000)) + b"\0" * 1000, ".nii"),
        "NIfTI with an affine of NaN": infer(lambda: header((60, 60, 60), float("nan")) + b"\0" * 432_000, ".nii"),
        "NRRD whose voxels are a file of the server": infer(lambda: NRRD, ".nrrd"),
        "MetaImage whose voxels are a file of the server": infer(lambda: METAIMAGE, ".mha"),
        "upload that is not a scan": infer(lambda: b"MZ", ".exe"),
        "seven bytes over an original": put("/datastore/image?image=first", "file", b"1234567", ".nii.gz"),
        "a file over the server's own": put("/datastore/image?image=datastore_v2", "file", b"{}", ".json"),
        "removal of an original": call("DELETE", "/datastore/image?id=first"),
        "label that is a script": put("/datastore/label?image=first", "label", b"rm", ".sh"),
        "label of three bytes": put("/datastore/label?image=first", "label", b"123", ".nii.gz"),
        "label on another grid": put("/datastore/label?image=first", "label", other_grid, ".nii"),
        "label that is the scan": put("/datastore/label?image=first", "label", image.to_bytes(), ".nii"),
        "label with a tag that is a path": put("/datastore/label?image=first&tag=a%20b", "label", b"1", ".nii"),
        "id of 400 characters": call("POST", f"/infer/findings?image={MARK * 40}"),
        "id with a line break": call("POST", f"/infer/findings?image={MARK}%0Aadmin"),
        "id that is a path": call("POST", "/infer/findings?image=..%2F..%2Fetc%2Fpasswd"),
        "session that is a path": call("POST", "/infer/findings?session_id=..%2Fdatastores"),
        "address with a path": call("GET", f"/{MARK}/info/"),
        "unknown strategy": call("POST", f"/activelearning/{MARK}"),
        "wrong key": call("GET", "/info/", headers={"Authorization": f"Bearer {MARK}"}),
        "page of another site": call("GET", "/info/", headers={"Origin": f"http://{MARK.lower()}.example"}),
        "params nested 20000 deep": infer_params("[" * 20_000),
        "params of 2 MB": infer_params(json.dumps({"query": MARK * 200_000})),
        "query of 5000 characters": infer_params(json.dumps({"query": MARK * 500})),
        "body of 10 GB, announced": announced("/session/", 10_000_000_000),
        "body that is not announced and does not end": call("POST", "/train/findings", data=endless()),
        "body that never arrives": announced("/session/", 1000),
        "noise instead of HTTP": raw(noise(1)[:5000] + b"\r\n\r\n"),
        "header of 200 KB": call("GET", "/info/", headers={"X-Long": "x" * 200_000}),
        "session of 6000 files": session_of(6000),
    }


def call(method: str, path: str, **keys: Any) -> Attack:
    """A plain request."""

    def attack(url: str) -> tuple[int, str]:
        try:
            answer = requests.request(method, url + path, timeout=SECONDS, **keys)
        except (requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
            return 0, "the server closed the connection before all of the body was sent"
        return answer.status_code, answer.text

    return attack


def infer(content: Callable[[], bytes], suffix: str) -> Attack:
    """A scan that is sent along with a question."""
    return lambda url: call("POST", "/infer/findings?output=json", files={"file": (f"{MARK}{suffix}", content())})(url)


def infer_params(params: str) -> Attack:
    """A question whose params are of this text."""
    return call("POST", "/infer/evidence?image=first&output=json", files={"params": (None, params)})


def put(path: str, field: str, content: bytes, suffix: str) -> Attack:
    """A file for the datastore."""
    return call("PUT", path, files={field: (f"{MARK}{suffix}", content)})


def session_of(count: int) -> Attack:
    """A series of so many files."""
    return call("PUT", "/session/", files=[("files", (f"{MARK}{number}.dcm", b"x")) for number in range(count)])


def announced(path: str, size: int) -> Attack:
    """A request that announces a body of so many bytes, and sends three of them."""
    head = f"PUT {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    return raw(f"{head}Content-Length: {size}\r\n\r\n--x".encode())


def raw(sent: bytes) -> Attack:
    """Bytes on a connection, and the first answer to them."""

    def attack(url: str) -> tuple[int, str]:
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=SECONDS) as client:
            client.sendall(sent)
            answer = ""
            while not answer.partition("\r\n\r\n")[2] and (part := client.recv(65536)):
                answer += part.decode("latin-1")
        return int((answer.split() or ["", "0"])[1]), answer.partition("\r\n\r\n")[2]

    return attack


def endless() -> Iterator[bytes]:
    """100 MB in pieces, for a body that is sent in chunks."""
    for _ in range(1000):
        yield b"x" * 100_000


def zeros(size: int, start: bytes) -> Iterator[bytes]:
    """So many bytes: a start, and zeros."""
    yield start
    for left in range(size - len(start), 0, -(1 << 20)):
        yield bytes(min(left, 1 << 20))


def zip_of(*members: Any, name: str = "{}.dcm") -> bytes:
    """A zip of members, each an iterable of bytes; a number is so many MB of noise."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for number, member in enumerate(members):
            with archive.open(name.format(number), "w", force_zip64=True) as target:
                for part in [noise(member)] if isinstance(member, int) else member:
                    target.write(part)
    return file.getvalue()


def packed(parts: Iterator[bytes]) -> bytes:
    """The parts in one gzip."""
    file = io.BytesIO()
    with igzip_threaded.open(file, "wb", compresslevel=1, threads=1) as target:
        for part in parts:
            target.write(part)
    return file.getvalue()


def noise(megabytes: int) -> bytes:
    """Bytes that do not shrink."""
    return np.random.default_rng(0).bytes(megabytes * 1_000_000)


def header(shape: tuple[int, int, int], position: float = 0.0) -> bytes:
    """A NIfTI header of int16 voxels of 1 mm, up to the first voxel."""
    start = nib.Nifti1Header()
    start.set_data_dtype(np.int16)
    start.set_data_shape(shape if max(shape) < 2**15 else (1, 1, 1))
    affine = np.eye(4)
    affine[0, 3] = position
    start.set_sform(affine, code=1)
    start["magic"], start["vox_offset"] = b"n+1", 352
    return start.binaryblock + struct.pack("<4x")


NRRD = b"""NRRD0004
type: short
dimension: 3
space: left-posterior-superior
sizes: 20 20 2
space directions: (5,0,0) (0,5,0) (0,0,20)
space origin: (0,0,0)
encoding: raw
endian: little
data file: /etc/passwd

"""
METAIMAGE = b"""ObjectType = Image
NDims = 3
BinaryData = True
BinaryDataByteOrderMSB = False
CompressedData = False
TransformMatrix = 1 0 0 0 1 0 0 0 1
Offset = 0 0 0
ElementSpacing = 5 5 20
DimSize = 20 20 2
ElementType = MET_SHORT
ElementDataFile = /etc/passwd
"""
