"""Retention: what goes, what stays, and what a reader below it is told."""

import pytest
from signpost.errors import PositionCompacted, StaleSequence
from signpost.log import Append, Appended, Log, LogSettings, Retention, Store

from tests.contract.engines import Engine, eventually

AGE_S = 3.0
KEEP_LAST = LogSettings("notes", Retention(max_age_s=AGE_S, keep_last=True))


async def sequences(log: Log) -> list[int]:
    return [record.sequence for record in (await log.read(0, allow_gaps=True)).records]


async def until_left(log: Log, want: list[int]) -> None:
    async def holds() -> bool:
        return await sequences(log) == want

    await eventually(holds, f"left {want}")


async def test_by_records(engine: Engine) -> None:
    async with engine.open(LogSettings("notes", Retention(max_records=10))) as store:
        log = store["notes"]
        await log.append_many([Append("a", b"%d" % i) for i in range(25)])
        await engine.advance(store, 0)
        await until_left(log, list(range(16, 26)))
        assert await log.bounds() == (16, 25, 15)
        assert (await log.statistics()).records == 10


async def test_by_bytes(engine: Engine) -> None:
    async with engine.open(LogSettings("notes", Retention(max_bytes=20_000))) as store:
        log = store["notes"]
        await log.append_many([Append("a", b"x" * 1000) for _ in range(100)])
        await engine.advance(store, 0)

        async def holds() -> bool:
            return 1 <= len(await sequences(log)) <= 20

        await eventually(holds, "at most 20 records left")
        left = await sequences(log)
        assert left == list(range(left[0], 101))


async def test_fault_13_by_age_and_a_position_below_it(engine: Engine) -> None:
    # Without a tail: what memory still holds is served from there.
    async with engine.open(LogSettings("notes", Retention(max_age_s=AGE_S), tail_bytes=1)) as store:
        log = store["notes"]
        await log.append_many([Append("a", b"1"), Append("b", b"2")])
        token = await log.position(1)
        await engine.advance(store, AGE_S + 1)
        await log.append(Append("a", b"3"))
        await until_left(log, [3])
        assert await log.bounds() == (3, 3, 2)
        with pytest.raises(PositionCompacted) as raised:
            await log.read(1)
        assert raised.value.first_available == 3
        with pytest.raises(PositionCompacted):
            await log.resolve(token)
        with pytest.raises(PositionCompacted):
            await anext(log.follow(1))
        assert [record.payload for record in (await log.read(2)).records] == [b"3"]
        assert [record.payload for record in (await log.read(0, allow_gaps=True)).records] == [b"3"]
        assert await log.last("b") is None
        assert [info.subject for info in await log.subjects()] == ["a"]


async def test_a_sequence_is_never_used_twice(engine: Engine) -> None:
    settings = LogSettings("notes", Retention(max_age_s=AGE_S))
    async with engine.open(settings) as store:
        await store["notes"].append_many([Append("a", b"1"), Append("a", b"2")])
        await engine.advance(store, AGE_S + 1)
        await until_left(store["notes"], [])
        assert await store["notes"].bounds() == (3, 2, 2)
    async with engine.open(settings) as store:
        log = store["notes"]
        assert log.head == 2
        assert await log.bounds() == (3, 2, 2)
        assert await log.append(Append("a", b"3")) == Appended(3, False)
        assert await log.append(Append("a", b"4", expected_sequence=3)) == Appended(4, False)


async def test_a_follower_that_retention_overtakes_is_told(engine: Engine) -> None:
    async with engine.open(LogSettings("notes", Retention(max_records=20), tail_bytes=1)) as store:
        log = store["notes"]
        await log.append_many([Append("a", b"%d" % i) for i in range(10)])
        pages = log.follow(0)
        assert (await anext(pages)).through == 10
        await log.append_many([Append("a", b"%d" % i) for i in range(100)])
        await engine.advance(store, 0)
        await until_left(log, list(range(91, 111)))
        with pytest.raises(PositionCompacted) as raised:
            await anext(pages)
        assert raised.value.first_available == 91


async def compacted(engine: Engine, store: Store) -> Log:
    """Six records of three subjects beyond the horizon, one after it."""
    log = store["notes"]
    await log.append_many([Append("a", b"1"), Append("b", b"2"), Append("a", b"3"), Append("c", b"4")])
    await log.append_many([Append("c", b"", tombstone=True), Append("b", b"6")])
    await engine.advance(store, AGE_S + 1)
    await log.append(Append("d", b"7"))
    return log


async def test_keep_last_of_each_subject(engine: Engine) -> None:
    async with engine.open(KEEP_LAST) as store:
        log = await compacted(engine, store)
        await until_left(log, [3, 6, 7])
        assert [(r.subject, r.sequence) for r in await log.last_of_each()] == [("a", 3), ("b", 6), ("d", 7)]
        last = await log.last("a")
        assert last is not None
        assert last.payload == b"3"
        assert await log.last("c") is None
        bounds = await log.bounds()
        assert bounds.last == 7
        assert 5 <= bounds.horizon <= 6
        with pytest.raises(PositionCompacted) as raised:
            await log.read(1)
        assert raised.value.first_available == bounds.horizon + 1
        assert [record.sequence for record in (await log.read(6)).records] == [7]


async def test_keep_last_lets_go_of_a_record_that_is_replaced(engine: Engine) -> None:
    async with engine.open(KEEP_LAST) as store:
        log = await compacted(engine, store)
        await log.append(Append("a", b"8"))
        await engine.advance(store, 0)
        await until_left(log, [6, 7, 8])
        assert (await log.statistics()).records == 3


async def test_keep_last_expects_sequences_beyond_the_horizon(engine: Engine) -> None:
    async with engine.open(KEEP_LAST) as store:
        log = await compacted(engine, store)
        await until_left(log, [3, 6, 7])
        with pytest.raises(StaleSequence) as raised:
            await log.append(Append("a", b"x", expected_sequence=0))
        assert raised.value.actual == 3
        assert (await log.append(Append("a", b"8", expected_sequence=3))).sequence == 8
        assert (await log.append(Append("c", b"9", expected_sequence=0))).sequence == 9


async def test_keep_last_after_a_restart(engine: Engine) -> None:
    async with engine.open(KEEP_LAST) as store:
        await until_left(await compacted(engine, store), [3, 6, 7])
    async with engine.open(KEEP_LAST) as store:
        log = store["notes"]
        assert await sequences(log) == [3, 6, 7]
        with pytest.raises(PositionCompacted):
            await log.read(1)
        with pytest.raises(StaleSequence):
            await log.append(Append("b", b"x", expected_sequence=2))
