"""What a source left out and what it noticed: one entry for each row or file, counted by reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple


class Entry(NamedTuple):
    """A row or file that was left out or noticed.

    Attributes:
        line: line of the table; 0 for a file that no row names.
        id: study or file name.
        reason: a few words that are the same for all entries of a kind.
        detail: what exactly; one sentence.
    """

    line: int
    id: str
    reason: str
    detail: str


@dataclass
class Ledger:
    """The entries of one preparation.

    Attributes:
        dropped: studies that are not in the datalist.
        noticed: studies that are, without something; and files that were not used.
    """

    dropped: list[Entry] = field(default_factory=list)
    noticed: list[Entry] = field(default_factory=list)

    def drop(self, line: int, identity: str, reason: str, detail: str) -> None:
        """Records a study that is left out."""
        self.dropped.append(Entry(line, identity, reason, detail))

    def notice(self, line: int, identity: str, reason: str, detail: str) -> None:
        """Records something that does not keep a study out."""
        self.noticed.append(Entry(line, identity, reason, detail))

    def counts(self) -> dict[str, dict[str, int]]:
        """Entries by reason, the most frequent first."""
        return {
            name: dict(Counter(entry.reason for entry in entries).most_common())
            for name, entries in (("dropped", self.dropped), ("noticed", self.noticed))
        }
