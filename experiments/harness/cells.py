"""Cells of the Markdown tables of an experiment."""

from collections.abc import Mapping, Sequence
from typing import Any


def cell(value: float | None) -> str:
    """A number with three digits after the point, four below 0.1; a dash if it is not defined."""
    return "-" if value is None else f"{value:.4f}" if abs(value) < 0.1 else f"{value:.3f}"


def interval_cell(limits: Sequence[float | None]) -> str:
    """The limits of an interval."""
    return f"{cell(limits[0])} to {cell(limits[1])}"


def with_sd(value: float | None, spread: float | None) -> str:
    """A number with its SD in brackets, if there is one."""
    return cell(value) + (f" ({cell(spread)})" if spread is not None else "")


def difference_cell(row: Mapping[str, Any], key: str, primary: Sequence[str]) -> str:
    """A difference with its interval; bold for a primary outcome of which the interval excludes zero."""
    if row[key] is None:
        return "-"
    low, high = row[f"{key}_interval"]
    text = f"{cell(row[key])} ({interval_cell([low, high])})"
    return f"**{text}**" if key in primary and low is not None and (low > 0 or high < 0) else text


def seeded_difference_cell(
    row: Mapping[str, Any], key: str, primary: Sequence[str], over_seeds: tuple[float, float] | None
) -> str:
    """A difference with its intervals by patient and over the seeds; bold for a primary outcome that differs by seed.

    Args:
        row: Differences and their intervals.
        key: The measure.
        primary: Outcomes that may be bold.
        over_seeds: Limits over the seeds, see ``seed_interval``; None with one seed, where nothing is bold.
    """
    if over_seeds is None or row[key] is None:
        return difference_cell(row, key, ())
    text = f"{cell(row[key])} ({interval_cell(row[f'{key}_interval'])}; seeds {interval_cell(over_seeds)})"
    return f"**{text}**" if key in primary and (over_seeds[0] > 0 or over_seeds[1] < 0) else text
