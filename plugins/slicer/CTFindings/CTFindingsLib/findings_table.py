"""The table of findings in the panel: a bar for each probability, present findings marked, sorted by a click on a
column's head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt

from ctfindings_client.record import COLUMNS, Row, next_order, ordered

_BAR = COLUMNS.index("Probability")
_BAR_WIDTH = 110
"""In pixels."""

_PRESENT_STYLE = (
    "QProgressBar { border: 0; background: #e8e8e8; color: black; } QProgressBar::chunk { background: #e9a23b; }"
)
_ABSENT_STYLE = (
    "QProgressBar { border: 0; background: #e8e8e8; color: black; } QProgressBar::chunk { background: #a8b4c0; }"
)


class FindingsTable:
    """Fills a ``QTableWidget``. Sorting is done here: Qt would sort the text and leave the bars where they are.

    Args:
        widget: the table.
        chosen: called with a row when the user selects it.
        cleared: called when no row is selected any more.
    """

    def __init__(self, widget: Any, chosen: Callable[[Row], None], cleared: Callable[[], None]) -> None:
        self._widget = widget
        self._chosen = chosen
        self._cleared = cleared
        self._rows: list[Row] = []
        self._column: int | None = None
        self._descending = False
        self._mark: Callable[[str], str] = lambda name: ""
        widget.setColumnCount(len(COLUMNS))
        widget.setHorizontalHeaderLabels(list(COLUMNS))
        widget.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        widget.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        widget.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        widget.verticalHeader().setVisible(False)
        widget.horizontalHeader().connect("sectionClicked(int)", self.sort)
        widget.connect("itemSelectionChanged()", self._on_selection)

    @property
    def rows(self) -> list[Row]:
        """The rows as they are shown, top to bottom."""
        return list(self._rows)

    def fill(self, rows: Sequence[Row]) -> None:
        """Shows other rows, present findings first; nothing is selected."""
        self._column, self._descending = None, False
        self._show(ordered(rows))

    def sort(self, column: int) -> None:
        """Sorts by a column, falling first where large is of interest; a second click turns the order around."""
        self._column, self._descending = next_order(column, self._column, self._descending)
        selected = self._selected()
        self._show(ordered(self._rows, column, self._descending), "" if selected is None else selected.name)

    def mark(self, mark: Callable[[str], str]) -> None:
        """Puts a sign before the names of findings; the selection stays."""
        self._mark = mark
        selected = self._selected()
        self._show(self._rows, "" if selected is None else selected.name)

    def select(self, index: int) -> None:
        """Selects a row as if it was clicked."""
        self._widget.selectRow(index)

    def _show(self, rows: Sequence[Row], selected: str = "") -> None:
        self._rows = list(rows)
        blocked = self._widget.blockSignals(True)
        self._widget.clearSelection()
        self._widget.setRowCount(len(self._rows))
        for index, row in enumerate(self._rows):
            for column, text in enumerate(row.cells):
                sign = self._mark(row.name) if column == 0 else ""
                item = qt.QTableWidgetItem("" if column == _BAR else sign + text)
                item.setToolTip(row.hint)
                if row.present:
                    font = item.font()
                    font.setBold(True)
                    item.setFont(font)
                self._widget.setItem(index, column, item)
            self._widget.setCellWidget(index, _BAR, _bar(row))
            if row.name == selected:
                self._widget.selectRow(index)
        self._widget.resizeColumnsToContents()
        self._widget.setColumnWidth(_BAR, _BAR_WIDTH)
        self._widget.blockSignals(blocked)

    def _selected(self) -> Row | None:
        index = self._widget.currentRow()
        return self._rows[index] if 0 <= index < len(self._rows) and self._widget.selectedItems() else None

    def _on_selection(self) -> None:
        row = self._selected()
        if row is None:
            self._cleared()
        else:
            self._chosen(row)


def _bar(row: Row) -> Any:
    bar = qt.QProgressBar()
    bar.setRange(0, 100)
    bar.setValue(max(0, round(100 * row.shown_probability)))
    bar.setFormat(row.cells[_BAR])
    bar.setStyleSheet(_PRESENT_STYLE if row.present else _ABSENT_STYLE)
    bar.setToolTip(row.hint)
    bar.setAttribute(qt.Qt.WA_TransparentForMouseEvents, True)  # a click on the bar selects its row
    return bar
