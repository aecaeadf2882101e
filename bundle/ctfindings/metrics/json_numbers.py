"""Numbers as records hold them: null in JSON where there is none, a dash in a table."""

from __future__ import annotations

import math
from typing import SupportsFloat


def number(value: float) -> float | None:
    """A value for JSON: None when it is not finite."""
    return float(value) if math.isfinite(value) else None


def interval_numbers(low: SupportsFloat, high: SupportsFloat) -> list[float | None]:
    """An interval for JSON."""
    return [number(float(low)), number(float(high))]


def cell(value: float | None) -> str:
    """A value for a table in plain text."""
    return "-" if value is None else f"{value:.3f}"
