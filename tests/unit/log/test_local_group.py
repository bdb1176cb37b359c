"""Queue groups dealt out by one process: at least once, and never to two members at a time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from signpost.errors import LogUnavailable
from signpost.log import Append, Log, LogSettings, Page, Retention, Store, local_group, open_store
from signpost.log.backup import backup, restore
from signpost.log.group import GroupSettings
from signpost.log.local_group import SAVE_INTERVAL_S, LocalGroup

from protos.storage.v1 import storage_pb2


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store("memory:", [LogSettings("notifications"), LogSettings("state")]) as opened:
        yield opened


async def fill(log: Log, count: int, subject: str = "work.a") -> list[int]:
    answers = await log.append_many([Append(subject, b"%d" % i) for i in range(count)])
    return [answer.sequence for answer in answers if isinstance(answer, tuple)]


def settings(ack_wait_s: float = 30.0) -> GroupSettings:
    return GroupSettings("g", "work.>", start_after=0, ack_wait_s=ack_wait_s)


async def take(group: LocalGroup, member: str, limit: int) -> list[int]:
    async with asyncio.timeout(20):
        return [d.record.sequence for d in await group.fetch(member, limit)]


async def test_each_record_goes_to_one_member(store: Store) -> None:
    log = store["notifications"]
    group = await LocalGroup(log, store["state"], settings()).open()
    sequences = await fill(log, 200)
    await fill(log, 50, "other.topic")
    got: dict[str, list[int]] = {"a": [], "b": [], "c": []}
    while sum(map(len, got.values())) < 200:
        for member in got:
            if sum(map(len, got.values())) < 200:
                got[member] += await take(group, member, 7)
    assert sorted(got["a"] + got["b"] + got["c"]) == sequences
    assert all(got.values())
    await group.close()


async def test_what_is_not_acknowledged_in_time_goes_to_another(store: Store) -> None:
    log = store["notifications"]
    now = 0.0
    group = await LocalGroup(log, store["state"], settings(), clock=lambda: now).open()
    await fill(log, 3)
    held = await take(group, "slow", 3)
    group.ack("slow", held[:1])
    now = 31.0
    async with asyncio.timeout(20):
        again = await group.fetch("quick", 10)
    assert [d.record.sequence for d in again] == held[1:]
    assert [d.tries for d in again] == [1, 1]
    group.ack("slow", held[1:])  # too late: it no longer holds them
    group.reject("quick", held[1:])
    assert await take(group, "third", 10) == held[1:]
    await group.close()


async def test_a_member_that_goes_gives_back(store: Store) -> None:
    log = store["notifications"]
    group = await LocalGroup(log, store["state"], settings()).open()
    await fill(log, 5)
    held = await take(group, "a", 5)
    group.release("a")
    assert await take(group, "b", 5) == held
    await group.close()


async def test_a_cancelled_fetch_takes_none(store: Store) -> None:
    log = store["notifications"]
    group = await LocalGroup(log, store["state"], settings()).open()
    waiting = asyncio.create_task(group.fetch("a", 5))
    await asyncio.sleep(0.02)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    sequences = await fill(log, 5)
    assert await take(group, "b", 5) == sequences
    await group.close()


async def test_the_place_is_kept_over_a_restart(store: Store) -> None:
    log = store["notifications"]
    group = await LocalGroup(log, store["state"], settings()).open()
    await fill(log, 10)
    held = await take(group, "a", 10)
    group.ack("a", [s for s in held if s not in held[3:6]])
    await group.close()
    group = await LocalGroup(log, store["state"], settings()).open()
    async with asyncio.timeout(20):
        again = await group.fetch("a", 10)
    assert [(d.record.sequence, d.tries) for d in again] == [(s, 1) for s in held[3:6]]
    group.ack("a", held[3:6])
    more = await fill(log, 2)
    assert await take(group, "a", 10) == more
    await group.close()


async def test_a_large_place_is_written_less_often_and_whole_at_the_end(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many done above one that is held: else each acknowledgement more costs the state log the whole place."""
    monkeypatch.setattr(local_group, "SAVE_BYTES_S", 5)
    log, state = store["notifications"], store["state"]
    group = await LocalGroup(log, state, settings()).open()
    sequences = await fill(log, 3000)
    (held,) = await take(group, "stuck", 1)
    for _ in range(5):
        group.ack("a", await take(group, "a", 500))
        await asyncio.sleep(SAVE_INTERVAL_S)
    group.ack("a", await take(group, "a", 499))
    writes, size, *_ = await state.statistics()
    assert writes <= 3, f"{size} bytes in {writes} writes"
    await group.close()
    group = await LocalGroup(log, state, settings()).open()
    assert await take(group, "b", 10) == [held] == sequences[:1]
    await group.close()


async def test_what_retention_takes_is_done() -> None:
    """Held while retention passed: it does not come again, and the group goes on with what is there."""
    logs = [LogSettings("notifications", Retention(max_records=5)), LogSettings("state")]
    async with open_store("memory:", logs) as store:
        log = store["notifications"]
        group = await LocalGroup(log, store["state"], settings()).open()
        held = await fill(log, 4)
        assert await take(group, "a", 4) == held
        later = await fill(log, 8)
        async with asyncio.timeout(30):
            while (first := (await log.bounds()).first) <= held[-1]:  # noqa: ASYNC110 - retention sets no event
                await asyncio.sleep(0.05)
        group.release("a")
        there = [sequence for sequence in later if sequence >= first]
        found: list[int] = []
        while not found or found[-1] != later[-1]:
            found += await take(group, "b", 20)
        assert not set(found) & set(held)
        assert set(there) <= set(found)
        group.ack("b", found)
        more = await fill(log, 1)
        assert await take(group, "b", 5) == more
        await group.close()


async def test_what_retention_takes_while_the_group_is_away_is_done() -> None:
    """Its place, with records that were done out of order, is behind by then; it is kept anew, without what is gone."""
    logs = [LogSettings("notifications", Retention(max_records=20)), LogSettings("state")]
    async with open_store("memory:", logs) as store:
        log = store["notifications"]
        group = await LocalGroup(log, store["state"], settings()).open()
        held = await fill(log, 6)
        assert await take(group, "a", 6) == held
        group.ack("a", held[1:])
        await group.close()
        there = (await fill(log, 50))[-20:]
        # Without the tail in memory, as after a restart.
        log._tail.skip(log.head)  # type: ignore[attr-defined]
        group = await LocalGroup(log, store["state"], settings()).open()
        assert await take(group, "a", 50) == there
        group.ack("a", there[1:])

        async def place() -> tuple[int, int, list[int]]:
            kept = await store["state"].last(group._subject)
            assert kept is not None
            state = storage_pb2.GroupState.FromString(kept.payload)
            return state.floor, sum(state.done_deltas), list(state.tried)

        async with asyncio.timeout(20):
            while await place() != (there[0] - 1, len(there), there[:1]):  # noqa: ASYNC110 - a write sets no event
                await asyncio.sleep(0.05)
        await group.close()


async def test_a_log_that_does_not_answer_is_read_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    log = store["notifications"]
    read, failures = log.read, [LogUnavailable("the disk does not answer", retry_after_s=0.01)]

    async def failing(after: int, *, subjects: str | None = None, allow_gaps: bool = False) -> Page:
        if failures:
            raise failures.pop()
        return await read(after, subjects=subjects, allow_gaps=allow_gaps)

    monkeypatch.setattr(log, "read", failing)
    group = await LocalGroup(log, store["state"], settings()).open()
    taking = asyncio.create_task(take(group, "a", 5))
    async with asyncio.timeout(20):
        while failures:  # noqa: ASYNC110 - the read that fails sets no event
            await asyncio.sleep(0.01)
    sequences = await fill(log, 3)
    assert await taking == sequences
    await group.close()


@pytest.mark.parametrize("most_done", [100, 5])
async def test_a_restore_while_no_member_wants_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_done: int
) -> None:
    """The place stays that of the log before it, and the first who wants records gets those of the log restored."""
    monkeypatch.setattr(local_group, "MAX_DONE", most_done)
    url = f"sqlite:///{tmp_path / 'a.db'}"
    async with open_store(url, [LogSettings("notifications"), LogSettings("state")]) as opened:
        log = opened["notifications"]
        before = await fill(log, 5)
        await backup(url, tmp_path / "a.backup")
        await fill(log, 15)
        group = await LocalGroup(log, opened["state"], settings()).open()
        held = await take(group, "a", 20)
        group.ack("a", held[6:])
        epoch = log.epoch
        await restore(url, tmp_path / "a.backup")
        async with asyncio.timeout(20):
            while log.epoch == epoch:  # noqa: ASYNC110 - there is no event for it
                await asyncio.sleep(0.05)
        group.ack("a", held[:5])
        await asyncio.sleep(2 * SAVE_INTERVAL_S)
        kept = await opened["state"].last(group._subject)
        assert kept is None or storage_pb2.GroupState.FromString(kept.payload).epoch == epoch
        group.release("a")
        assert await take(group, "b", 20) == before
        group.ack("b", before)
        later = await fill(log, 3)
        assert await take(group, "b", 20) == later
        await group.close()
