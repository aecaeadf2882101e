"""Work on many files in processes, with a journal: a run that was stopped does not do again what it has done."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from bundle.ctfindings.files.process_pool import Argument, in_parallel


class Entry(NamedTuple):
    """One line of a journal.

    Attributes:
        signature: of the input, such as its size and time; another one makes the result stale.
        result: what the work gave, plain JSON.
    """

    signature: str
    result: dict[str, Any]


def work_through(
    work: Callable[[Argument], dict[str, Any]],
    tasks: Mapping[str, tuple[str, Argument]],
    journal: Path,
    workers: int,
    holds: Callable[[str, dict[str, Any]], bool] = lambda key, result: True,
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The result of each task by its key, in any order; those in the journal whose signature is the same are not worked
    on again.

    Each result is appended to the journal as soon as it is there.

    Args:
        work: a function of a module; processes import it by name.
        tasks: signature and argument by key.
        journal: JSON lines; made when missing.
        workers: processes; 1 works in this process.
        holds: whether a result in the journal, with its key, is still good; for work that leaves files.

    Raises:
        WorkerKilled: what was done stays in the journal.
    """
    known = read_journal(journal)
    remaining: dict[str, Argument] = {}
    for key, (signature, argument) in tasks.items():
        if key in known and known[key].signature == signature and holds(key, known[key].result):
            yield key, known[key].result
        else:
            remaining[key] = argument
    if not remaining:
        return
    journal.parent.mkdir(parents=True, exist_ok=True)
    with journal.open("a", encoding="utf-8") as file:
        if file.tell() and not journal.read_bytes().endswith(b"\n"):
            file.write("\n")  # The last line was cut off.
        for key, result in in_parallel(work, remaining, workers):
            file.write(json.dumps({"key": key, "signature": tasks[key][0], "result": result}) + "\n")
            file.flush()
            yield key, result


def read_journal(journal: Path) -> dict[str, Entry]:
    """The last entry of each key; lines that were cut off are none."""
    known: dict[str, Entry] = {}
    if journal.is_file():
        for line in journal.read_text(encoding="utf-8").splitlines():
            try:
                entry = json.loads(line)
                known[entry["key"]] = Entry(entry["signature"], entry["result"])
            except (json.JSONDecodeError, KeyError, TypeError):
                continue
    return known
