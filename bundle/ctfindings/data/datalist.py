"""Datalist: the study records of a data set by split, in the style of the Medical Segmentation Decathlon."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from bundle.ctfindings.anatomy import ANATOMY_NAMES
from bundle.ctfindings.data.study_record import PATH_KEYS, check_study, text_id
from bundle.ctfindings.findings import FINDING_NAMES

CAPTION_SENTENCES = 24  # of a caption that are compared with those of other captions
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


def load_datalist(
    path: str | Path, split: str, may_be_empty: bool = True, apart_from: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Studies of one split, such as ``training``, ``validation`` or ``test``, with absolute paths.

    Paths in the file are relative to its folder. A record needs ``id`` and ``image``; docs/datalist.md has all fields.

    Args:
        path: JSON file.
        split: name of the split.
        may_be_empty: whether the split may have no study.
        apart_from: splits that may have no study and no patient in common with it, as far as the file has them.

    Raises:
        ValueError: if the file or split is missing, the split is empty and must not be, a record is invalid, or a study
            occurs twice.
    """
    path = Path(path)
    content = read_content(path)
    if split not in content:
        raise ValueError(f"{path}: no split {split!r}; add a list of studies under that key")
    studies = _studies(content, split, path)
    if not studies and not may_be_empty:
        raise ValueError(f"{path}: split {split!r} has no study; add some, or use another datalist")
    if twice := _twice(studies):
        raise ValueError(f"{path}: study {twice} occurs twice in split {split!r}; list each study once")
    for other in apart_from:
        if content.get(other):
            check_patients(studies, _studies(content, other, path), f"{path}: {split} and {other}")
    return studies


def load_studies(path: str | Path, splits: Sequence[str] = ()) -> list[dict[str, Any]]:
    """The studies of several splits, by default of all; no two may share an id. For errors see ``load_datalist``."""
    studies = [study for split in splits or split_names(path) for study in load_datalist(path, split)]
    if twice := _twice(studies):
        raise ValueError(f"{path}: id {twice!r} occurs in two splits; give each study its own id")
    return studies


def _twice(studies: Sequence[Mapping[str, Any]]) -> str | None:
    """The first id that two studies have."""
    return next((study for study, count in Counter(study["id"] for study in studies).items() if count > 1), None)


def check_patients(first: Sequence[Mapping[str, Any]], second: Sequence[Mapping[str, Any]], where: str) -> None:
    """Rejects two splits that share a study or a patient.

    ValueError names a study of each split, not the patient, whose id may be a name.
    """
    ids, patients = {study["id"] for study in first}, {study["patient"]: study["id"] for study in first}
    for study in second:
        if study["id"] in ids:
            raise ValueError(f"{where} share study {study['id']}; every study belongs to one split")
        if study["patient"] in patients:
            shared = f"studies {patients[study['patient']]} and {study['id']}"
            raise ValueError(f"{where} share a patient ({shared}); every patient belongs to one split")


def split_names(path: str | Path) -> list[str]:
    """Names of the splits of a datalist, its lists of study records; ValueError if the file is not a datalist."""
    lists = {name: value for name, value in read_content(Path(path)).items() if isinstance(value, list)}
    names = [name for name, value in lists.items() if all(isinstance(record, Mapping) for record in value)]
    if not names:
        raise ValueError(f"{path}: has no split; add a list of studies under 'training', 'validation' or 'test'")
    return names


def read_content(path: Path) -> dict[str, Any]:
    """The JSON object of a datalist as it is written; ValueError if there is none."""
    if path.is_dir():
        raise ValueError(f"{path}: is a folder; give the JSON file of a datalist (docs/datalist.md)")
    if not path.is_file():
        raise ValueError(f"{path}: no such datalist; check the path, or make one (docs/datalist.md)")
    try:
        content = json.loads(path.read_bytes())  # of bytes, because it knows UTF-8 with a mark, UTF-16 and UTF-32
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: expected JSON, found an error ({error}); write it again") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: expected an object with splits, found {type(content).__name__}; write it again")
    return content


def _studies(content: Mapping[str, Any], split: str, path: Path) -> list[dict[str, Any]]:
    if not isinstance(content[split], list):
        raise ValueError(f"{path}: split {split!r}: expected a list of studies; write it again")
    return [_study(record, path, index) for index, record in enumerate(content[split])]


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
            study[key] = str(path.parent.absolute() / record[key])  # not resolved: links stay
    check_study(record, str(path))
    study["labels"] = torch.tensor(record.get("labels") or [-1] * len(FINDING_NAMES))
    study["patient"] = str(record["id"] if record.get("patient") in (None, "") else record["patient"])
    study.update(_caption_targets(record.get("captions") or {}))
    return study


def _caption_targets(captions: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Caption texts by anatomy; ``caption_id``, ``caption_normal`` and ``caption_sentences`` for the losses."""
    given = {name: captions.get(name) or {} for name in ANATOMY_NAMES}
    texts = {name: str(caption["text"]) for name, caption in given.items() if caption.get("text")}
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


def label_rows(studies: Sequence[Mapping[str, Any]]) -> NDArray[np.int64]:
    """The labels of studies, ``[S, C]``: 1 present, 0 absent, -1 unknown."""
    return np.stack([np.asarray(study["labels"], dtype=np.int64) for study in studies])


def label_balance(studies: Sequence[Mapping[str, Any]]) -> list[float]:
    """Negatives per positive of each finding among known labels; 1 for a finding without positives."""
    labels = label_rows(studies)
    positive, negative = (labels == 1).sum(0), (labels == 0).sum(0)
    return [float(no) / float(yes) if yes else 1.0 for yes, no in zip(positive, negative, strict=True)]
