"""Retention on SQLite: removes what is beyond a log's bounds, a slice a transaction."""

import contextlib
import sqlite3
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Generator, Sequence
from itertools import islice
from typing import NamedTuple

from protos.storage.v1.storage_pb2 import RecordBatch
from signpost.log.sqlite import batches
from signpost.log.sqlite.journal import Journal
from signpost.log.sqlite.schema import transaction
from signpost.log.sqlite.subjects import State

SLICE = 2_000  # records looked at in one transaction: the writer never stalls for longer
PASS_S = 0.1  # between passes that took all there was: a log at its bound would have one after each commit
SWEEP_BATCHES = 50  # written anew in one transaction, for one record or for all of theirs
# Between sweeps for superseded records, which lie anywhere: the longer, the more of them go with one batch.
SWEEP_S = 5.0
MARKS = 16  # within an age: a record whose time is ahead of the clock stays for that part of it longer, at most


class _Row(NamedTuple):
    sequence: int
    subject: str
    size: int
    time_ns: int
    previous: int
    tombstone: bool


class _Seen:
    """How old records are at least whose times are ahead of the clock: as old as they have been seen here.

    Times never go back in a log. So where the clock was ahead for a moment, by a year, what is stored from then on has
    that time for a year, and no age. `through`: what stands up to it is beyond the age all the same. Nothing is before
    the clock itself says so. A process that starts counts anew.
    """

    def __init__(self) -> None:
        self.through = 0
        self._marks: deque[tuple[int, int]] = deque()  # the clock, and the last sequence then; both rise

    def look(self, last: int, now_ns: int, age_ns: int, *, is_ahead: bool) -> None:
        marks = self._marks
        while marks and marks[-1][0] > now_ns:  # it was ahead when it said this
            marks.pop()
        if is_ahead and (not marks or marks[-1][0] <= now_ns - age_ns // MARKS):
            marks.append((now_ns, last))
        while marks and marks[0][0] <= now_ns - age_ns:
            self.through = marks.popleft()[1]


class Compaction:
    """For the writer's thread: one journal's retention."""

    def __init__(self, connection: sqlite3.Connection, journal: Journal) -> None:
        self._connection = connection
        self._journal = journal
        # No record is older than this, or stands before that: nothing to look for before it is beyond the age.
        self._due_ns, self._due_sequence = 0, 1
        self._seen = _Seen()
        self._loaded = journal.counters.last  # what these superseded was not noted when they were stored
        self._noted = 0  # up to here it has been since
        self._wanted: list[int] = []  # of the sweep that is under way; rising
        self._pass_at = self._sweep_at = 0.0

    def hurry(self) -> None:
        """Wait for nothing at the next step."""
        self._pass_at = self._sweep_at = 0.0

    def step(self, now_ns: int) -> bool:
        """Remove a slice of what is beyond the bounds; whether there may be more."""
        if self._wanted:
            self._sweep()
            return True
        return self._pass(now_ns) or self._sweep()

    def _pass(self, now_ns: int) -> bool:
        journal, bound = self._journal, self._journal.settings.retention
        counters, now = journal.counters, time.monotonic()
        oldest = -1
        if bound.max_age_s is not None:
            age_ns = int(bound.max_age_s * 1e9)
            oldest = now_ns - age_ns
            self._seen.look(counters.last, now_ns, age_ns, is_ahead=counters.time_ns > now_ns)
        is_due = oldest >= self._due_ns or self._seen.through >= self._due_sequence
        over_records = 0 if bound.max_records is None else counters.records - bound.max_records
        over_bytes = 0 if bound.max_bytes is None else counters.bytes - bound.max_bytes
        if (not is_due and over_records <= 0 and over_bytes <= 0) or now < self._pass_at:
            return False
        if bound.keep_last and self._note(oldest, over_records, over_bytes):
            return True
        examined = counters.examined if bound.keep_last else 0
        found: dict[int, RecordBatch] = {}
        going: list[_Row] = []
        seen = 0
        due_ns, due_sequence, more = counters.time_ns, counters.last + 1, False
        with contextlib.closing(self._after(examined)) as rows:
            for key, batch, row in rows:
                stays = self._is_young(row, oldest) and over_records <= 0 and over_bytes <= 0
                # What it superseded goes first: once this one is examined, or gone as a tombstone, no start finds that.
                waits = row.previous in journal.superseded or (bound.keep_last and self._is_unnoted(row.sequence))
                if seen == SLICE or stays or waits:
                    due_ns, due_sequence, more = row.time_ns, row.sequence, not stays
                    break
                seen += 1
                examined = row.sequence
                if not bound.keep_last or self._goes(row):
                    found[key] = batch
                    going.append(row)
                    over_records -= 1
                    over_bytes -= row.size
        self._remove(found, going, examined if bound.keep_last else 0)
        # Not before: what could not be removed is looked for again.
        self._due_ns, self._due_sequence = due_ns, due_sequence
        if not more:
            self._pass_at = now + PASS_S
        elif seen < SLICE:
            self._begin_sweep()
        return more

    def _sweep(self) -> bool:
        """Remove records that were the last of their subject when the pass reached them, and are not any more."""
        if not self._wanted:
            if not self._journal.superseded or time.monotonic() < self._sweep_at:
                return False
            self._begin_sweep()
        found: dict[int, RecordBatch] = {}
        going: list[_Row] = []
        through = self._wanted[-1]
        spanning = batches.rows_of(self._connection, self._journal.counters.id, self._wanted)
        for count, (key, batch, places) in enumerate(islice(spanning, SWEEP_BATCHES), 1):
            if places:
                found[key] = batch
                going += [_row(batch, at) for at in places]
            if count == SWEEP_BATCHES:
                through = key
        self._journal.subjects.find([row.subject for row in going])
        self._remove(found, going, 0)
        del self._wanted[: bisect_right(self._wanted, through)]
        return bool(self._wanted)

    def _begin_sweep(self) -> None:
        superseded = self._journal.superseded
        self._sweep_at = time.monotonic() + SWEEP_S
        self._wanted = sorted(superseded)
        superseded.clear()

    def _goes(self, row: _Row) -> bool:
        """Whether it goes though the last of each subject is kept."""
        state = self._journal.subjects.known.get(row.subject)
        return state is None or state.last != row.sequence or row.tombstone

    def _is_young(self, row: _Row, oldest: int) -> bool:
        return row.time_ns > oldest and row.sequence > self._seen.through

    def _is_unnoted(self, sequence: int) -> bool:
        return self._noted < sequence <= self._loaded

    def _note(self, oldest: int, over_records: int, over_bytes: int) -> bool:
        """Note a slice of what those superseded that a pass is to examine; whether there may be more.

        All of it before the pass, so that it goes in one sweep.
        """
        journal, start = self._journal, max(self._journal.counters.examined, self._noted)
        if start >= self._loaded:
            return False
        seen = 0
        with contextlib.closing(self._after(start)) as rows:
            for _, _, row in rows:
                stays = self._is_young(row, oldest) and over_records <= 0 and over_bytes <= 0
                if seen == SLICE or stays or row.sequence > self._loaded:
                    break
                seen += 1
                if self._goes(row):  # as the pass counts, which would end here else, for each record anew
                    over_records -= 1
                    over_bytes -= row.size
                self._noted = row.sequence
                if 0 < row.previous <= journal.counters.examined:
                    journal.superseded.add(row.previous)
        return seen == SLICE

    def _after(self, sequence: int) -> Generator[tuple[int, RecordBatch, _Row], None, None]:
        """The records after a sequence, each with its batch and that one's key; their subjects are known."""
        for key, _, encoded in batches.rows_after(self._connection, self._journal.counters.id, sequence):
            batch = batches.decoded(encoded)
            first = bisect_right(batch.sequences, sequence)
            self._journal.subjects.find(batch.subjects[first:])
            for at in range(first, len(batch.sequences)):
                yield key, batch, _row(batch, at)

    def _remove(self, found: dict[int, RecordBatch], going: Sequence[_Row], examined: int) -> None:
        journal, counters = self._journal, self._journal.counters
        states: dict[str, State | None] = {}
        for row in going:
            state = states[row.subject] if row.subject in states else journal.subjects.known.get(row.subject)
            if state is None or state.last == row.sequence:
                states[row.subject] = None
            else:
                states[row.subject] = state._replace(records=state.records - 1)
        sequences = {row.sequence for row in going}
        after = counters._replace(
            horizon=max(counters.horizon, max(sequences, default=0)),
            examined=max(counters.examined, examined),
            records=counters.records - len(going),
            bytes=counters.bytes - sum([row.size for row in going]),
            subjects=counters.subjects - sum([state is None for state in states.values()]),
        )
        if after == counters:
            return
        with transaction(self._connection):
            for key, batch in found.items():
                batches.remove(self._connection, counters.id, key, batch, sequences)
            journal.subjects.write(states)
            journal.write_counters(after)
        journal.counters = after
        journal.subjects.written(states)


def _row(batch: RecordBatch, at: int) -> _Row:
    return _Row(
        batch.sequences[at],
        batch.subjects[at],
        len(batch.payloads[at]),
        batch.times_ns[at],
        batch.previous[at],
        batch.tombstones[at],
    )
