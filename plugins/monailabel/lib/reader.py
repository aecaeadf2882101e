"""Scans are read in a process of their own, which is killed when it passes its limits of time and memory.

A scan comes from outside, and the libraries that read it are large. The process is forked from the standard library's
fork server, which has the imports ready, so it starts in milliseconds and begins with nothing of an earlier scan.
"""

import math
import multiprocessing
import os
import pickle
import re
import resource
import signal
import tempfile
import traceback
from collections.abc import Callable, Hashable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, cast

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from nibabel.spatialimages import SpatialImage

from bundle.ctfindings.files.errors import ScanError
from bundle.ctfindings.scan.anatomy_mask import load_anatomy_mask
from bundle.ctfindings.scan.itk_reader import MAX_HEADER_BYTES
from bundle.ctfindings.scan.load_scan import load_scan, read_volume
from bundle.ctfindings.scan.nifti_writer import write_planes

from .limits import Limits
from .usage_error import UsageError

GRID_TOLERANCE_MM = 0.01
"""How far the affine of a mask may be from that of its scan."""


_ELSEWHERE = re.compile(rb"^(data ?file:|ElementDataFile\s*=(?!\s*LOCAL\s*$))", re.IGNORECASE | re.MULTILINE)
"""A line of NRRD or MetaImage that names another file."""

_REMEDY = "send a smaller scan, or ask the administrator to raise {}"


class Reader:
    """Runs a function on a scan in a process with limits. Threads may share it.

    Args:
        limits: of time, memory and size.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._context = multiprocessing.get_context("forkserver")

    def run(self, work: Callable[..., Any], path: Path, *args: Any) -> Any:
        """What ``work(path, limits, *args)`` returns, a function of a module.

        Raises:
            UsageError: with what was wrong with the scan; 413 when it passed a limit.
        """
        with tempfile.TemporaryDirectory(prefix="read-") as folder:
            receiver, sender = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=_serve, args=(sender, folder, self.limits, work, path, *args), daemon=True
            )
            process.start()
            sender.close()
            try:
                if not receiver.poll(self.limits.read_seconds):
                    problem = f"{path.name}: reading it took longer than {self.limits.read_seconds:g} s and was ended; "
                    raise UsageError(413, problem + _REMEDY.format("read_seconds"))
                kind, content = pickle.loads(receiver.recv_bytes())
            except (EOFError, OSError):
                raise UsageError(413, _memory_sentence(path, self.limits)) from None
            finally:
                process.kill()
                process.join()
                receiver.close()
        if kind == "done":
            return content
        if kind == "refused":
            raise UsageError(*content)
        raise RuntimeError(content)


def preprocess(path: Path, limits: Limits, preprocessing: Callable[..., Any]) -> dict[Hashable, Any]:
    """The study that the network encodes, from the file of a scan; its entry ``scan`` has no voxels."""
    _check_file(path, limits)
    study = preprocessing({"image": str(path)})
    voxels = study["image"].numel()
    if voxels > limits.network_mvoxels * 1e6:
        problem = f"{path.name}: covers {voxels / 1e6:,.0f} million voxels of the network's grid"
        raise UsageError(413, f"{problem}; at most {limits.network_mvoxels:g} are allowed. Crop it to the chest")
    scan = study["scan"]
    study["scan"] = MetaTensor(torch.zeros(1).expand(scan.shape), affine=scan.affine, meta=scan.meta)
    for key, value in study.items():
        # A view would be sent with all that it is a part of.
        if isinstance(value, torch.Tensor) and key != "scan" and value.untyped_storage().nbytes() > value.nbytes:
            study[key] = value.clone()
    return dict(study)


def write_hu(path: Path, limits: Limits, file: str) -> None:
    """Writes a scan as the bundle reads it: NIfTI, int16 in HU, on the grid that maps and masks lie on."""
    _check_file(path, limits)
    scan = load_scan(path)
    bounds = np.iinfo(np.int16)
    hu = scan.as_tensor()[0].round_().clamp_(bounds.min, bounds.max).numpy().astype("<i2", copy=False)
    planes = (np.ascontiguousarray(hu[:, :, k].T) for k in range(hu.shape[2]))
    write_planes(file, planes, hu.shape, scan.affine.numpy(), "scan in HU", dtype="<i2")


def check_scan(path: Path, limits: Limits) -> None:
    """Refuses a file that is not a chest CT."""
    _check_file(path, limits)
    load_scan(path)


def check_mask(path: Path, limits: Limits, scan_path: Path) -> None:
    """Refuses a file that is not an anatomy mask on the grid of its scan."""
    _check_file(path, limits)
    scan, mask = load_scan(scan_path), read_volume(path)
    if mask.array.shape != tuple(scan.shape[1:]) or not np.allclose(
        mask.affine, scan.affine.numpy(), atol=GRID_TOLERANCE_MM
    ):
        shapes = [" x ".join(map(str, shape)) for shape in (mask.array.shape, tuple(scan.shape[1:]))]
        problem = f"its grid ({shapes[0]}) is not that of the scan ({shapes[1]}), or lies elsewhere"
        raise ScanError(path, f"{problem}; save the mask on the grid of the scan", "mask-elsewhere")
    load_anatomy_mask(path, "ctfindings", scan)


def _check_file(path: Path, limits: Limits) -> None:
    if path.is_dir():
        return
    limits.check_zip(path)
    with path.open("rb") as file:
        head = file.read(MAX_HEADER_BYTES).replace(b"\r\n", b"\n")
    text = head.partition(b"\n\n" if head.startswith(b"NRRD") else b"\0")
    if _ELSEWHERE.search(text[0]) or (head.startswith(b"NRRD") and not text[1]):
        problem = "its header names another file for its voxels, or does not end; send header and voxels in one file"
        raise ScanError(path, problem, "wrong-content")
    if head.startswith(b"\x1f\x8b"):
        try:
            header = cast(SpatialImage, nib.load(path)).header
            unpacked = math.prod(map(int, header.get_data_shape())) * header.get_data_dtype().itemsize
        except Exception:  # The reader says what is wrong with it; nibabel raises errors of many kinds.
            return
        limits.check_size(path, unpacked)


def _serve(sender: Connection, folder: str, limits: Limits, work: Callable[..., Any], path: Path, *args: Any) -> None:
    """The process: takes its limits, works, and sends ``(kind, content)``."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    tempfile.tempdir = folder
    with open(os.devnull, "wb") as nowhere:  # Libraries print what they find in a file, which may name a patient.
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    seconds = 2 * int(limits.read_seconds) + 1
    for kind, limit in (
        (resource.RLIMIT_DATA, int(limits.read_mb * 1e6)),
        (resource.RLIMIT_FSIZE, int(limits.unpacked_mb * 1e6)),
        (resource.RLIMIT_CPU, seconds),  # Also when nobody is left to kill it.
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (limit, limit))
    answer: tuple[str, Any]
    try:
        answer = "done", work(path, limits, *args)
    except UsageError as error:
        answer = "refused", (error.status, error.sentence)
    except ScanError as error:
        memory = error.code == "out-of-memory"
        sentence = _memory_sentence(path, limits) if memory else str(error).replace(str(path), path.name)
        answer = "refused", (413 if memory else 422, sentence)
    except MemoryError:
        answer = "refused", (413, _memory_sentence(path, limits))
    except Exception as error:
        if "allocate" in str(error):  # PyTorch has no error of its own for it.
            answer = "refused", (413, _memory_sentence(path, limits))
        else:
            answer = "fault", "".join([*traceback.format_tb(error.__traceback__), type(error).__name__])
    sender.send_bytes(pickle.dumps(answer))


def _memory_sentence(path: Path, limits: Limits) -> str:
    problem = f"{path.name}: reading it needs more than {limits.read_mb:g} MB of memory and was ended; "
    return problem + _REMEDY.format("read_mb")
