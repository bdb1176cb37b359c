"""Retention on SQLite: removes what is beyond a log's bounds, a slice a transaction."""

import sqlite3
from typing import NamedTuple

from signpost.log.sqlite.journal import Journal
from signpost.log.sqlite.schema import transaction
from signpost.log.sqlite.subjects import State

SLICE = 2_000  # records looked at in one transaction: the writer never stalls for longer
_CHUNK = 100


class _Row(NamedTuple):
    sequence: int
    subject: str
    size: int
    time_ns: int
    previous: int
    tombstone: bool


class Compaction:
    """For the writer's thread: one journal's retention."""

    def __init__(self, connection: sqlite3.Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal
        self._due_ns = 0  # no record is older than this: nothing to look for before it is beyond the age

    def step(self, now_ns: int) -> bool:
        """Remove a slice of what is beyond the bounds; whether there may be more."""
        journal, bound = self._journal, self._journal.settings.retention
        counters = journal.counters
        oldest = -1 if bound.max_age_s is None else now_ns - int(bound.max_age_s * 1e9)
        over_records = 0 if bound.max_records is None else counters.records - bound.max_records
        over_bytes = 0 if bound.max_bytes is None else counters.bytes - bound.max_bytes
        if oldest < self._due_ns and over_records <= 0 and over_bytes <= 0 and not journal.superseded:
            return False
        rows = self._rows(counters.examined if bound.keep_last else 0)
        journal.subjects.find([row.subject for row in rows])
        examined = counters.examined
        going: list[_Row] = []
        superseded = journal.superseded[:SLICE]
        self._due_ns = rows[-1].time_ns if len(rows) == SLICE else counters.time_ns
        for row in rows:
            if row.time_ns > oldest and over_records <= 0 and over_bytes <= 0:
                self._due_ns = row.time_ns
                break
            examined = row.sequence
            state = journal.subjects.known.get(row.subject)
            if bound.keep_last and row.previous:
                superseded.append(row.previous)
            if not bound.keep_last or state is None or state.last != row.sequence or row.tombstone:
                going.append(row)
                over_records -= 1
                over_bytes -= row.size
        if bound.keep_last:
            going += self._standing(superseded, counters.examined)
        self._remove(going, examined if bound.keep_last else 0)
        del journal.superseded[:SLICE]
        return bool(journal.superseded) or (len(rows) == SLICE and examined == rows[-1].sequence)

    def _rows(self, after: int) -> list[_Row]:
        return [
            _Row(*row)
            for row in self._connection.execute(
                f"SELECT sequence, subject, length(payload), time_ns, previous, tombstone FROM {self._journal.table}"  # noqa: S608
                " WHERE sequence > ? ORDER BY sequence LIMIT ?",
                (after, SLICE),
            ).fetchall()
        ]

    def _standing(self, sequences: list[int], examined: int) -> list[_Row]:
        # Those that were the last of their subject when compaction passed them, and are not any more.
        found: list[_Row] = []
        wanted = sorted({sequence for sequence in sequences if sequence <= examined})
        for start in range(0, len(wanted), _CHUNK):
            some = wanted[start : start + _CHUNK]
            found += [
                _Row(*row)
                for row in self._connection.execute(
                    "SELECT sequence, subject, length(payload), time_ns, previous, tombstone"  # noqa: S608
                    f" FROM {self._journal.table} WHERE sequence IN ({','.join('?' * len(some))})",
                    some,
                ).fetchall()
            ]
        self._journal.subjects.find([row.subject for row in found])
        return found

    def _remove(self, going: list[_Row], examined: int) -> None:
        journal, counters = self._journal, self._journal.counters
        states: dict[str, State | None] = {}
        for row in going:
            state = states[row.subject] if row.subject in states else journal.subjects.known.get(row.subject)
            if state is None or state.last == row.sequence:
                states[row.subject] = None
            else:
                states[row.subject] = state._replace(records=state.records - 1)
        horizon = max((row.sequence for row in going), default=0)
        after = counters._replace(
            horizon=max(counters.horizon, horizon),
            examined=max(counters.examined, examined),
            records=counters.records - len(going),
            bytes=counters.bytes - sum([row.size for row in going]),
            subjects=counters.subjects - sum([state is None for state in states.values()]),
        )
        if after == counters:
            return
        with transaction(self._connection):
            sequences = [row.sequence for row in going]
            for start in range(0, len(sequences), _CHUNK):
                some = sequences[start : start + _CHUNK]
                self._connection.execute(
                    f"DELETE FROM {journal.table} WHERE sequence IN ({','.join('?' * len(some))})",  # noqa: S608
                    some,
                )
            journal.subjects.write(states)
            journal.write_counters(after)
        journal.counters = after
        journal.subjects.written(states)
