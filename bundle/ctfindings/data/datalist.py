"""Datalist: the study records of a data set by split, in the style of the Medical Segmentation Decathlon."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.scan.storage import stored_from

MASK_KEYS = ("anatomy", "finding_masks")
SPLITS = ("training", "validation", "test")
CAPTION_SENTENCES = 24  # of a caption that are compared with those of other captions
PATH_KEYS = ("image", "anatomy", "finding_masks")
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def load_datalist(path: str | Path, split: str, may_be_empty: bool = True) -> list[dict[str, Any]]:
    """Studies of one split, such as ``training``, ``validation`` or ``test``, with absolute paths.

    Paths in the file are relative to its folder. A record needs ``id`` and ``image``; docs/datalist.md has all fields.

    Raises:
        ValueError: if the file or split is missing, the split is empty and must not be, or a record is invalid.
    """
    path = Path(path)
    content = _content(path)
    if split not in content:
        raise ValueError(f"{path}: no split {split!r}; add a list of studies under that key")
    if not isinstance(content[split], list):
        raise ValueError(f"{path}: split {split!r}: expected a list of studies; write it again")
    if not content[split] and not may_be_empty:
        raise ValueError(f"{path}: split {split!r} has no study; add some, or use another datalist")
    return [_study(record, path, index) for index, record in enumerate(content[split])]


def split_names(path: str | Path) -> list[str]:
    """Names of the splits of a datalist, its lists of study records; ValueError if the file is not a datalist."""
    lists = {name: value for name, value in _content(Path(path)).items() if isinstance(value, list)}
    names = [name for name, value in lists.items() if all(isinstance(record, Mapping) for record in value)]
    if not names:
        raise ValueError(f"{path}: has no split; add a list of studies under 'training', 'validation' or 'test'")
    return names


def _content(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path}: no such datalist; check the path, or make one (docs/datalist.md)")
    try:
        content = json.loads(path.read_bytes())  # of bytes, because it knows UTF-8 with a mark, UTF-16 and UTF-32
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, found an error ({error}); write it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object with splits, found {type(content).__name__}; write it again")
    return content


def _study(record: Mapping[str, Any], path: Path, index: int) -> dict[str, Any]:
    if not isinstance(record, Mapping):
        raise ValueError(f"{path}: study {index}: expected an object with an id and an image; write it again")
    for key in PATH_KEYS:
        if record.get(key) is not None and not isinstance(record[key], str):
            raise ValueError(f"{path}: study {index}: expected a path as {key!r}, got {record[key]!r}; correct it")
    for key in ("id", "image"):
        if record.get(key) in (None, ""):
            raise ValueError(f"{path}: study {index} has no {key!r}; every study needs an id and an image")
    if not isinstance(record["id"], str | int):
        raise ValueError(f"{path}: study {index}: expected a text as 'id', got {record['id']!r}; correct it")
    record = {**record, "id": str(record["id"])}
    study = {key: value for key, value in record.items() if key not in PATH_KEYS}
    for key in PATH_KEYS:
        if record.get(key):
            study[key] = str(path.parent / record[key])
    check_study(record, str(path))
    import torch  # Not above: it takes a second, and the preparing scripts check their arguments first.

    study["labels"] = torch.tensor(record.get("labels") or [-1] * len(FINDING_NAMES))
    study["patient"] = str(record["id"] if record.get("patient") in (None, "") else record["patient"])
    study.update(_caption_targets(record.get("captions") or {}))
    return study


def check_study(record: Mapping[str, Any], where: str) -> None:
    """Checks the fields of a study record that training reads, except paths; its ValueError begins with ``where``."""
    study = record["id"]
    labels = record.get("labels")
    if labels and not (
        isinstance(labels, list | tuple)
        and len(labels) == len(FINDING_NAMES)
        and all(label in (-1, 0, 1) for label in labels)
    ):
        raise ValueError(
            f"{where}: labels of study {study}: expected {len(FINDING_NAMES)} values of -1, 0 or 1, got {labels}"
        )
    for name in ("report", "captions"):
        if record.get(name) and not isinstance(record[name], Mapping):
            raise ValueError(
                f"{where}: {name} of study {study}: expected an object; see the study record in docs/datalist.md"
            )
    for anatomy, caption in (record.get("captions") or {}).items():
        if caption and not isinstance(caption, Mapping):
            raise ValueError(f"{where}: caption of {anatomy} of study {study}: expected an object with a text")
    snippets = record.get("snippets") or ()
    for snippet in snippets if isinstance(snippets, list | tuple) else [snippets]:
        if not _is_snippet(snippet):
            raise ValueError(
                f"{where}: snippet of study {study}: expected a text, and z_mm in mm or null, got {snippet}"
            )
    if record.get("stored"):
        try:
            stored_from(record["stored"])
        except ValueError as error:
            raise ValueError(f"{where}: study {study}: {error}") from error


def _is_snippet(snippet: Any) -> bool:
    if not isinstance(snippet, Mapping) or not isinstance(snippet.get("text"), str) or not snippet["text"].strip():
        return False
    z_mm = snippet.get("z_mm")
    return z_mm is None or (isinstance(z_mm, int | float) and math.isfinite(z_mm))


def _caption_targets(captions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Caption texts by anatomy; ``caption_id``, ``caption_normal`` and ``caption_sentences`` for the losses."""
    given = {name: captions.get(name) or {} for name in ANATOMY_NAMES}
    texts = {name: str(caption["text"]) for name, caption in given.items() if caption.get("text")}
    import torch

    return {
        "captions": texts,
        "caption_id": torch.tensor([text_id(texts[name]) if name in texts else 0 for name in ANATOMY_NAMES]),
        "caption_sentences": torch.tensor([_sentence_ids(texts.get(name, "")) for name in ANATOMY_NAMES]),
        "caption_normal": torch.tensor([bool(caption.get("normal", False)) for caption in given.values()]),
    }


def _sentence_ids(text: str) -> list[int]:
    """Identities of the first sentences of a text, 0 where it has fewer; the same for any case and final stop."""
    sentences = _SENTENCE_END.split(text.strip().lower()) if text.strip() else []
    ids = [text_id(sentence.rstrip(".!?")) for sentence in sentences[:CAPTION_SENTENCES]]
    return ids + [0] * (CAPTION_SENTENCES - len(ids))


def bare_studies(studies: Sequence[Mapping[str, Any]], *more: str) -> list[dict[str, Any]]:
    """The studies with their scans and ``more`` alone, so that a cache does not depend on the rest of their records."""
    return [{key: study[key] for key in ("id", "image", "stored", *more) if key in study} for study in studies]


def report_text(report: Mapping[str, Any] | None) -> str:
    """Findings and impression as one text; empty without a report."""
    parts = [str((report or {}).get(section) or "").strip() for section in ("findings", "impression")]
    return " ".join(part for part in parts if part)


def text_id(text: str) -> int:
    """63-bit hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def label_balance(studies: Sequence[Mapping[str, Any]]) -> list[float]:
    """Negatives per positive of each finding among known labels; 1 for a finding without positives."""
    import torch

    labels = torch.stack([study["labels"] for study in studies])
    positive, negative = (labels == 1).sum(0), (labels == 0).sum(0)
    return [float(no) / float(yes) if yes else 1.0 for yes, no in zip(positive, negative, strict=True)]
