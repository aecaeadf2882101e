"""Joins splits of several datalists, such as to calibrate on one archive and score on another."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.ctfindings.data.datalist import load_datalist, read_content
from bundle.ctfindings.data.study_record import PATH_KEYS, SPLITS
from bundle.ctfindings.files.atomic_write import write_text
from bundle.ctfindings.files.folders import path_from


def join_datalists(parts: Sequence[tuple[str, Path]], output: Path) -> dict[str, int]:
    """Writes a datalist whose splits come from other datalists; returns the number of studies by split.

    A part is a split and the datalist it is taken from; a split that is named several times gets all the studies. Paths
    in the output are relative to its folder. ValueError if a split is unknown, unreadable or empty, an id occurs twice,
    a patient is in two splits, or the output exists.
    """
    if output.exists():
        raise ValueError(f"{output}: exists already; choose another --output or remove it")
    joined: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    splits_of: dict[str, str] = {}
    seen: dict[str, Path] = {}
    for split, datalist in parts:
        if split not in SPLITS:
            known = ", ".join(SPLITS)
            raise ValueError(f"{split!r} is not a split; use one of {known}, as in test=FOLDER/datalist.json")
        studies = load_datalist(datalist, split, may_be_empty=False)
        for study, record in zip(studies, read_content(datalist)[split], strict=True):
            name, patient = study["id"], study["patient"]
            if name in seen:
                raise ValueError(f"{datalist}: study {name} is in {seen[name]} already; use each id once")
            if splits_of.setdefault(patient, split) != split:
                other = splits_of[patient]
                raise ValueError(f"{datalist}: the patient of study {name} is in {other} already; use one split")
            seen[name] = datalist
            places = {key: path_from(study[key], output.parent) for key in PATH_KEYS if key in study}
            joined[split].append({**record, **places})
    sources = ", ".join(f"{split} of {datalist.parent.name}" for split, datalist in parts)
    content = {"name": output.parent.name, "description": f"Joined: {sources}.", **joined}
    write_text(output, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return {split: len(records) for split, records in joined.items()}
