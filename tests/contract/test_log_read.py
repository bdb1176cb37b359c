"""Reading: pages, filters, subjects, times."""

import asyncio

import pytest
from signpost.errors import PositionAhead
from signpost.log import Append, Log, LogSettings, Record, SubjectInfo, matcher

from tests.contract.engines import Engine

SUBJECTS = ["a", "a.b", "a.b.c", "a.c", "b.b", "_sys.b", "ab", "a-b", "a%2Eb.c"]
FILTERS = [None, ">", "*", "a", "a.b", "a.>", "a.*", "*.b", "*.>", "a.*.c", "_sys.>", "_sys.*", "none", "none.>", "b.*"]


async def fill(log: Log, subjects: list[str]) -> list[Record]:
    await log.append_many([Append(subject, b"%d" % i) for i, subject in enumerate(subjects)])
    return await read_all(log, None, 1000)  # a first page may end where the follower is


async def read_all(log: Log, subjects: str | None, limit: int, after: int = 0) -> list[Record]:
    """Every page until the head; each covers (after, through] and hands on where the last ended."""
    found: list[Record] = []
    head = log.head
    while after < head:
        page = await log.read(after, subjects=subjects, limit=limit)
        assert page.after == after
        assert after < page.through <= head
        assert len(page.records) <= limit
        assert page.position == await log.position(page.through)
        found += page.records
        after = page.through
    return found


@pytest.mark.parametrize("limit", [1, 7, 1000])
async def test_pages_are_contiguous_for_every_filter(log: Log, limit: int) -> None:
    records = await fill(log, SUBJECTS * 3)
    assert [record.sequence for record in records] == list(range(1, 28))
    for pattern in FILTERS:
        match = matcher(pattern) if pattern else lambda subject: True
        want = [record for record in records if match(record.subject)]
        assert await read_all(log, pattern, limit) == want
        assert await read_all(log, pattern, limit, after=13) == [r for r in want if r.sequence > 13]


async def test_a_page_is_bounded_in_bytes_but_never_empty_before_the_end(log: Log) -> None:
    for size in (10, 3000, 10, 10, 3000):
        await log.append(Append("a", b"x" * size))
    page = await log.read(0, max_bytes=1000)
    assert [len(record.payload) for record in page.records] == [10]
    page = await log.read(1, max_bytes=1000)
    assert [len(record.payload) for record in page.records] == [3000]
    page = await log.read(2, max_bytes=1000)
    assert [len(record.payload) for record in page.records] == [10, 10]
    assert page.through == 4


async def test_at_the_head_a_page_is_empty(log: Log) -> None:
    page = await log.read(0)
    assert (page.after, page.through, list(page.records)) == (0, 0, [])
    await log.append(Append("a", b"1"))
    page = await log.read(1)
    assert (page.after, page.through, list(page.records)) == (1, 1, [])
    assert page.position == await log.position(1)


async def test_a_filter_that_matches_nothing_moves_through_to_the_head(log: Log) -> None:
    await fill(log, ["a"] * 50)
    assert await read_all(log, "b", 10) == []
    await log.append(Append("b", b"at last"))
    assert [record.payload for record in await read_all(log, "b", 10)] == [b"at last"]


async def test_fault_14_ahead_of_the_head_is_an_error(log: Log) -> None:
    await log.append(Append("a", b"1"))
    with pytest.raises(PositionAhead):
        await log.read(2)
    with pytest.raises(PositionAhead):
        await anext(log.follow(2))


async def test_last(log: Log) -> None:
    assert await log.last("a") is None
    await log.append(Append("a", b"1"))
    await log.append(Append("a.b", b"2"))
    await log.append(Append("a", b"3"))
    last = await log.last("a")
    assert last is not None
    assert (last.sequence, last.payload) == (3, b"3")
    await log.append(Append("a", b"", tombstone=True))
    last = await log.last("a")
    assert last is not None
    assert last.tombstone


async def test_last_of_each_in_pages(log: Log) -> None:
    records = await fill(log, SUBJECTS * 2)
    for pattern in FILTERS:
        match = matcher(pattern) if pattern else lambda subject: True
        latest = {record.subject: record for record in records if match(record.subject)}
        want = [latest[subject] for subject in sorted(latest)]
        found: list[Record] = []
        while page := await log.last_of_each(pattern, after_subject=found[-1].subject if found else "", limit=2):
            found += page
        assert found == want, pattern


async def test_subjects_in_pages(log: Log) -> None:
    await fill(log, SUBJECTS * 2)
    for pattern in FILTERS:
        match = matcher(pattern) if pattern else lambda subject: True
        want = [
            SubjectInfo(subject, SUBJECTS.index(subject) + 1, SUBJECTS.index(subject) + 10, 2)
            for subject in sorted(SUBJECTS)
            if match(subject)
        ]
        found: list[SubjectInfo] = []
        while page := await log.subjects(pattern, after_subject=found[-1].subject if found else "", limit=2):
            found += page
        assert found == want, pattern


async def test_statistics_and_bounds(log: Log) -> None:
    assert (await log.statistics())[:3] == (0, 0, 0)
    assert await log.bounds() == (1, 0, 0)
    await fill(log, ["a", "b", "a"])
    statistics = await log.statistics()
    assert (statistics.records, statistics.subjects, statistics.first, statistics.last) == (3, 2, 1, 3)
    assert statistics.bytes >= 3
    assert await log.bounds() == (1, 3, 0)


async def test_before_time(engine: Engine) -> None:
    async with engine.open(LogSettings("notes")) as store:
        log = store["notes"]
        assert await log.before_time(0) == 0
        for i in range(5):
            await log.append(Append("a", b"%d" % i))
            await engine.advance(store, 0.01)
        records = (await log.read(0)).records
        assert len({record.time_ns for record in records}) == 5
        for record in records:
            assert await log.before_time(record.time_ns) == record.sequence - 1
            assert await log.before_time(record.time_ns + 1) == record.sequence
        assert await log.before_time(0) == 0
        assert await log.before_time(records[-1].time_ns + 10**12) == 5


async def test_bounds_are_told_while_others_append(log: Log) -> None:
    async with asyncio.TaskGroup() as appending:
        for part in range(4):
            appending.create_task(log.append_many([Append(f"a.{part}", b"x" * 100) for _ in range(2000)]))
        last = 0
        while last < 8000:
            bounds = await log.bounds()
            assert bounds.first == 1
            assert bounds.last >= last
            last = bounds.last
            await asyncio.sleep(0)
