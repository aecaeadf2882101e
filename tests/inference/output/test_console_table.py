"""The table on the console: present findings first, in lines that fit a terminal."""

import dataclasses

from bundle.ctfindings.inference.output.console_table import WIDTH, format_findings


def test_console_shows_present_findings_first_in_lines_that_fit(case) -> None:
    noisy = dataclasses.replace(case.record.queries[0], text="a very long question about the chest\x1b[31m " * 5)
    text = format_findings(dataclasses.replace(case.record, queries=[noisy], warnings=["word " * 60]))
    assert max(len(line) for line in text.splitlines()) <= WIDTH
    assert text.index("Lung nodule") < text.index("Cardiomegaly")
    assert "Hiatal hernia" in text and "Hiatal hernia *" not in text and "Research only. Not a diagnosis." in text
    assert "\x1b" not in text


def test_a_verdict_that_hangs_on_the_wording_is_marked(case) -> None:
    first = case.record.findings[0]
    for spread, marked in (((0.3, 0.5), True), ((0.4, 0.5), False), ((0.2, 0.3), False)):
        spread = {"min": spread[0], "max": spread[1]}
        answer = dataclasses.replace(first, threshold=0.4, present=True, template_spread=spread)
        text = format_findings(dataclasses.replace(case.record, findings=[answer]))
        assert ("YES ~" in text) == ("~ borderline: single prompt templates" in text) == marked
        unknown = dataclasses.replace(answer, present=None, not_assessed="unlike")
        assert "~" not in format_findings(dataclasses.replace(case.record, findings=[unknown]))


def test_a_place_without_a_name_is_the_anatomy_with_its_side_or_extent(case) -> None:
    answer = dataclasses.replace(case.record.findings[0], present=True, anatomy="thorax")
    evidence = dataclasses.replace(answer.evidence or case.record.queries[0].evidence, side="right", region=None)
    for changes, place in (
        ({"region": "right hilum"}, "right hilum"),
        ({}, "thorax, right of midline"),
        ({"region": "left middle zone"}, "thorax, left middle zone"),
        ({"side": None}, "thorax"),
        ({"extent": "scattered", "box_mm": None}, "thorax, scattered"),
    ):
        found = dataclasses.replace(answer, evidence=dataclasses.replace(evidence, **changes))
        text = format_findings(dataclasses.replace(case.record, findings=[found]))
        (row,) = [line for line in text.splitlines() if line.startswith(answer.name)]
        assert f"YES          {place}  " in row and len(row) <= WIDTH
        absent = dataclasses.replace(found, present=False)
        assert "no           thorax\n" in format_findings(dataclasses.replace(case.record, findings=[absent]))


def test_the_notice_comes_before_the_findings(case) -> None:
    text = format_findings(dataclasses.replace(case.record, notice="Outside the domain: nothing is reliable."))
    assert text.index("Outside the domain: nothing is reliable.") < text.index("Finding ")


def test_a_probability_just_below_its_threshold_does_not_look_like_it(case) -> None:
    for probability, threshold, shown in (
        (0.4, 0.5, ["0.40", "0.50"]),
        (0.1062, 0.1138, ["0.106", "0.114"]),
        (0.11013, 0.11048, ["0.1101", "0.1105"]),
        (0.11, 0.11, ["0.11", "0.11"]),
    ):
        answer = dataclasses.replace(case.record.findings[0], probability=probability, threshold=threshold)
        text = format_findings(dataclasses.replace(case.record, findings=[answer]))
        (row,) = [line for line in text.splitlines() if line.startswith(answer.name)]
        assert [cell for cell in row.split() if cell.startswith("0.")] == shown
        assert len(row) <= WIDTH


def row_of_query(case, **changes) -> list[str]:
    query = dataclasses.replace(case.record.queries[0], text="fluid", evidence=None, **changes)
    (row,) = [
        row
        for row in format_findings(dataclasses.replace(case.record, queries=[query])).splitlines()
        if row[:5] == "fluid"
    ]
    return row.split()


def test_a_query_that_was_not_assessed_has_no_place(case) -> None:
    assert row_of_query(case, not_assessed="unlike") == ["fluid", "-", "not", "assessed", "lung"]


def test_a_query_that_means_nothing_has_no_anatomy(case) -> None:
    assert row_of_query(case, percentile=0.9) == ["fluid", "0.60", "lung"]
    assert row_of_query(case, score=0.0) == ["fluid", "-"]


def test_findings_that_were_not_assessed_come_last_without_a_number(case) -> None:
    first, *others = case.record.findings
    unknown = dataclasses.replace(first, present=None, probability=0.99, not_assessed="unlike")
    text = format_findings(dataclasses.replace(case.record, findings=[unknown, *others]))
    rows = [line for line in text.splitlines() if line.startswith(tuple(each.name for each in case.record.findings))]
    assert rows[-1].startswith(unknown.name) and "not assessed" in rows[-1] and "0.99" not in rows[-1]


def test_the_reason_why_findings_were_not_assessed_stands_below_the_table(case) -> None:
    few = "too few scans with and without this finding"
    first, *others = case.record.findings
    unknown = [dataclasses.replace(first, present=None, not_assessed=few)]
    record = dataclasses.replace(case.record, findings=[*unknown, *others])
    assert f"Not assessed (1 of 3): {few}." in format_findings(record)
    # A notice on the whole scan gives the reason already.
    every = [dataclasses.replace(answer, present=None, not_assessed="unlike") for answer in case.record.findings]
    assert "(3 of 3)" not in format_findings(dataclasses.replace(record, findings=every, notice="Outside"))
    assert "Not assessed (3 of 3): unlike." in format_findings(dataclasses.replace(record, findings=every))
