"""Stand-ins for the parts of ``qt`` that the panel uses, with the widgets of a .ui file built from its XML.

A stand-in knows which properties, signals and methods the real class has and refuses every other: a misspelt name fails
a test here as it would fail in Slicer.
"""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

# Of each class: properties with the values they start with, and signals. From the documentation of Qt 5 and 6, CTK and
# Slicer.
CLASSES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "QLineEdit": (
        {"text": "", "placeholderText": "", "maxLength": 32767, "echoMode": "QLineEdit::Normal"},
        {"returnPressed()"},
    ),
    "QPlainTextEdit": ({"plainText": "", "placeholderText": ""}, {"textChanged()"}),
    "QPushButton": ({"text": ""}, {"clicked(bool)"}),
    "QCheckBox": ({"text": "", "checked": False}, {"toggled(bool)"}),
    "QLabel": ({"text": "", "wordWrap": False, "buddy": ""}, set()),
    "QProgressBar": ({"value": 0, "maximum": 100, "format": ""}, set()),
    "QTableWidget": ({"alternatingRowColors": False}, {"itemSelectionChanged()"}),
    "QHeaderView": ({}, {"sectionClicked(int)"}),
    "qMRMLNodeComboBox": (
        {"nodeTypes": [], "addEnabled": True, "removeEnabled": True, "noneEnabled": False, "showChildNodeTypes": True},
        {"currentNodeChanged(vtkMRMLNode*)"},
    ),
    "ctkSliderWidget": (
        {"minimum": 0.0, "maximum": 99.0, "singleStep": 1.0, "value": 0.0, "decimals": 2},
        {"valueChanged(double)"},
    ),
    "ctkPathLineEdit": ({"currentPath": "", "filters": ""}, {"currentPathChanged(QString)"}),
    "ctkCollapsibleButton": ({"text": "", "collapsed": False}, set()),
    "qMRMLWidget": ({"geometry": None}, {"mrmlSceneChanged(vtkMRMLScene*)"}),
}
COMMON = {"enabled": True, "visible": True, "toolTip": "", "styleSheet": "", "minimumSize": None, "accessibleName": ""}


class Widget:
    """A widget that holds its properties and calls what is connected to its signals."""

    def __init__(self, kind: str, name: str = "") -> None:
        properties, self._signals = CLASSES[kind]
        object.__setattr__(self, "_properties", {**COMMON, **properties})
        self._kind, self.objectName = kind, name
        self._slots: dict[str, list[Callable[..., Any]]] = {}
        self._blocked = False

    def __getattr__(self, name: str) -> Any:
        properties = self.__dict__["_properties"]
        if name not in properties:
            raise AttributeError(f"{self.__dict__['_kind']} {self.__dict__['objectName']} has no {name}")
        return properties[name]

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.__dict__.get("_properties", {}):
            self._properties[name] = value
        elif name.startswith("_") or name == "objectName":
            object.__setattr__(self, name, value)
        else:
            raise AttributeError(f"{self._kind} {self.objectName} has no property {name}")

    def connect(self, signal: str, slot: Callable[..., Any]) -> None:
        if signal not in self._signals:
            raise ValueError(f"{self._kind} {self.objectName} has no signal {signal}")
        self._slots.setdefault(signal, []).append(slot)

    def emit(self, signal: str, *values: Any) -> None:
        """What Qt does when the user acts."""
        assert signal in self._signals, signal
        if not self._blocked:
            for slot in self._slots.get(signal, []):
                slot(*values)

    def blockSignals(self, block: bool) -> bool:
        before, self._blocked = self._blocked, block
        return before

    def setToolTip(self, text: str) -> None:
        self.toolTip = text

    def setStyleSheet(self, text: str) -> None:
        self.styleSheet = text


class ProgressBar(Widget):
    """QProgressBar."""

    def __init__(self, name: str = "") -> None:
        super().__init__("QProgressBar", name)
        self._range, self._attributes = (0, 100), set()

    def setRange(self, low: int, high: int) -> None:
        self._range = (int(low), int(high))

    def setValue(self, value: int) -> None:
        assert isinstance(value, int)
        self.value = value

    def setFormat(self, text: str) -> None:
        self.format = text

    def setAttribute(self, attribute: str, on: bool = True) -> None:
        (self._attributes.add if on else self._attributes.discard)(attribute)


class NodeComboBox(Widget):
    """qMRMLNodeComboBox."""

    def __init__(self, name: str = "") -> None:
        super().__init__("qMRMLNodeComboBox", name)
        self._node: Any = None

    def currentNode(self) -> Any:
        return self._node

    def setCurrentNode(self, node: Any) -> None:
        self._node = node
        self.emit("currentNodeChanged(vtkMRMLNode*)", node)


class Panel(Widget):
    """qMRMLWidget."""

    def __init__(self, name: str = "") -> None:
        super().__init__("qMRMLWidget", name)
        self._children: list[Widget] = []

    def setMRMLScene(self, scene: Any) -> None:
        self._scene = scene


class Table(Widget):
    """QTableWidget. Selecting a row by hand or by program emits the same signal, as in Qt."""

    def __init__(self, name: str = "") -> None:
        super().__init__("QTableWidget", name)
        self._items: dict[tuple[int, int], Any] = {}
        self._cells: dict[tuple[int, int], Any] = {}
        self._selected = self._current = -1
        self._titles: list[str] = []
        self._count = 0
        self._header = Widget("QHeaderView", "horizontalHeader")

    def setColumnCount(self, count: int) -> None: ...

    def setHorizontalHeaderLabels(self, titles: list[str]) -> None:
        self._titles = titles

    def setSelectionBehavior(self, _value: str) -> None: ...

    def setSelectionMode(self, _value: str) -> None: ...

    def setEditTriggers(self, _value: str) -> None: ...

    def verticalHeader(self) -> Any:
        return SimpleNamespace(setVisible=lambda on: None)

    def horizontalHeader(self) -> Widget:
        return self._header

    def setRowCount(self, count: int) -> None:
        self._count = count
        for held in (self._items, self._cells):
            for place in [place for place in held if place[0] >= count]:
                del held[place]

    def setItem(self, row: int, column: int, item: Any) -> None:
        self._items[row, column] = item

    def setCellWidget(self, row: int, column: int, widget: Any) -> None:
        self._cells[row, column] = widget

    def resizeColumnsToContents(self) -> None: ...

    def setColumnWidth(self, _column: int, _width: int) -> None: ...

    def selectRow(self, row: int) -> None:
        if row != self._selected:
            self._selected = self._current = row
            self.emit("itemSelectionChanged()")

    def clearSelection(self) -> None:
        if self._selected != -1:
            self._selected = -1
            self.emit("itemSelectionChanged()")

    def currentRow(self) -> int:
        return self._current  # Qt keeps it when the selection is cleared

    def selectedItems(self) -> list[Any]:
        return [item for (row, _), item in self._items.items() if row == self._selected]

    def texts(self) -> list[list[str]]:
        """Rows of cell texts, for the test."""
        return [[self._items[row, column].text() for column in range(len(self._titles))] for row in range(self._count)]


class Item:
    """QTableWidgetItem."""

    def __init__(self, text: str) -> None:
        self._text, self._font = text, SimpleNamespace(bold=False)
        self._font.setBold = lambda on: setattr(self._font, "bold", on)

    def text(self) -> str:
        return self._text

    def setToolTip(self, _text: str) -> None: ...

    def font(self) -> Any:
        return self._font

    def setFont(self, font: Any) -> None:
        self._font = font


class Timer:
    """QTimer that the test fires."""

    def __init__(self) -> None:
        self._slot: Callable[[], None] | None = None
        self.active = False

    def setInterval(self, _milliseconds: int) -> None: ...

    def connect(self, signal: str, slot: Callable[[], None]) -> None:
        assert signal == "timeout()"
        self._slot = slot

    def start(self) -> None:
        self.active = True

    def stop(self) -> None:
        self.active = False

    def fire(self) -> None:
        """Lets the interval pass."""
        if self.active and self._slot is not None:
            self._slot()


class Clipboard:
    """QClipboard."""

    def __init__(self) -> None:
        self.copied = ""

    def setText(self, text: str) -> None:
        self.copied = text


CLIPBOARD = Clipboard()
_MADE: dict[str, Callable[[str], Widget]] = {
    "QProgressBar": ProgressBar,
    "qMRMLNodeComboBox": NodeComboBox,
    "QTableWidget": Table,
    "qMRMLWidget": Panel,
}


def load_ui(path: str | Path) -> Panel:
    """The widgets of a .ui file, with the properties that it sets."""
    root = ET.parse(path).getroot()
    widgets: list[Widget] = []
    for element in root.iter("widget"):
        kind, name = element.attrib["class"], element.attrib["name"]
        widget = _MADE[kind](name) if kind in _MADE else Widget(kind, name)
        for entry in element.findall("property"):
            setattr(widget, entry.attrib["name"], _value(entry[0]))
        widgets.append(widget)
    panel = widgets[0]
    assert isinstance(panel, Panel)
    panel._children = widgets[1:]
    return panel


def child_widgets(panel: Panel) -> SimpleNamespace:
    """What ``slicer.util.childWidgetVariables`` gives."""
    return SimpleNamespace(**{widget.objectName: widget for widget in panel._children})


def install() -> None:
    """Makes ``import qt`` work, and ``slicer.util`` load .ui files."""
    import slicer.util

    qt = ModuleType("qt")
    modes = SimpleNamespace(SelectRows="SelectRows", SingleSelection="SingleSelection", NoEditTriggers="NoEditTriggers")
    members = {
        "QAbstractItemView": modes,
        "Qt": SimpleNamespace(WA_TransparentForMouseEvents="WA_TransparentForMouseEvents"),
    }
    members |= {"QApplication": SimpleNamespace(clipboard=lambda: CLIPBOARD)}
    members |= {"QTableWidgetItem": Item, "QProgressBar": ProgressBar, "QTimer": Timer}
    for name, value in members.items():
        setattr(qt, name, value)
    sys.modules["qt"] = qt
    slicer.util.loadUI = load_ui
    slicer.util.childWidgetVariables = child_widgets


def _value(element: ET.Element) -> Any:
    text = element.text or ""
    readers: dict[str, Callable[[str], Any]] = {"bool": lambda value: value == "true", "number": int, "double": float}
    if element.tag == "stringlist":
        return [entry.text for entry in element]
    return readers.get(element.tag, str)(text)
