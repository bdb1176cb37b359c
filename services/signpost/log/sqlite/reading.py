"""Reading one log: each function runs on a reader's thread, on its own snapshot of the file."""

import re
import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from signpost.log import positions
from signpost.log.base import Bounds, Page, Record, Statistics, SubjectInfo
from signpost.log.sqlite import batches
from signpost.log.sqlite.journal import COUNTERS, Counters, EpochMoved
from signpost.log.sqlite.subjects import State
from signpost.log.subjects import is_exact, matcher
from signpost.wire import varint

RANGE = 50_000  # sequences that one statement scans for a filter
CHAIN_RECORDS = 2_000  # a subject with more records is scanned for, not walked along its chain
HOP_RECORDS = 500  # one step along the chain takes as long as the scan of so many records
_SUBJECT_TAG = b"\x12"  # of a subject in an encoded batch: field 2, with a length


class Query(NamedTuple):
    """The arguments of `Log.read`."""

    after: int
    subjects: str | None
    limit: int
    max_bytes: int
    allow_gaps: bool


class Listing(NamedTuple):
    """The arguments of `Log.subjects`, and the subjects that the table is behind with."""

    subjects: str | None
    after_subject: str
    limit: int
    unflushed: dict[str, State]


def _needle(subjects: str | None) -> bytes:
    """Bytes that stand in every encoded batch with a matching subject; empty where there are none."""
    if subjects is None:
        return b""
    if is_exact(subjects):
        encoded = subjects.encode()
        return _SUBJECT_TAG + varint(len(encoded)) + encoded
    return max(re.split(r"[*>]", subjects), key=len).encode()


def _glob(subjects: str | None) -> tuple[str, tuple[str, ...]]:
    """A filter as far as SQL can tell on a table with a column of subjects, and its argument."""
    if subjects is None:
        return "", ()
    if is_exact(subjects):
        return " AND subject = ?", (subjects,)
    if subjects == ">":
        return " AND subject NOT GLOB ?", ("_*",)
    # A subject holds no character that GLOB treats in its own way; its * crosses dots, so it finds too much.
    return " AND subject GLOB ?", (subjects.replace(">", "*"),)


class Reading:
    """The statements of one log."""

    def __init__(self, log_id: int) -> None:
        self._id = log_id
        self._batches = batches.table(log_id)
        self._subjects = f"subjects_{log_id}"

    @contextmanager
    def snapshot(self, connection: sqlite3.Connection, epoch: bytes) -> Iterator[Counters]:
        """One view of the file for the block; EpochMoved where the log is another one by now."""
        connection.execute("BEGIN")
        try:
            counters = Counters(*connection.execute(COUNTERS + "id = ?", (self._id,)).fetchone())
            if counters.epoch != epoch:
                raise EpochMoved
            yield counters
        finally:
            connection.execute("ROLLBACK")

    def page(self, connection: sqlite3.Connection, epoch: bytes, query: Query) -> Page:
        """`Log.read`."""
        after, subjects = query.after, query.subjects
        with self.snapshot(connection, epoch) as counters:
            bounds = Bounds(0, counters.last, counters.horizon)
            positions.check_bounds(after, bounds, allow_gaps=query.allow_gaps)
            if subjects is not None and is_exact(subjects):
                found, through = self._of_subject(connection, counters, query, subjects)
            else:
                found, through = self._scan(connection, counters.last, query)
            standing = found[-1] if found and found[-1].sequence == through else self.record(connection, through)
            return Page(after, through, positions.encode(epoch, through, positions.check_of(standing)), found)

    def record(self, connection: sqlite3.Connection, sequence: int) -> Record | None:
        """The record at a sequence."""
        return next(batches.records_at(connection, self._id, [sequence]), None)

    def last(self, connection: sqlite3.Connection, epoch: bytes, subject: str, known: int | None) -> Record | None:
        """`Log.last`. `known`: the last sequence in the writer's memory; None: the table is not behind with it.

        Both were so before the snapshot; what has been superseded and removed between is looked for.
        """
        with self.snapshot(connection, epoch) as counters:
            standing = known or self._in_table(connection, subject)[0]
            if not standing:
                return None
            record = self.record(connection, standing)
            if record is None:
                last, _ = self._last(connection, counters, subject)
                record = self.record(connection, last)
            return record

    def last_of_each(self, connection: sqlite3.Connection, epoch: bytes, listing: Listing) -> list[Record]:
        """`Log.last_of_each`."""
        with self.snapshot(connection, epoch) as counters:
            states = self._states(connection, counters, listing)
            lasts = sorted([state.last for state in states.values()])
            records = {record.subject: record for record in batches.records_at(connection, self._id, lasts)}
            return [records[subject] for subject in states if subject in records]

    def subjects(self, connection: sqlite3.Connection, epoch: bytes, listing: Listing) -> list[SubjectInfo]:
        """`Log.subjects`."""
        with self.snapshot(connection, epoch) as counters:
            states = self._states(connection, counters, listing)
            infos = [SubjectInfo(name, state.first, state.last, state.records) for name, state in states.items()]
            return self._with_first(connection, counters, infos)

    def bounds(self, connection: sqlite3.Connection, epoch: bytes) -> Bounds:
        """`Log.bounds`."""
        with self.snapshot(connection, epoch) as counters:
            return self._bounds(connection, counters)

    def statistics(self, connection: sqlite3.Connection, epoch: bytes) -> Statistics:
        """`Log.statistics`."""
        with self.snapshot(connection, epoch) as counters:
            bounds = self._bounds(connection, counters)
            return Statistics(counters.records, counters.bytes, counters.subjects, bounds.first, bounds.last)

    def before_time(self, connection: sqlite3.Connection, epoch: bytes, time_ns: int) -> int:
        """`Log.before_time`: times never go back, so a search by halves finds it."""
        with self.snapshot(connection, epoch) as counters:
            low, high = 1, counters.last + 1  # the lowest sequence from which on every batch is late enough
            while low < high:
                middle = (low + high) // 2
                row = connection.execute(
                    f"SELECT last, time_ns FROM {self._batches} WHERE last >= ? ORDER BY last LIMIT 1",  # noqa: S608
                    (middle,),
                ).fetchone()
                if row is None or row[1] >= time_ns:
                    high = middle
                else:
                    low = row[0] + 1
            found = next(batches.rows_after(connection, self._id, low - 1), None)
            if found is not None:
                batch = batches.decoded(found[2])
                at = bisect_left(batch.times_ns, time_ns)
                low = batch.sequences[at - 1] + 1 if at else max(low, 1)
            return max(low - 1, counters.horizon)

    def _scan(self, connection: sqlite3.Connection, last: int, query: Query) -> tuple[list[Record], int]:
        """A page's records, from a scan of the whole log, and how far it covers."""
        after, subjects, limit, max_bytes, _ = query
        match, needle = None if subjects is None else matcher(subjects), _needle(subjects)
        found: list[Record] = []
        while after < last and not found:
            through = last if subjects is None else min(after + RANGE, last)
            rows: Iterable[batches.Row] = batches.rows_after(connection, self._id, after, through)
            if needle:
                rows = (row for row in rows if needle in row[2])  # much sooner than SQLite's instr
            found, seen, more = take(rows, after, match, limit, max_bytes)
            after = seen if more else max(seen, through)
        return found, after

    def _of_subject(
        self, connection: sqlite3.Connection, counters: Counters, query: Query, subject: str
    ) -> tuple[list[Record], int]:
        """A page's records of one subject, along its chain where that is short, and how far it covers."""
        last, records = self._last(connection, counters, subject)
        if last <= query.after:
            return [], counters.last
        if records > CHAIN_RECORDS or records * HOP_RECORDS > counters.last - query.after:
            return self._scan(connection, counters.last, query)
        sequences = self._chain(connection, last, query.after)[: query.limit + 1]
        found: list[Record] = []
        size = 0
        for record in batches.records_at(connection, self._id, sequences):
            size += len(record.payload)
            if found and (len(found) == query.limit or size > query.max_bytes):
                return found, found[-1].sequence
            found.append(record)
        return found, counters.last

    def _last(self, connection: sqlite3.Connection, counters: Counters, subject: str) -> tuple[int, int]:
        """A subject's last sequence in this snapshot, and about how many records it has."""
        last, records = self._in_table(connection, subject)
        needle = _needle(subject)
        for _, _, encoded in batches.rows_after(connection, self._id, counters.flushed):
            if needle not in encoded:
                continue
            batch = batches.decoded(encoded)
            for sequence, name in zip(batch.sequences, batch.subjects, strict=True):
                if name == subject and sequence > counters.flushed:
                    last, records = sequence, records + 1
        return last, records

    def _in_table(self, connection: sqlite3.Connection, subject: str) -> tuple[int, int]:
        """A subject's last sequence and records, as of when the table was last brought up to date with it."""
        row: tuple[int, int] | None = connection.execute(
            f"SELECT last, records FROM {self._subjects} WHERE subject = ?",  # noqa: S608
            (subject,),
        ).fetchone()
        return row or (0, 0)

    def _chain(self, connection: sqlite3.Connection, last: int, after: int) -> list[int]:
        """A subject's sequences after one, from its last record back along `previous`; in order."""
        found: list[int] = []
        while last > after and (row := batches.containing(connection, self._id, last)):
            _, batch = row
            while last > after and (at := batches.place(batch, last)) is not None:
                found.append(last)
                last = batch.previous[at]
            if last >= batch.sequences[0]:
                break  # compaction has taken it, and what is before it
        return found[::-1]

    def _states(self, connection: sqlite3.Connection, counters: Counters, listing: Listing) -> dict[str, State]:
        """A page of subjects, by subject: the table's, and what it is behind with."""
        where, argument = _glob(listing.subjects)
        matches = matcher(listing.subjects) if listing.subjects else lambda _: True
        found = {
            name: state for name, state in listing.unflushed.items() if name > listing.after_subject and matches(name)
        }
        # They are older than the snapshot. Where retention was there between, it has written what is left to the table.
        doubtful = sorted([state.last for state in found.values() if state.last <= counters.horizon])
        there = {record.sequence for record in batches.records_at(connection, self._id, doubtful)}
        gone = {name for name, state in found.items() if state.last <= counters.horizon and state.last not in there}
        for name in gone:
            del found[name]
        after, standing, more = listing.after_subject, 0, True
        while more and standing < listing.limit:
            rows = connection.execute(
                f"SELECT subject, last, records, first, tombstone FROM {self._subjects}"  # noqa: S608
                f" WHERE subject > ?{where} ORDER BY subject LIMIT ?",
                (after, *argument, listing.limit),
            ).fetchall()
            more = len(rows) == listing.limit
            for name, *state in rows:
                after = name
                if (name not in listing.unflushed or name in gone) and matches(name):
                    found[name] = State._make(state)
                    standing += 1
        return dict(sorted(found.items())[: listing.limit])

    def _with_first(
        self, connection: sqlite3.Connection, counters: Counters, found: list[SubjectInfo]
    ) -> list[SubjectInfo]:
        """Put right what retention has taken the first records of."""
        stale = {info.subject for info in found if info.first_sequence <= counters.horizon}
        if not stale:
            return found
        first = self._bounds(connection, counters).first
        firsts: dict[str, int] = {}
        for _, _, encoded in batches.rows_after(connection, self._id, 0, first + RANGE - 1):
            batch = batches.decoded(encoded)
            for sequence, subject in zip(batch.sequences, batch.subjects, strict=True):
                firsts.setdefault(subject, sequence)
        for info in found:
            if info.subject in stale and info.subject not in firsts:
                firsts[info.subject] = self._chain(connection, info.last_sequence, 0)[0]
        return [info._replace(first_sequence=firsts[info.subject]) if info.subject in stale else info for info in found]

    def _bounds(self, connection: sqlite3.Connection, counters: Counters) -> Bounds:
        first = batches.first(connection, self._id) or counters.last + 1
        return Bounds(first, counters.last, counters.horizon)


def take(
    rows: Iterable[batches.Row], after: int, match: Callable[[str], bool] | None, limit: int, max_bytes: int
) -> tuple[list[Record], int, bool]:
    """A page's records after a sequence, from rows of batches; the last sequence looked at, and whether it
    was cut short."""
    rows = iter(rows)
    found: list[Record] = []
    size, seen = 0, after
    while not found or (len(found) < limit and size < max_bytes):
        encoded: list[bytes] = []
        records = encoded_size = 0
        for last, count, batch in rows:
            encoded.append(batch)
            records += count
            encoded_size += len(batch)
            seen = last
            if len(found) + records >= limit or size + encoded_size >= max_bytes:
                break
        if not encoded:
            return found, seen, False
        joined = batches.decoded(*encoded)
        taken = batches.records_of(joined)[bisect_right(joined.sequences, after) :]
        if match is not None:
            taken = [record for record in taken if match(record[1])]
        more = sum([len(record[4]) for record in taken])
        if len(found) + len(taken) <= limit and size + more <= max_bytes:
            found += taken
            size += more
            continue
        for record in taken:
            size += len(record.payload)
            if found and (len(found) == limit or size > max_bytes):
                return found, found[-1].sequence, True
            found.append(record)
    return found, found[-1].sequence, True
