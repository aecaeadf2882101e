"""The table of many scans: ``findings.csv``, one row per scan."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.csv_table import write_table
from bundle.ctfindings.findings import FINDING_NAMES

SUMMARY_FILE = "findings.csv"


def write_summary(path: Path, records: Mapping[str, Path], problems: Mapping[str, str]) -> Path:
    """Writes the table of scans, given by their ids; returns its path.

    A row has id, status (``done`` or ``failed``), reason of a failure, domain (``inside`` or ``outside`` that of the
    weights, or empty), notice, number of warnings, probability and verdict of each finding, and score and percentile of
    each query.
    """
    rows = []
    for key, record_file in records.items():
        if key in problems:
            rows.append({"id": key, "status": "failed", "reason": problems[key]})
            continue
        record = json.loads(record_file.read_text(encoding="utf-8"))
        row: dict[str, Any] = {"id": key, "status": "done", "warnings": len(record["warnings"])}
        row["notice"] = record["notice"]
        if record["domain"]:
            row["domain"] = "inside" if record["domain"]["inside"] else "outside"
        for answer in record["findings"]:
            row[answer["name"]] = f"{answer['probability']:.4f}"
            row[f"{answer['name']} present"] = "" if answer["present"] is None else int(answer["present"])
        for answer in record["queries"]:
            row[f"query: {answer['text']}"] = f"{answer['score']:.4f}"
            row[f"query: {answer['text']} percentile"] = answer["percentile"]
        rows.append(row)
    columns = ["id", "status", "reason", "domain", "notice", "warnings", *FINDING_NAMES]
    columns += [f"{name} present" for name in FINDING_NAMES]
    columns += dict.fromkeys(name for row in rows for name in row if name.startswith("query: "))
    write_table(path, columns, ([row.get(name, "") for name in columns] for row in rows))
    return path
