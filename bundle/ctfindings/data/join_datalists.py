"""A datalist whose splits come from several: to calibrate on one archive and score on another."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bundle.ctfindings.data.datalist import PATH_KEYS, SPLITS, load_datalist
from bundle.ctfindings.files.atomic_write import atomic_path
from bundle.ctfindings.files.folders import path_from


def join_datalists(parts: Sequence[tuple[str, Path]], output: Path) -> dict[str, int]:
    """Writes a datalist with a split of each of some datalists; paths in it are relative to its own folder.

    Args:
        parts: name of a split, and the datalist whose split of that name is taken. A split may be named again, and then
            has the studies of all.
        output: the JSON file to write; its folder is made when missing.

    Returns:
        Studies of each split.

    Raises:
        ValueError: when a split is none of training, validation and test, a datalist cannot be read or its split is
            empty, two studies have one id, a patient is in two splits, or the file exists.
    """
    if output.exists():
        raise ValueError(f"{output}: exists already; choose another --output or remove it")
    joined: dict[str, list[dict[str, Any]]] = {split: [] for split in SPLITS}
    splits_of: dict[str, str] = {}
    seen: dict[str, Path] = {}
    for split, datalist in parts:
        if split not in SPLITS:
            raise ValueError(f"{split!r} is no split; give one of {', '.join(SPLITS)}, as in test=FOLDER/datalist.json")
        studies = load_datalist(datalist, split, may_be_empty=False)
        records = json.loads(datalist.read_text(encoding="utf-8"))[split]
        for study, record in zip(studies, records, strict=True):
            name, patient = str(record["id"]), study["patient"]
            if name in seen:
                raise ValueError(f"{datalist}: study {name} is in {seen[name]} already; an id may be there once")
            if splits_of.setdefault(patient, split) != split:
                raise ValueError(
                    f"{datalist}: the patient of study {name} is in {splits_of[patient]} already; a patient may be in one split"
                )
            seen[name] = datalist
            places = {key: path_from(study[key], output.parent) for key in PATH_KEYS if key in study}
            joined[split].append({**record, **places})
    output.parent.mkdir(parents=True, exist_ok=True)
    sources = ", ".join(f"{split} of {datalist.parent.name}" for split, datalist in parts)
    content = {"name": output.parent.name, "description": f"Joined: {sources}.", **joined}
    with atomic_path(output) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return {split: len(records) for split, records in joined.items()}
