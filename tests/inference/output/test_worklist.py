"""The worklist: its order, its escaping, and what stands in a row."""

import csv
from pathlib import Path

from bundle.ctfindings.inference.output.worklist import Entry, write_worklist


def test_series_are_sorted_by_what_was_found(tmp_path: Path) -> None:
    entries = [
        Entry("failed", "s", "failed", "<b>broken</b>"),
        Entry("normal", "s", "done"),
        Entry("one", "s", "done", present={"Lung nodule": 0.9}),
        Entry("waiting", "s", "waiting"),
        Entry("two", "s", "done", present={"Lung nodule": 0.5, "Cardiomegaly": 0.6}),
        Entry("high", "s", "done", present={"Lung nodule": 0.95}),
        Entry("fluid", "s", "done", present={"Pleural effusion": 0.3}),
    ]
    ordered = [entry.series for entry in write_worklist(tmp_path, entries)]
    assert ordered == ["two", "high", "one", "fluid", "normal", "waiting", "failed"]
    assert write_worklist(tmp_path, entries, ["Pleural effusion"])[0].series == "fluid"
    with (tmp_path / "worklist.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows[1]["findings"] == "Cardiomegaly 0.60; Lung nodule 0.50"
    page = (tmp_path / "worklist.html").read_text(encoding="utf-8")
    assert "&lt;b&gt;broken" in page and "<b>broken" not in page and "Research only" in page
