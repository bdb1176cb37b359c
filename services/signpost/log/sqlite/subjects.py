"""What a log's writer knows of each subject: its last record, how many there are.

The newest state is in memory and goes to the `subjects` table in batches, sorted, because a write of
one row for each append would write a page for each. A row is absolute, and records after the log's
`flushed` are looked at again at the next start, so a crash between loses nothing.
"""

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

CACHE = 100_000  # subjects kept in memory although nothing about them waits to be written
SLICE = 2_000  # subjects written in one transaction: the writer never stalls for longer
_LOOKUP = 100


class State(NamedTuple):
    """One subject: `first` is at most the sequence of the first record still there."""

    last: int
    records: int
    first: int
    tombstone: bool


class Subjects:
    """The states of one log's subjects. Owned by the writer's thread; `known` may be read from others."""

    def __init__(self, connection: sqlite3.Connection, log_id: int) -> None:
        self._connection = connection
        self._table = f"subjects_{log_id}"
        self._select = f"SELECT subject, last, records, first, tombstone FROM {self._table} WHERE subject"  # noqa: S608
        self.known: dict[str, State] = {}  # committed, and all of `dirty`
        self.dirty: set[str] = set()

    def find(self, names: Iterable[str]) -> set[str]:
        """Bring what the table has of these subjects into `known`; those that it does not have."""
        known = self.known
        unknown = {name for name in set(names) if name not in known}  # a difference would go through all of the keys
        missing = list(unknown)
        for start in range(0, len(missing), _LOOKUP):
            some = missing[start : start + _LOOKUP]
            if len(some) > 1:
                some += [some[0]] * (_LOOKUP - len(some))  # one prepared statement for any number
            marks = ",".join("?" * len(some))
            for name, last, records, first, tombstone in self._connection.execute(
                f"{self._select} IN ({marks})", some
            ).fetchall():
                self.known[name] = State(last, records, first, bool(tombstone))
                unknown.discard(name)
        return unknown

    def commit(self, changed: dict[str, State]) -> None:
        """Take over what a committed transaction has changed; it is written by a later flush."""
        self.known.update(changed)
        self.dirty.update(changed)

    def forget_clean(self) -> None:
        """Let go of the oldest states that the table has, where there are too many."""
        if len(self.known) - len(self.dirty) > CACHE:
            clean = [name for name in self.known if name not in self.dirty]
            for name in clean[: len(clean) // 2]:
                del self.known[name]

    def write(self, states: dict[str, State | None]) -> None:
        """Write rows (None: remove) within the caller's transaction."""
        gone = [(name,) for name, state in states.items() if state is None]
        kept = [(name, *state) for name, state in sorted(states.items()) if state is not None]
        if kept:
            self._connection.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?, ?, ?, ?)", kept)  # noqa: S608
        if gone:
            self._connection.executemany(f"DELETE FROM {self._table} WHERE subject = ?", gone)  # noqa: S608

    def written(self, states: dict[str, State | None]) -> None:
        """Take over what `write` wrote, once it is committed."""
        for name, state in states.items():
            self.dirty.discard(name)
            if state is None:
                self.known.pop(name, None)
            else:
                self.known[name] = state
