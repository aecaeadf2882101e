"""Running the preparing scripts as a user does, and reading what they wrote."""

import csv
import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

SHAPE = (32, 32, 24)


class Prepared(NamedTuple):
    """What a script left."""

    datalist: dict[str, Any]
    card: dict[str, Any]
    ledger: list[dict[str, str]]

    @property
    def studies(self) -> dict[str, dict[str, Any]]:
        """Records by id."""
        return {study["id"]: study for split in ("training", "validation", "test") for study in self.datalist[split]}

    def reasons(self, what: str = "left out") -> dict[str, str]:
        """Reason by id."""
        return {entry["id"]: entry["reason"] for entry in self.ledger if entry["what"] == what}


Prepare = Callable[..., Prepared]


@pytest.fixture
def prepare(bundle_root: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Runs ``scripts/<name>`` with arguments, the output folder last."""

    def run(name: str, *arguments: object) -> Prepared:
        monkeypatch.setattr(sys, "argv", [name, *map(str, arguments), "--workers", "1"])
        runpy.run_path(str(bundle_root / "scripts" / name), run_name="__main__")
        output = Path(str(arguments[list(arguments).index("--output") + 1]))
        with (output / "ledger.csv").open(encoding="utf-8", newline="") as file:
            ledger = list(csv.DictReader(file))
        datalist, card = (
            json.loads((output / file).read_text(encoding="utf-8")) for file in ("datalist.json", "data_card.json")
        )
        return Prepared(datalist, card, ledger)

    return run


@pytest.fixture(scope="session")
def chest() -> np.ndarray:
    """HU (X, Y, Z) int16 in RAS, voxels of 9 x 9 x 12 mm: a body, two unlike lungs, bone at the left front top."""
    x, y, z = np.meshgrid(*(np.arange(size, dtype=float) for size in SHAPE), indexing="ij")
    volume = np.full(SHAPE, -1000.0)
    volume[((x - 16) / 13) ** 2 + ((y - 16) / 10) ** 2 < 1] = 40
    for centre, radius in ((10, 4.5), (22, 3.5)):
        volume[((x - centre) / radius) ** 2 + ((y - 16) / 6) ** 2 + ((z - 12) / 10) ** 2 < 1] = -850
    volume[(x - 9) ** 2 + (y - 22) ** 2 + (z - 19) ** 2 < 5] = 700
    return (volume + 5 * np.sin(x + 2 * y + 3 * z)).round().astype(np.int16)
