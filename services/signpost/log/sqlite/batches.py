"""The records as they lie in the file: each row holds a batch of them.

A row for each record would cost SQLite more than the record (docs/decisions/0014). What a commit adds
goes in as one encoded `RecordBatch`, or a few. Batches are found by their highest sequence, and joined
as bytes where a reader wants several.
"""

import sqlite3
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import accumulate, compress
from typing import NamedTuple, TypeAlias

from google.protobuf.message import DecodeError

from protos.storage.v1.storage_pb2 import RecordBatch
from signpost.log.base import Record

BATCH_RECORDS = 250  # finding one record decodes as many; a page of a thousand takes four whole batches
BATCH_BYTES = 256 * 1024  # of payload; a single larger record has a batch of its own
_AS_RECORD: Callable[[tuple[object, ...]], Record] = partial(tuple.__new__, Record)
Row: TypeAlias = tuple[int, int, bytes]
"""Of a batch: its key, which is at least its highest sequence, how many records, and the encoded batch."""


class Columns(NamedTuple):
    """Records by column, as `RecordBatch` has them; all of one length."""

    sequences: Sequence[int]
    subjects: Sequence[str]
    message_ids: Sequence[str]
    times_ns: Sequence[int]
    payloads: Sequence[bytes]
    tombstones: Sequence[bool]
    previous: Sequence[int]


def table(log_id: int) -> str:
    """The name of a log's table."""
    return f"batches_{log_id}"


def insert(connection: sqlite3.Connection, log_id: int, columns: Columns) -> None:
    """Add records, the highest of the log, within the caller's transaction."""
    start, total = 0, len(columns.sequences)
    while start < total:
        end = _end(columns.payloads, start)
        part = columns if end - start == total else Columns._make([column[start:end] for column in columns])
        connection.execute(
            f"INSERT INTO {table(log_id)} VALUES (?, ?, ?, ?, ?)",  # noqa: S608 - so are all tables here: our own
            (part.sequences[-1], part.sequences[0], end - start, part.times_ns[-1], _encoded(part)),
        )
        start = end


def remove(connection: sqlite3.Connection, log_id: int, key: int, batch: RecordBatch, going: Collection[int]) -> None:
    """Take sequences out of the batch of a row, and the row where none is left, within the caller's transaction."""
    stays = [sequence not in going for sequence in batch.sequences]
    if not any(stays):
        connection.execute(f"DELETE FROM {table(log_id)} WHERE last = ?", (key,))  # noqa: S608
        return
    rest = Columns._make([list(compress(column, stays)) for column in columns_of(batch)])
    connection.execute(
        f"UPDATE {table(log_id)} SET first = ?, records = ?, batch = ? WHERE last = ?",  # noqa: S608
        (rest.sequences[0], len(rest.sequences), _encoded(rest), key),
    )


def decoded(*encoded: bytes) -> RecordBatch:
    """The batch of all records of some encoded ones; sqlite3.DatabaseError where they are damaged."""
    try:
        batch = RecordBatch.FromString(b"".join(encoded))
    except DecodeError as error:
        raise sqlite3.DatabaseError(f"a batch of records is damaged: {error}") from error
    if any(len(column) != len(batch.sequences) for column in columns_of(batch)):
        raise sqlite3.DatabaseError("a batch of records is damaged: its columns differ in length")
    return batch


def columns_of(batch: RecordBatch) -> Columns:
    """The columns of a batch, not copied."""
    return Columns(
        batch.sequences,
        batch.subjects,
        batch.message_ids,
        batch.times_ns,
        batch.payloads,
        batch.tombstones,
        batch.previous,
    )


def records_of(batch: RecordBatch) -> list[Record]:
    """The records of a batch."""
    return as_records(Columns._make([column[:] for column in columns_of(batch)]))


def as_records(columns: Columns) -> list[Record]:
    """The records of some columns."""
    return list(map(_AS_RECORD, zip(*columns[:6], strict=True)))


def rows_after(connection: sqlite3.Connection, log_id: int, sequence: int, through: int | None = None) -> Iterator[Row]:
    """The rows with records after a sequence, in order; `through`: of batches that begin there or before."""
    until = "" if through is None else " AND first <= ?"
    return connection.execute(
        f"SELECT last, records, batch FROM {table(log_id)} WHERE last > ?{until} ORDER BY last",  # noqa: S608
        (sequence,) if through is None else (sequence, through),
    )


def first(connection: sqlite3.Connection, log_id: int) -> int | None:
    """The lowest sequence; None where there is none."""
    row = connection.execute(f"SELECT first FROM {table(log_id)} ORDER BY last LIMIT 1").fetchone()  # noqa: S608
    return row[0] if row else None


def place(batch: RecordBatch, sequence: int) -> int | None:
    """Where in a batch a sequence stands; None where it does not."""
    at = bisect_left(batch.sequences, sequence)
    return at if at < len(batch.sequences) and batch.sequences[at] == sequence else None


def containing(connection: sqlite3.Connection, log_id: int, sequence: int) -> tuple[int, RecordBatch] | None:
    """The row, by its key, whose batch spans a sequence, which need not be in it any more; None where none does."""
    row = connection.execute(
        f"SELECT last, first, batch FROM {table(log_id)} WHERE last >= ? ORDER BY last LIMIT 1",  # noqa: S608
        (sequence,),
    ).fetchone()
    return None if row is None or row[1] > sequence else (row[0], decoded(row[2]))


def rows_of(
    connection: sqlite3.Connection, log_id: int, sequences: Sequence[int]
) -> Iterator[tuple[int, RecordBatch, list[int]]]:
    """The rows that span sequences, which rise: each with its key, and where in it those stand that are still there."""
    at = 0
    while at < len(sequences):
        found = containing(connection, log_id, sequences[at])
        end = at + 1 if found is None else bisect_right(sequences, found[0], at)
        if found is not None:
            key, batch = found
            places = [place(batch, sequence) for sequence in sequences[at:end]]
            yield key, batch, [one for one in places if one is not None]
        at = end


def records_at(connection: sqlite3.Connection, log_id: int, sequences: Sequence[int]) -> Iterator[Record]:
    """The records at sequences, which rise; where one is not there any more it is left out."""
    for _, batch, places in rows_of(connection, log_id, sequences):
        columns = columns_of(batch)[:6]
        for one in places:
            yield Record._make([column[one] for column in columns])


def _end(payloads: Sequence[bytes], start: int) -> int:
    """Where the batch that begins at `start` ends."""
    end = min(start + BATCH_RECORDS, len(payloads))
    if sum(map(len, payloads[start:end])) > BATCH_BYTES:
        sizes = accumulate(map(len, payloads[start:end]))
        return start + max(1, sum([size <= BATCH_BYTES for size in sizes]))
    return end


def _encoded(columns: Columns) -> bytes:
    return RecordBatch(
        sequences=columns.sequences,
        subjects=columns.subjects,
        message_ids=columns.message_ids,
        times_ns=columns.times_ns,
        payloads=columns.payloads,
        tombstones=columns.tombstones,
        previous=columns.previous,
    ).SerializeToString()
