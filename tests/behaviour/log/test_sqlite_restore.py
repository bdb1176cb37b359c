"""A restore beside a service that is busy: every append is answered, in one history or the other."""

import asyncio
import contextlib
import shutil
import sqlite3
from pathlib import Path

import pytest
from signpost.errors import EpochChanged, LogUnavailable
from signpost.log import Append, Appended, LogSettings, open_store
from signpost.log.backup import backup, restore

LOG = LogSettings("notes")
TIMEOUT_S = 30.0


async def test_appends_go_on_over_a_restore(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with asyncio.timeout(TIMEOUT_S), open_store(url, [LOG]) as store:
        log = store["notes"]
        await log.append_many([Append(f"s.{i % 10}", b"before", f"b{i}") for i in range(1000)])
        await backup(url, tmp_path / "a.backup")
        epoch, stop = log.epoch, asyncio.Event()
        answered: list[int] = []

        async def append() -> None:
            while not stop.is_set():
                answer = await log.append(Append(f"s.{len(answered) % 10}", b"%d" % len(answered)))
                assert isinstance(answer, Appended)
                answered.append(answer.sequence)
                # A restore waits for a moment without a commit.
                await asyncio.sleep(0.002)

        appending = asyncio.create_task(append())
        await log.wait_for(1050)
        await restore(url, tmp_path / "a.backup")
        count = len(answered)
        while len(answered) < count + 50:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.01)
        stop.set()
        await appending

        assert log.epoch != epoch
        # The sequences went back once, to the backup's, and are contiguous on both sides of that.
        turn = next(i for i in range(1, len(answered)) if answered[i] <= answered[i - 1])
        assert answered[:turn] == list(range(1001, 1001 + turn))
        assert answered[turn:] == list(range(1001, 1001 + len(answered) - turn))
        page = await log.read(1000, limit=5000)
        assert [record.sequence for record in page.records] == answered[turn:]
        assert [record.payload for record in page.records] == [b"%d" % i for i in range(turn, len(answered))]
        assert await log.append(Append("s.7", b"again", "b7")) == Appended(8, True)


async def test_a_reader_at_the_old_epoch_is_told_at_once(tmp_path: Path) -> None:
    """Also before the service has noticed by itself."""
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with asyncio.timeout(TIMEOUT_S), open_store(url, [LOG]) as store:
        log = store["notes"]
        await log.append_many([Append("a", b"%d" % i) for i in range(100)])
        await backup(url, tmp_path / "a.backup")
        await restore(url, tmp_path / "a.backup")
        outcomes = await asyncio.gather(*[log.read(10) for _ in range(4)], return_exceptions=True)
        assert all(isinstance(outcome, EpochChanged) for outcome in outcomes)
        assert (await log.read(99)).records[0].payload == b"99"


async def test_a_restore_that_cannot_be_loaded_is_answered_and_another_one_mends_it(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with asyncio.timeout(TIMEOUT_S), open_store(url, [LogSettings("other"), LOG]) as store:
        log = store["notes"]
        await log.append_many([Append("a", b"%d" % i) for i in range(100)])
        await backup(url, tmp_path / "a.backup")
        shutil.copy(tmp_path / "a.backup", tmp_path / "damaged.backup")
        with contextlib.closing(sqlite3.connect(tmp_path / "damaged.backup")) as damaged, damaged:
            damaged.execute("UPDATE batches_2 SET batch = x'ffffff'")
            damaged.execute("UPDATE logs SET flushed = 0")
        await restore(url, tmp_path / "damaged.backup")
        for _ in range(3):
            with pytest.raises(LogUnavailable, match="damaged"):
                await log.append(Append("a", b"x"))
        await restore(url, tmp_path / "a.backup")
        assert (await log.append(Append("a", b"x"))).sequence == 101
        assert (await log.statistics()).records == 101
