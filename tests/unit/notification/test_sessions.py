"""FAULTS 21: who speaks for a client id, on one replica and over several."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from notification_service.sessions import KEEP_NS, Sessions, session_key
from signpost.errors import SessionFenced, SignpostError
from signpost.log import LogSettings, Retention, open_store
from signpost.log.base import Log

from tests.unit.notification.conftest import eventually


class Stream:
    def __init__(self, session_id: str) -> None:
        self.session_id = session_id
        self.ended: list[SignpostError | None] = []

    def end(self, error: SignpostError | None) -> None:
        self.ended.append(error)


@pytest.fixture
async def state() -> AsyncIterator[Log]:
    async with open_store("memory:", [LogSettings("state", Retention(max_age_s=3600, keep_last=True))]) as store:
        yield store["state"]


@asynccontextmanager
async def replica(state: Log, now_ns: int = 0) -> AsyncIterator[Sessions]:
    sessions = Sessions(state, clock=lambda: now_ns)
    task = asyncio.create_task(sessions.run())
    await sessions.caught_up()
    try:
        yield sessions
    finally:
        task.cancel()


async def test_fault_21_another_session_fences_the_older_one_which_stays_away(state: Log) -> None:
    async with replica(state) as sessions:
        first, second = Stream("s1"), Stream("s2")
        assert await sessions.claim("c", "s1", first) is None
        assert await sessions.claim("c", "s2", second) is None
        (error,) = first.ended
        assert isinstance(error, SessionFenced)
        with pytest.raises(SessionFenced):
            await sessions.claim("c", "s1", Stream("s1"))
        assert not second.ended
        await sessions.claim("d", "s1", Stream("s1"))  # another client may have a session of the same name


async def test_fault_21_on_another_replica_too(state: Log) -> None:
    async with replica(state) as here, replica(state) as there:
        first, second = Stream("s1"), Stream("s2")
        await here.claim("c", "s1", first)
        await there.claim("c", "s2", second)
        await eventually(lambda: bool(first.ended))
        assert isinstance(first.ended[0], SessionFenced)
        with pytest.raises(SessionFenced):
            await here.claim("c", "s1", Stream("s1"))
        assert not second.ended


async def test_fault_21_two_at_once_leave_one(state: Log) -> None:
    async with replica(state) as here, replica(state) as there:
        streams = [Stream(f"s{n}") for n in range(10)]
        claims = [(here if n % 2 else there).claim("c", stream.session_id, stream) for n, stream in enumerate(streams)]
        outcomes = await asyncio.gather(*claims, return_exceptions=True)
        refused = [isinstance(outcome, SessionFenced) for outcome in outcomes]
        await eventually(lambda: sum(1 for s, r in zip(streams, refused, strict=True) if not s.ended and not r) == 1)


async def test_fault_21_the_same_session_is_a_handover(state: Log) -> None:
    async with replica(state) as sessions:
        first, second = Stream("s1"), Stream("s1")
        await sessions.claim("c", "s1", first)
        head = state.head
        assert await sessions.claim("c", "s1", second) is first
        assert not first.ended, "the caller ends it, once the newer one is welcome"
        assert state.head == head, "a reconnect writes nothing"
        assert not sessions.release("c", first)
        assert sessions.release("c", second)


async def test_a_restart_remembers_who_was_fenced(state: Log) -> None:
    async with replica(state) as sessions:
        await sessions.claim("c", "s1", Stream("s1"))
        await sessions.claim("c", "s2", Stream("s2"))
    async with replica(state) as sessions:
        with pytest.raises(SessionFenced):
            await sessions.claim("c", "s1", Stream("s1"))
        await sessions.claim("c", "s2", Stream("s2"))


async def test_sessions_of_long_ago_are_forgotten(state: Log) -> None:
    async with replica(state) as sessions:
        stays = Stream("s1")
        await sessions.claim("stays", "s1", stays)
        left = Stream("s1")
        await sessions.claim("left", "s1", left)
        sessions.release("left", left)
        await sessions.sweep()
        assert set(sessions._known) == {"stays", "left"}
        sessions._clock = lambda: KEEP_NS + 1
        await sessions.sweep()
        assert set(sessions._known) == {"stays"}
        last = await state.last(session_key("left"))
        assert last is not None
        assert last.tombstone
        await sessions.claim("left", "s3", Stream("s3"))
        assert not stays.ended


async def test_fault_21_whoever_is_connected_for_long_is_not_forgotten_by_other_replicas(state: Log) -> None:
    async with replica(state) as here, replica(state) as there:
        first, second = Stream("s1"), Stream("s2")
        await here.claim("c", "s1", first)
        await eventually(lambda: "c" in there._known)
        for part in (0.6, 1.2):
            here._clock = there._clock = lambda part=part: int(part * KEEP_NS)  # type: ignore[misc]
            await here.sweep()
            await eventually(lambda: there._known == here._known)
            await there.sweep()
        await there.claim("c", "s2", second)
        await eventually(lambda: bool(first.ended))
        with pytest.raises(SessionFenced):
            await here.claim("c", "s1", Stream("s1"))
        assert not second.ended
