"""Files of an experiment: its results as JSON and its Markdown page."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.atomic_write import write_text

VARIANTS_FIGURE = "variants.png"
NOTES_FILE = "notes.md"
"""Interpretation written by hand; follows the title of the page if the file exists."""


def page_head(title: str, command: str, commit: str | None = None) -> list[str]:
    """The first lines of a page: its title, and the command that wrote its results.

    Args:
        title: Title of the page.
        command: Command that produced the results.
        commit: Commit of the results, if the code has changed since so that the command gives others.
    """
    made = "The command below writes the rest of this page from [results.json](results.json)."
    if commit is not None:
        made = (
            f"The rest of this page is written from [results.json](results.json), which the command below made at "
            f"commit `{commit}`. Objectives and expectations have changed since, so today it gives other results."
        )
    return [
        f"# {title}",
        "",
        "## Experiment",
        "",
        made,
        "",
        "```",
        command,
        "```",
        "",
    ]


def locked_tower_sentence(settings: Mapping[str, Any]) -> str:
    """The sentence about an image tower that was not trained; empty if the whole model was trained.

    Args:
        settings: Settings of the experiment; ``locked_image`` is the SHA-256 of the weights, or null.
    """
    if not settings.get("locked_image"):
        return ""
    return (
        "The image tower is locked. It comes from the weights with SHA-256 "
        f"`{settings['locked_image'][:12]}`, which were also trained with labels. "
        "Only the projections and the text tower train; objectives on tokens and masks are off. "
    )


def write_results(folder: Path, results: Mapping[str, Any], name: str = "results.json") -> None:
    """Writes the results of an experiment, from which its page is written, as JSON."""
    write_text(folder / name, json.dumps(results, indent=2, allow_nan=False) + "\n")


def write_page(folder: Path, lines: Sequence[str]) -> Path:
    """Writes ``README.md`` of an experiment: title, `NOTES_FILE` if it exists, other lines. Returns the page."""
    notes = folder / NOTES_FILE
    noted = ["", notes.read_text(encoding="utf-8").strip()] if notes.is_file() else []
    written = [lines[0], *noted, *lines[1:]]
    page = folder / "README.md"
    write_text(page, "\n".join(written) + "\n")
    return page
