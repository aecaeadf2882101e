"""Numbers in records and tables: null in JSON and a dash in a table where a number is not defined."""

import math
from typing import SupportsFloat


def number(value: float) -> float | None:
    """A value for JSON; None if it is not finite."""
    return float(value) if math.isfinite(value) else None


def interval_numbers(low: SupportsFloat, high: SupportsFloat) -> list[float | None]:
    """An interval for JSON."""
    return [number(float(low)), number(float(high))]


def cell(value: float | None) -> str:
    """A value for a plain-text table."""
    return "-" if value is None else f"{value:.3f}"
