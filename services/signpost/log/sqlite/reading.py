"""Reading one log: each function runs on a reader's thread, on its own snapshot of the file."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

from signpost.log import positions
from signpost.log.base import Bounds, Page, Record, Statistics, SubjectInfo
from signpost.log.sqlite.journal import COUNTERS, Counters, EpochMoved
from signpost.log.sqlite.subjects import State
from signpost.log.subjects import is_exact, matcher

RANGE = 50_000  # sequences that one statement scans for a filter
CHAIN_RECORDS = 20_000  # a subject with more records is scanned for, not walked along its chain
_FETCH = 256
_COLUMNS = "sequence, subject, message_id, time_ns, payload, tombstone"
_AS_RECORD: Callable[[tuple[object, ...]], Record] = partial(tuple.__new__, Record)


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


class _Selection(NamedTuple):
    """A filter as SQL can narrow it, and the rest for Python (None: nothing is left)."""

    where: str
    argument: tuple[str, ...]
    match: Callable[[str], bool] | None


def _select(subjects: str | None) -> _Selection:
    if subjects is None:
        return _Selection("", (), None)
    if is_exact(subjects):
        return _Selection(" AND subject = ?", (subjects,), None)
    if subjects == ">":
        return _Selection(" AND subject NOT GLOB ?", ("_*",), None)
    # A subject holds no character that GLOB treats in its own way; its * crosses dots, so it finds too much.
    rest = None if subjects.endswith(".>") and "*" not in subjects else matcher(subjects)
    return _Selection(" AND subject GLOB ?", (subjects.replace(">", "*"),), rest)


class Reading:
    """The statements of one log."""

    def __init__(self, log_id: int) -> None:
        self._id = log_id
        self._records = f"records_{log_id}"
        self._subjects = f"subjects_{log_id}"
        self._from = f"SELECT {_COLUMNS} FROM {self._records} WHERE sequence"  # noqa: S608 - so are all tables here

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
        row = connection.execute(f"{self._from} = ?", (sequence,)).fetchone()
        return None if row is None else _record(row)

    def last(self, connection: sqlite3.Connection, epoch: bytes, subject: str) -> Record | None:
        """`Log.last`."""
        with self.snapshot(connection, epoch) as counters:
            last, _ = self._last(connection, counters, subject)
            return self.record(connection, last) if last else None

    def last_of_each(self, connection: sqlite3.Connection, epoch: bytes, listing: Listing) -> list[Record]:
        """`Log.last_of_each`."""
        with self.snapshot(connection, epoch):
            states = self._states(connection, listing)
            return list(filter(None, (self.record(connection, state.last) for state in states.values())))

    def subjects(self, connection: sqlite3.Connection, epoch: bytes, listing: Listing) -> list[SubjectInfo]:
        """`Log.subjects`."""
        with self.snapshot(connection, epoch) as counters:
            states = self._states(connection, listing)
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
            low, high = 1, counters.last + 1  # the lowest sequence from which on every record is late enough
            while low < high:
                middle = (low + high) // 2
                row = connection.execute(
                    f"SELECT time_ns FROM {self._records} WHERE sequence >= ? ORDER BY sequence LIMIT 1",  # noqa: S608
                    (middle,),
                ).fetchone()
                if row is None or row[0] >= time_ns:
                    high = middle
                else:
                    low = middle + 1
            return max(low - 1, counters.horizon)

    def _scan(self, connection: sqlite3.Connection, last: int, query: Query) -> tuple[list[Record], int]:
        """A page's records, from a scan of the whole log, and how far it covers."""
        after, subjects, limit, max_bytes, _ = query
        selection = _select(subjects)
        sql = f"{self._from} > ? AND sequence <= ?{selection.where} ORDER BY sequence LIMIT ?"
        found: list[Record] = []
        while after < last and not found:
            through = last if subjects is None else min(after + RANGE, last)
            cursor = connection.execute(sql, (after, through, *selection.argument, limit))
            found, seen, more = _take(cursor, selection.match, limit, max_bytes)
            after = seen if more else through
        return found, after

    def _of_subject(
        self, connection: sqlite3.Connection, counters: Counters, query: Query, subject: str
    ) -> tuple[list[Record], int]:
        """A page's records of one subject, along its chain where that is short, and how far it covers."""
        last, records = self._last(connection, counters, subject)
        if last <= query.after:
            return [], counters.last
        if records > CHAIN_RECORDS:
            return self._scan(connection, counters.last, query)
        sequences = self._chain(connection, last, query.after)[: query.limit + 1]
        found: list[Record] = []
        size = 0
        for record in filter(None, (self.record(connection, sequence) for sequence in sequences)):
            size += len(record.payload)
            if found and (len(found) == query.limit or size > query.max_bytes):
                return found, found[-1].sequence
            found.append(record)
        return found, counters.last

    def _last(self, connection: sqlite3.Connection, counters: Counters, subject: str) -> tuple[int, int]:
        """A subject's last sequence in this snapshot, and about how many records it has."""
        row = connection.execute(
            f"SELECT last, records FROM {self._subjects} WHERE subject = ?",  # noqa: S608
            (subject,),
        ).fetchone()
        last, records = row or (0, 0)
        newer, count = connection.execute(
            f"SELECT max(sequence), count(*) FROM {self._records} WHERE sequence > ? AND subject = ?",  # noqa: S608
            (counters.flushed, subject),
        ).fetchone()
        return newer or last, records + count

    def _chain(self, connection: sqlite3.Connection, last: int, after: int) -> list[int]:
        """A subject's sequences after one, from its last record back along `previous`; in order."""
        (joined,) = connection.execute(
            "WITH RECURSIVE chain(sequence, previous) AS ("  # noqa: S608
            f" SELECT sequence, previous FROM {self._records} WHERE sequence = ? UNION ALL"
            f" SELECT r.sequence, r.previous FROM chain JOIN {self._records} r ON r.sequence = chain.previous"
            " WHERE chain.previous > ?) SELECT group_concat(sequence) FROM chain",
            (last, after),
        ).fetchone()
        return sorted(map(int, joined.split(","))) if joined else []

    def _states(self, connection: sqlite3.Connection, listing: Listing) -> dict[str, State]:
        """A page of subjects, by subject: the table's, and what it is behind with."""
        selection = _select(listing.subjects)
        matches = matcher(listing.subjects) if listing.subjects else lambda _: True
        found = {
            name: state for name, state in listing.unflushed.items() if name > listing.after_subject and matches(name)
        }
        after, standing, more = listing.after_subject, 0, True
        while more and standing < listing.limit:
            rows = connection.execute(
                f"SELECT subject, last, records, first, tombstone FROM {self._subjects}"  # noqa: S608
                f" WHERE subject > ?{selection.where} ORDER BY subject LIMIT ?",
                (after, *selection.argument, listing.limit),
            ).fetchall()
            more = len(rows) == listing.limit
            for name, *state in rows:
                after = name
                if name not in listing.unflushed and matches(name):
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
        firsts = dict(
            connection.execute(
                f"SELECT subject, min(sequence) FROM {self._records} WHERE sequence < ? GROUP BY subject",  # noqa: S608
                (first + RANGE,),
            )
        )
        for info in found:
            if info.subject in stale and info.subject not in firsts:
                firsts[info.subject] = self._chain(connection, info.last_sequence, 0)[0]
        return [info._replace(first_sequence=firsts[info.subject]) if info.subject in stale else info for info in found]

    def _bounds(self, connection: sqlite3.Connection, counters: Counters) -> Bounds:
        (first,) = connection.execute(f"SELECT min(sequence) FROM {self._records}").fetchone()  # noqa: S608
        return Bounds(first or counters.last + 1, counters.last, counters.horizon)


def _record(row: Sequence[object]) -> Record:
    record = Record._make(row)
    return record._replace(tombstone=bool(record.tombstone))


def _take(
    cursor: sqlite3.Cursor, match: Callable[[str], bool] | None, limit: int, max_bytes: int
) -> tuple[list[Record], int, bool]:
    """A page's records from a cursor; the last sequence looked at, and whether the cursor was cut short."""
    found: list[Record] = []
    size = seen = rows = 0
    while chunk := cursor.fetchmany(_FETCH):
        rows += len(chunk)
        # A row becomes a record in the shortest way, its tombstone 0 or 1, which are False and True.
        taken = list(map(_AS_RECORD, chunk if match is None else [row for row in chunk if match(row[1])]))
        more = sum([len(record[4]) for record in taken])
        if size + more > max_bytes:
            for record in taken:
                size += len(record.payload)
                if size > max_bytes and found:
                    return found, found[-1].sequence, True
                found.append(record)
        else:
            size += more
            found += taken
        seen = chunk[-1][0]
    return found, seen, rows == limit
