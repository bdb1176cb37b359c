"""What the logs behind a URL hold, without opening them as their owner: safe while the service runs."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from signpost.log.base import Statistics
from signpost.log.opening import NATS_SCHEMES, sqlite_path
from signpost.log.sqlite import batches, schema


async def describe(url: str, *, settings: Any = None) -> dict[str, Statistics]:
    """The figures of every log, by name. A backup's file is a SQLite log too.

    `settings`: as for `open_store`. Raises LogRefused, naming it, where there is no log or a damaged one.
    """
    if urlsplit(url).scheme in NATS_SCHEMES:
        from signpost.log import backup_jetstream  # noqa: PLC0415 - needs an extra

        async with backup_jetstream.opened(url, settings) as (store, logs):
            return {log.name: await store[log.name].statistics() for log in logs}
    return await asyncio.to_thread(_describe_sqlite, Path(sqlite_path(url)))


def _describe_sqlite(path: Path) -> dict[str, Statistics]:
    with (
        schema.readable(path) as file,
        schema.refusing(path),
        contextlib.closing(schema.connect(file, read_only=True)) as connection,
    ):
        return dict(sorted(_figures(connection)))


def _figures(connection: sqlite3.Connection) -> list[tuple[str, Statistics]]:
    logs = connection.execute("SELECT id, name, records, bytes, subjects, last FROM logs").fetchall()
    figures = []
    for log_id, name, records, size_bytes, subjects, last in logs:
        first = batches.first(connection, log_id) or last + 1
        figures.append((name, Statistics(records, size_bytes, subjects, first, last)))
    return figures
