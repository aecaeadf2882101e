"""Rows of the table, their order, and the CSV, against the bundle's own reader of the record."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest
from ctfindings_client.record import COLUMNS, NOTICE, Record, evidence_line, next_order, ordered

from bundle.ctfindings.findings import FINDING_NAMES
from bundle.ctfindings.inference.findings_record import DISCLAIMER, FindingsRecord
from tests.plugins.slicer.conftest import BundleAnswer


@pytest.fixture
def record(bundle_answer: BundleAnswer) -> Record:
    return Record.parse(bundle_answer.record)


def _entry(**changes: Any) -> dict[str, Any]:
    place = {
        "peak_mm": [1.0, 2.0, 3.4],
        "z_mm": 3.0,
        "box_mm": [[0, 1, 2], [2, 3, 4]],
        "side": "left",
        "image": 86,
        "slice_axis": 2,
    }
    entry = {
        "name": "Emphysema",
        "probability": 0.4,
        "threshold": 0.3,
        "present": True,
        "anatomy": "lung",
        "anatomy_found": True,
    }
    return {**entry, "template_spread": {"min": 0.2, "max": 0.6}, "evidence": place, **changes}


def _record(*entries: dict[str, Any]) -> Record:
    return Record.parse(
        {"schema_version": "1.3", "scan": {"shape": [9, 8, 144]}, "findings": list(entries), "model": {}}
    )


def test_order_is_that_of_the_bundles_own_reader(record: Record, bundle_answer: BundleAnswer) -> None:
    expected = FindingsRecord.from_json(json.dumps(bundle_answer.record)).ordered()
    assert [row.name for row in ordered(record.rows)] == [answer.name for answer in expected]


def test_a_finding_that_was_not_assessed_is_last_and_shows_no_probability() -> None:
    unknown = _entry(name="Cardiomegaly", probability=0.99, present=None, not_assessed="the heart was not found")
    record = _record(unknown, _entry(present=False))
    for column in (None, COLUMNS.index("Probability")):
        assert ordered(record.rows, column, descending=True)[-1].name == "Cardiomegaly"
    row = record.rows[0]
    assert row.cells[1] == "-" and "0.99" not in row.hint and "the heart was not found" in row.hint
    assert "0.9900" in record.csv


@pytest.mark.parametrize("column", range(len(COLUMNS)))
def test_every_column_sorts_all_rows_both_ways(record: Record, column: int) -> None:
    rising, falling = (ordered(record.rows, column, descending) for descending in (False, True))
    assert {row.name for row in rising} == {row.name for row in falling} == set(FINDING_NAMES)
    keys = [row.cells[column].removesuffix(" ~") for row in rising]
    if COLUMNS[column] not in ("Place", "Image"):
        assert keys == sorted(keys)
    if COLUMNS[column] == "Image":
        images = [int(key.split(" of ")[0]) for key in keys if key]
        assert images == sorted(images) and keys[len(images) :] == [""] * (len(keys) - len(images))
    heights = [row.peak_mm[2] if row.place and row.peak_mm else float("-inf") for row in falling]
    if COLUMNS[column] == "Place":
        assert heights == sorted(heights, reverse=True)


def test_cells_say_what_the_finding_is() -> None:
    assert _record(_entry()).rows[0].cells == (
        "Emphysema",
        "0.40",
        "0.30",
        "present ~",
        "lung",
        "left of midline",
        "86 of 144",
    )
    assert "another wording would change the answer" in _record(_entry()).rows[0].hint
    alike = _record(_entry(template_spread={"min": 0.3, "max": 0.6})).rows[0]
    assert alike.cells[3] == "present" and "another wording" not in alike.hint
    assert _record(_entry(not_assessed="unlike", present=None)).rows[0].cells[3] == "not assessed"
    numbers = {"probability": 0.1062, "threshold": 0.1138, "template_spread": {"min": 0.1, "max": 0.11}}
    absent = _entry(present=False, anatomy_found=False, **numbers)
    assert _record(absent).rows[0].cells == ("Emphysema", "0.106", "0.114", "-", "lung", "", "")


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({"region": "left lower zone", "extent": "focal"}, "left lower zone"),
        ({"region": None, "extent": "diffuse"}, "diffuse"),
        ({"side": None}, "S 3 mm"),
    ],
)
def test_the_place_of_what_is_not_focal_is_its_extent_and_no_side(changes: dict[str, Any], place: str) -> None:
    entry = _entry()
    assert _record({**entry, "evidence": {**entry["evidence"], **changes}}).rows[0].place == place


def test_a_record_without_the_shape_of_its_scan_names_the_image_alone() -> None:
    record = Record.parse({"schema_version": "1.0", "findings": [_entry()], "model": {}})
    assert record.rows[0].cells[-1] == "86"


def test_images_are_those_of_the_bundles_record(record: Record, bundle_answer: BundleAnswer) -> None:
    for row, finding in zip(record.rows, bundle_answer.record["findings"], strict=True):
        place = finding["evidence"]
        images = bundle_answer.hu.shape[2]
        assert (row.image, row.images) == ((place["image"], images) if place else (None, None))
        if place:  # the scan's third axis runs from inferior to superior
            assert row.image == images - place["slice_index"]


def test_an_answer_is_said_in_a_line() -> None:
    assert evidence_line("Hernia", 0.8, None) == "Hernia: nothing in this scan speaks for it."
    assert evidence_line("Hernia", 0.8, -9.0) == "Hernia 0.80: strongest at I 9 mm."
    assert evidence_line("fluid", None, 9.0, 86, 144) == "fluid: strongest at S 9 mm, image 86 of 144."
    line = evidence_line("Hernia", 0.8, -9.0, 86, 144, where="left lower zone")
    assert line == "Hernia 0.80: strongest at image 86 of 144, left lower zone."


def test_a_first_click_shows_large_values_first_and_a_second_turns_the_order() -> None:
    probability, name = COLUMNS.index("Probability"), COLUMNS.index("Finding")
    assert next_order(probability, None, False) == (probability, True)
    assert next_order(probability, probability, True) == (probability, False)
    assert next_order(name, probability, True) == (name, False)


def test_the_range_and_the_notice_are_in_the_hint() -> None:
    hint = _record(_entry()).rows[0].hint
    assert "between 0.20 and 0.60" in hint and NOTICE in hint
    assert NOTICE in DISCLAIMER.replace("  ", " ")


def test_views_go_to_the_slice_not_between_two() -> None:
    assert _record(_entry()).rows[0].peak_mm == (1.0, 2.0, 3.0)


def test_csv_holds_the_numbers_of_the_record(record: Record, bundle_answer: BundleAnswer) -> None:
    lines = {line["finding"]: line for line in csv.DictReader(io.StringIO(record.csv))}
    assert len(lines) == 18
    for finding in bundle_answer.record["findings"]:
        line = lines[finding["name"]]
        assert float(line["probability"]) == pytest.approx(finding["probability"], abs=6e-5)
        assert bool(int(line["present"])) == finding["present"]
        if finding["evidence"]:
            assert float(line["z_mm"]) == pytest.approx(finding["evidence"]["z_mm"], abs=6e-3)
            assert (int(line["image"]), int(line["images"])) == (
                finding["evidence"]["image"],
                bundle_answer.hu.shape[2],
            )
        assert line["note"] == NOTICE


def test_a_record_survives_its_own_json(record: Record) -> None:
    assert Record.from_json(record.json) == record


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"schema_version": "2.0", "findings": []}, "schema 2.0; this module reads 1.x"),
        ({"findings": []}, "schema none"),
        ({"schema_version": "1.0"}, "not complete"),
        ({"schema_version": "1.0", "findings": [{"name": "Emphysema"}]}, "not complete"),
    ],
)
def test_records_that_cannot_be_read_are_refused(data: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Record.parse(data)
