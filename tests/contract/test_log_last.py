"""`Log.last` while its subject is superseded and retention takes what was its last record."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from signpost.log import Append, LogSettings, Record, Retention
from signpost.log.sqlite.store import READERS, SQLiteStore

from tests.contract.engines import SQLite

AGE_S = 3.0
NOTES = LogSettings("notes", Retention(max_age_s=AGE_S, keep_last=True))


@contextmanager
def readers_held(store: SQLiteStore) -> Iterator[None]:
    """Nothing is read from the file within the block."""
    held = threading.Event()
    for _ in range(READERS):
        store._readers.submit(held.wait)
    try:
        yield
    finally:
        held.set()


@pytest.mark.parametrize("table", ["behind", "up to date"])
@pytest.mark.parametrize("by", ["a record", "a deletion", "nothing"])
async def test_what_was_last_goes_between_the_look_at_memory_and_the_look_at_the_file(
    tmp_path: Path, table: str, by: str
) -> None:
    engine = SQLite(tmp_path)
    async with engine.open(NOTES) as store:
        assert isinstance(store, SQLiteStore)
        log = store["notes"]
        first = await log.append(Append("a", b"1", tombstone=by == "nothing"))
        if table == "up to date":
            await engine.advance(store, 0)
        with readers_held(store):
            asked = asyncio.ensure_future(log.last("a"))
            await asyncio.sleep(0)
            second = first
            if by != "nothing":
                second = await log.append(Append("a", b"2", tombstone=by == "a deletion"))
            await engine.advance(store, AGE_S + 1)
            third = await log.append(Append("a", b"3")) if by == "a deletion" else second
        record = await asked
        assert store._logs[0]._reading.record(store._idle[0], first.sequence) is None  # that is what this is about
        assert (record and record.sequence) == (None if by == "nothing" else third.sequence)
        assert record == await log.last("a")


async def test_it_is_the_last_whatever_is_appended_flushed_and_removed_meanwhile(tmp_path: Path) -> None:
    engine = SQLite(tmp_path)
    async with engine.open(NOTES) as store:
        log = store["notes"]
        appended: dict[str, int] = {}

        async def append(subject: str) -> None:
            for n in range(200):
                stored = await log.append(Append(subject, b"%d" % n))
                appended[subject] = stored.sequence
                if n % 10 == 0:
                    await engine.advance(store, AGE_S / 2)

        async def look(subject: str) -> None:
            while not all(task.done() for task in appending):
                before = appended.get(subject, 0)
                record: Record | None = await log.last(subject)
                assert (record.sequence if record else 0) >= before

        appending = [asyncio.create_task(append(subject)) for subject in "abc"]
        await asyncio.gather(*appending, *(look(subject) for subject in "abcabc"))
