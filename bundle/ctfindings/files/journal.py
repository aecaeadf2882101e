"""Resume journal: a parallel map that was stopped does not repeat the tasks it finished."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from bundle.ctfindings.files.parallel_map import Outcome, parallel_map


def resume(
    work: Callable[[Any], Any],
    tasks: Mapping[str, tuple[str, Any]],
    journal: Path,
    workers: int = 1,
    scheduler: str | None = None,
    *,
    holds: Callable[[str, Any], bool] = lambda key, result: True,
    fatal: type[Exception] | tuple[type[Exception], ...] = (),
    progress: str = "",
) -> Iterator[Outcome]:
    """``parallel_map`` that appends each result to a journal and skips the tasks whose results are in it.

    A task that failed is not in the journal; the next run tries it again.

    Args:
        work: function of a module whose result is plain JSON.
        tasks: signature and argument by key. A result in the journal counts only if the signature is the same, so it
            names all that the result depends on, such as the size and time of the input files.
        journal: JSON lines file; created if missing.
        holds: whether a journalled result of a key is still valid, for work that leaves files.

    For the other arguments and errors see ``parallel_map``; finished results stay in the journal.
    """
    kept = finished({key: signature for key, (signature, _) in tasks.items()}, journal, holds)
    for key, result in kept.items():
        yield Outcome(key, result, kept=True)
    remaining = {key: argument for key, (_, argument) in tasks.items() if key not in kept}
    for outcome in parallel_map(
        work, remaining, workers, scheduler, fatal=fatal, progress=progress, finished=len(kept)
    ):
        if not outcome.problem:
            append(journal, outcome.key, tasks[outcome.key][0], outcome.result)
        yield outcome


def finished(
    signatures: Mapping[str, str], journal: Path, holds: Callable[[str, Any], bool] = lambda key, result: True
) -> dict[str, Any]:
    """Results in a journal by key, of the keys whose signature is the same and whose result is still valid."""
    known = _read(journal)
    return {
        key: known[key][1]
        for key, signature in signatures.items()
        if key in known and known[key][0] == signature and holds(key, known[key][1])
    }


def append(journal: Path, key: str, signature: str, result: Any) -> None:
    """Adds a result to a journal."""
    entry = {"key": key, "signature": signature, "result": result}
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("ab+") as file:
        if file.tell():
            file.seek(-1, os.SEEK_END)
            if file.read() != b"\n":
                file.write(b"\n")  # An earlier run was killed while it wrote its last line.
        file.write(json.dumps(entry).encode() + b"\n")


def _read(journal: Path) -> dict[str, tuple[str, Any]]:
    """Last signature and result of each key; incomplete lines are skipped."""
    known: dict[str, tuple[str, Any]] = {}
    for line in journal.read_text(encoding="utf-8").splitlines() if journal.is_file() else ():
        with suppress(json.JSONDecodeError, KeyError, TypeError):
            entry = json.loads(line)
            known[entry["key"]] = entry["signature"], entry["result"]
    return known
