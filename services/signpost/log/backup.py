"""Backup and restore, while the service runs.

A backup is one SQLite file, the same for every engine: the logs with their records, each at its
sequence. Guarantees:

- `backup` holds one moment of each log (on SQLite the same moment of all), and takes nothing from the
  service: it only reads. The file appears whole, under its name, or not at all.
- `restore` gives every log it brings back a new epoch, so that each position from before is answered
  EpochChanged and no reader goes on in another history. A log that the backup does not hold stays.
- On SQLite a restore is one transaction: a reader sees the log before it or after it, and a killed
  restore changes nothing. The records keep sequences and times. A running service waits with its appends
  for its length and then goes on in what was restored.
- On JetStream the streams are made anew and the records published again, in order: sequences are without
  holes and times are those of the restore, by which retention counts. Nothing is deleted before the whole
  backup was readable; a restore that fails later is to be repeated. Stop the writers first: what is
  appended meanwhile stands among them.
"""

import asyncio
import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from signpost.errors import LogRefused
from signpost.log.base import Log, LogSettings, Record, Store
from signpost.log.opening import NATS_SCHEMES, sqlite_path
from signpost.log.sqlite import batches, schema
from signpost.log.sqlite.journal import Journal
from signpost.log.sqlite.reading import take

_PAGE = 1000
_TABLES = ("batches", "subjects", "dedupe")
_PAGE_BYTES = 8 * 1024 * 1024


async def backup(url: str, path: str | Path, *, settings: Any = None) -> int:
    """Write every log behind the URL to a file, which is replaced; answers how many records it holds.

    `settings`: as for `open_store`. Raises LogRefused, naming the file, where one of the two cannot be used.
    """
    path = Path(path)
    if urlsplit(url).scheme in NATS_SCHEMES:
        from signpost.log import backup_jetstream  # noqa: PLC0415 - needs an extra

        with _whole(path) as aside:
            async with backup_jetstream.opened(url, settings) as (store, logs):
                return await _export(store, logs, aside)
    return await asyncio.to_thread(_backup_sqlite, Path(sqlite_path(url)), path)


async def restore(url: str, path: str | Path, *, settings: Any = None) -> int:
    """Bring the logs of a backup back, under new epochs; answers how many records there are.

    Raises LogRefused, naming the file, where it is no backup or the log behind the URL cannot be written.
    """
    path = Path(path)
    if urlsplit(url).scheme in NATS_SCHEMES:
        from signpost.log import backup_jetstream  # noqa: PLC0415 - needs an extra

        with contextlib.ExitStack() as stack:
            file = await asyncio.to_thread(stack.enter_context, schema.readable(path))
            source = stack.enter_context(contextlib.closing(schema.connect(file, read_only=True)))
            with schema.refusing(path):
                await asyncio.to_thread(_read_through, source)  # before anything is deleted
            return await backup_jetstream.restore(url, source, settings)
    return await asyncio.to_thread(_restore_sqlite, Path(sqlite_path(url)), path)


def records_of(source: sqlite3.Connection, log_id: int, after: int) -> list[Record]:
    """The next records of a backup after a sequence, for engines that publish them again."""
    return take(batches.rows_after(source, log_id, after), after, None, _PAGE, _PAGE_BYTES)[0]


def _read_through(source: sqlite3.Connection) -> None:
    """Raise sqlite3.DatabaseError where a record cannot be read."""
    for (log_id,) in source.execute("SELECT id FROM logs").fetchall():
        for _, _, encoded in batches.rows_after(source, log_id, 0):
            batches.decoded(encoded)


def _backup_sqlite(live: Path, path: Path) -> int:
    _refuse_itself(live, path)
    with schema.readable(live) as file, _whole(path) as aside:
        with (
            schema.refusing(live),
            contextlib.closing(schema.connect(file, read_only=True)) as source,
            contextlib.closing(sqlite3.connect(aside, isolation_level=None)) as copy,
        ):
            # In one step: in many, each commit of the service would start it anew.
            source.backup(copy, pages=-1)
            copy.execute("PRAGMA journal_mode=DELETE")
        return _count(aside)


def _restore_sqlite(live: Path, path: Path) -> int:
    _refuse_itself(live, path)
    with schema.readable(path) as file:
        schema.prepare(live)
        with schema.refusing(live), contextlib.closing(schema.connect(live)) as connection:
            connection.execute("ATTACH ? AS source", (str(file.absolute()),))
            with schema.transaction(connection):
                _take_over(connection)
        return _count(file)


def _refuse_itself(live: Path, path: Path) -> None:
    with schema.refusing(path):
        itself = path.exists() and live.exists() and path.samefile(live)
    if itself:
        raise LogRefused(f"{path} is the log itself, not a backup of it: name another file")


def _take_over(connection: sqlite3.Connection) -> None:
    ours = dict(connection.execute("SELECT name, id FROM main.logs").fetchall())
    for name, theirs in connection.execute("SELECT name, id FROM source.logs").fetchall():
        log_id = ours.get(name) or schema.new_log(connection, name)
        for table in _TABLES:
            connection.execute(f"DELETE FROM main.{table}_{log_id}")  # noqa: S608 - our own tables
            connection.execute(
                f"INSERT INTO main.{table}_{log_id} SELECT * FROM source.{table}_{theirs}"  # noqa: S608
            )
        connection.execute(
            "UPDATE main.logs SET (epoch, last, horizon, examined, flushed, records, bytes, subjects, time_ns)"
            " = (SELECT ?, last, horizon, examined, flushed, records, bytes, subjects, time_ns"
            " FROM source.logs WHERE id = ?) WHERE id = ?",
            (os.urandom(8), theirs, log_id),
        )


async def _export(store: Store, logs: list[LogSettings], path: Path) -> int:
    schema.create(path)
    total = 0
    with contextlib.closing(schema.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
        for settings in logs:
            with schema.transaction(connection):
                schema.new_log(connection, settings.name)
            total += await _export_log(store[settings.name], Journal(connection, settings, 0), connection)
    return total


async def _export_log(log: Log, journal: Journal, connection: sqlite3.Connection) -> int:
    bounds = await log.bounds()
    after = records = 0
    while after < bounds.last:
        page = await log.read(after, limit=_PAGE, allow_gaps=True)
        after = page.through
        wanted = [record for record in page.records if record.sequence <= bounds.last]
        records += len(wanted)
        await asyncio.to_thread(_store_page, journal, connection, wanted)
    with schema.transaction(connection):
        journal.write_counters(journal.counters._replace(last=bounds.last, horizon=bounds.horizon))
    return records


def _store_page(journal: Journal, connection: sqlite3.Connection, records: list[Record]) -> None:
    with schema.transaction(connection):
        stored = journal.store_as_they_are(records)
    journal.commit(stored)
    for _ in journal.flush_subjects():
        pass


def _count(path: Path) -> int:
    with contextlib.closing(schema.connect(path, read_only=True)) as connection:
        (records,) = connection.execute("SELECT sum(records) FROM logs").fetchone()
    return records or 0


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A path to write to, moved to its name once it is whole."""
    aside = path.with_name(f"{path.name}.new")
    try:
        aside.parent.mkdir(parents=True, exist_ok=True)
        aside.unlink(missing_ok=True)
        yield aside
        with aside.open("rb") as made:
            os.fsync(made.fileno())
        aside.replace(path)
    except (OSError, sqlite3.OperationalError) as error:
        raise LogRefused(f"{path} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
