"""The record of a study in a datalist: its keys, the checks of its fields, and its report as text.

The scripts that prepare data import this file before they check their arguments, so it does not import PyTorch.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.scan.storage import stored_from

SPLITS = ("training", "validation", "test")
MASK_KEYS = ("anatomy", "finding_masks")
PATH_KEYS = ("image", *MASK_KEYS)


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


def report_text(report: Mapping[str, Any] | None) -> str:
    """Findings and impression as one text; empty without a report."""
    parts = [str((report or {}).get(section) or "").strip() for section in ("findings", "impression")]
    return " ".join(part for part in parts if part)


def report_id(study: Mapping[str, Any]) -> str:
    """What the reconstructions of one examination share, which have one report; the study's own id without it."""
    return str(study.get("examination") or study["id"])


def text_id(text: str) -> int:
    """63-bit hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
