"""What the page shows: order of the table, names of places, the curve of a depth profile, and what a user has to agree
to.
"""

from typing import Any

import pytest
from ctfindings_client.record import COLUMNS, Row
from ctfindings_viewer import texts


def row(name: str, probability: float, threshold: float, z: float | None = 0.0, **changes: Any) -> Row:
    peak = None if z is None else (1.0, 2.0, z)
    values = {
        "anatomy": "lung",
        "anatomy_found": True,
        "spread": (0.0, 1.0),
        "side": "left",
        "peak_mm": peak,
        "box_mm": None,
    }
    return Row(
        name=name,
        probability=probability,
        threshold=threshold,
        present=probability >= threshold,
        **{**values, **changes},
    )


ROWS = [
    row("Atelectasis", 0.40, 0.50, -9.0, image=86, images=144),
    row("Lung nodule", 0.30, 0.20, 12.0),
    row("Emphysema", 0.90, 0.95, None),
    row("Hernia", 0.8, 0.1, 3.0),
]


def names(*order: Any) -> list[str]:
    return [shown["name"] for shown in texts.table_rows(ROWS, *order)]


def test_present_findings_come_first_then_the_more_probable_ones() -> None:
    assert names() == ["Hernia", "Lung nodule", "Emphysema", "Atelectasis"]


def test_a_column_orders_the_rows() -> None:
    assert names(COLUMNS.index("Finding"), False) == ["Atelectasis", "Emphysema", "Hernia", "Lung nodule"]
    assert names(COLUMNS.index("Probability"), True) == ["Emphysema", "Hernia", "Atelectasis", "Lung nodule"]
    assert names(COLUMNS.index("Place"), True) == ["Lung nodule", "Hernia", "Emphysema", "Atelectasis"]


def test_rows_carry_bar_threshold_and_cells() -> None:
    shown = next(shown for shown in texts.table_rows(ROWS) if shown["name"] == "Atelectasis")
    assert (shown["percent"], shown["threshold_percent"], shown["present"]) == (40.0, 50.0, False)
    assert shown["cells"] == ["Atelectasis", "0.40", "0.50", "- ~", "lung", "", ""], "an absent finding has no place"
    (read,) = texts.table_rows([row("Hernia", 0.8, 0.1)], mark=lambda name: f"read {name}: ")
    assert read["mark"] == "read Hernia: "


@pytest.mark.parametrize(
    ("axis", "millimetres", "text"),
    [
        (0, 5.0, "R 5.0 mm"),
        (0, -5.0, "L 5.0 mm"),
        (1, 0.0, "A 0.0 mm"),
        (1, -0.04, "A 0.0 mm"),
        (2, 12.34, "S 12.3 mm"),
        (2, -9.0, "I 9.0 mm"),
    ],
)
def test_places_are_named_as_slicer_names_them(axis: int, millimetres: float, text: str) -> None:
    assert texts.position(axis, millimetres) == text


def test_the_curve_runs_from_inferior_to_superior_and_its_top_is_its_maximum() -> None:
    curve = texts.depth_curve("fluid", [(-10.0, 0.0), (0.0, 0.5), (10.0, 0.25)], 5.0, lambda z: f"at {z:.0f}")
    assert curve is not None
    # 400 x 84 with a margin of 6: the middle is at 200, zero at 78, the maximum at 6, half of it at 42.
    assert curve["line"] == "6.0,78.0 200.0,6.0 394.0,42.0"
    assert curve["mark"] == [297.0, 24.0], "half way between the last two levels, on the line between them"
    assert (curve["low"], curve["shown"], curve["high"]) == ("at -10", "at 5", "at 10")


def test_nothing_has_no_curve() -> None:
    assert texts.depth_curve("asdf", [(-10.0, 0.0), (10.0, 0.0)], None, str) is None
    assert texts.depth_curve("fluid", [(0.0, 1.0)], 0.0, str) is None


@pytest.mark.parametrize(("across", "height"), [(0.5, 0.0), (0.0, -10.0), (1.0, 10.0), (103 / 400, -5.0)])
def test_a_click_on_the_curve_names_a_height(across: float, height: float) -> None:
    assert texts.height_at([(-10.0, 0.1), (0.0, 0.2), (10.0, 0.3)], across) == pytest.approx(height)


def test_a_server_on_this_computer_needs_no_consent_and_any_other_does() -> None:
    assert texts.remote_line("http://127.0.0.1:8000") == ""
    assert texts.remote_line("http://localhost:8000") == ""
    assert texts.remote_line("https://localhost:8000") == ""
    assert texts.remote_line("Https://ct.example.org")
    assert "NOT encrypted" in texts.remote_line("http://192.0.2.1:8000")
    encrypted = texts.remote_line("https://ct.example.org")
    assert "https://ct.example.org" in encrypted and "NOT" not in encrypted
