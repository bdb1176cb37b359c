"""Follow: replay, then the tail, with no gap and no repeat."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from signpost.errors import LogUnavailable
from signpost.log import Append, Log, LogSettings, Page, Record, matcher

from tests.contract.engines import Engine

TIMEOUT_S = 30.0


async def collect(log: Log, after: int, until: int, subjects: str | None = None) -> list[Record]:
    """What a follower is handed up to a sequence; each page must begin where the last ended."""
    found: list[Record] = []
    async with asyncio.timeout(TIMEOUT_S), aclosing(log.follow(after, subjects=subjects)) as pages:
        async for page in pages:
            assert page.after == after
            assert page.through >= after
            assert [r.sequence for r in page.records] == sorted({r.sequence for r in page.records})
            assert all(page.after < record.sequence <= page.through for record in page.records)
            found += page.records
            after = page.through
            if after >= until:
                return found
    raise AssertionError("follow ended")


@pytest.mark.parametrize("subjects", [None, "a.*"])
async def test_fault_15_no_gap_and_no_repeat_at_the_seam(engine: Engine, subjects: str | None) -> None:
    """Followers start at many moments of a writer's work, from the start, the middle and the head."""
    total = 1500
    match = matcher(subjects or ">")
    async with engine.open(LogSettings("notes", tail_bytes=100_000)) as store:
        log = store["notes"]
        followers: list[tuple[int, asyncio.Task[list[Record]]]] = []
        async with asyncio.TaskGroup() as tasks:
            for start in range(0, total, 50):
                entries = [Append("a.x" if i % 3 else "b", b"%d" % i) for i in range(start, start + 50)]
                pending = log.submit(entries)
                starts = (0, log.head // 2, log.head)
                followers += [(a, tasks.create_task(collect(log, a, total, subjects))) for a in starts]
                await pending
        want = {i + 1: b"%d" % i for i in range(total) if match("a.x" if i % 3 else "b")}
        for after, task in followers:
            got = {record.sequence: record.payload for record in task.result()}
            assert len(got) == len(task.result())
            assert got == {sequence: payload for sequence, payload in want.items() if sequence > after}


async def test_an_empty_page_comes_first_at_the_head(log: Log) -> None:
    await log.append(Append("a", b"1"))
    async with aclosing(log.follow(1)) as pages:
        page = await asyncio.wait_for(anext(pages), TIMEOUT_S)
        assert (page.after, page.through, list(page.records)) == (1, 1, [])
        assert await log.resolve(page.position) == 1
        await log.append(Append("a", b"2"))
        page = await asyncio.wait_for(anext(pages), TIMEOUT_S)
        assert [record.payload for record in page.records] == [b"2"]
        assert page.position == await log.position(2)


async def test_a_slow_follower_drops_back_to_the_log(engine: Engine) -> None:
    async with engine.open(LogSettings("notes", tail_bytes=10_000)) as store:
        log = store["notes"]
        async with aclosing(log.follow(0)) as pages:
            await anext(pages)
            await log.append_many([Append("a", b"%d" % i + b"x" * 1000) for i in range(200)])
            found: list[Record] = []
            while len(found) < 200:
                found += (await asyncio.wait_for(anext(pages), TIMEOUT_S)).records
        assert [record.sequence for record in found] == list(range(1, 201))


async def test_followers_do_not_share_a_place(log: Log) -> None:
    first, second = log.follow(0), log.follow(0)
    await log.append(Append("a", b"1"))

    async def until(pages: AsyncGenerator[Page, None], sequence: int) -> Page:
        while (page := await anext(pages)).through < sequence:
            pass
        return page

    async with asyncio.timeout(TIMEOUT_S), aclosing(first), aclosing(second):
        assert (await until(first, 1)).records == (await until(second, 1)).records
        await log.append(Append("a", b"2"))
        assert (await until(first, 2)).through == 2
        assert (await until(second, 2)).through == 2


async def test_a_follower_that_is_cancelled_leaves_the_log_working(log: Log) -> None:
    task = asyncio.create_task(collect(log, 0, 10))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await log.append(Append("a", b"1"))
    assert [record.payload for record in await collect(log, 0, 1)] == [b"1"]


async def test_closing_ends_the_followers(engine: Engine) -> None:
    async with engine.open(LogSettings("notes")) as store:
        pages = store["notes"].follow(0)
        assert (await anext(pages)).through == 0
        waiting = asyncio.create_task(anext(pages))
        await asyncio.sleep(0)
    with pytest.raises(LogUnavailable):
        await asyncio.wait_for(waiting, TIMEOUT_S)


async def test_wait_for(log: Log) -> None:
    await log.wait_for(0)
    waiting = asyncio.create_task(log.wait_for(2))
    await log.append(Append("a", b"1"))
    await asyncio.sleep(0.02)
    assert not waiting.done()
    await log.append(Append("a", b"2"))
    await asyncio.wait_for(waiting, TIMEOUT_S)
    assert log.head >= 2
