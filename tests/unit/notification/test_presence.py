"""Presence on a log in memory: clients that come and go faster than they are written; filters asked once."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notification_service.presence import Change, Presence
from notification_service.topics import matches
from signpost.errors import LogUnavailable, SignpostError
from signpost.log import LogSettings, Retention, Store, matcher, open_store
from signpost.log.base import Append, Appended

TOKENS = st.lists(st.sampled_from(["a", "b", "_x"]), min_size=1, max_size=4)
PATTERNS = st.tuples(
    st.lists(st.sampled_from(["a", "b", "_x", "*"]), max_size=3), st.sampled_from(["a", "b", "*", ">"])
)


@dataclass
class FakeStream:
    client_id: str
    session_id: str = "1"
    connected_ns: int = 1
    subscribed: list[str] = field(default_factory=list)

    def filters(self) -> list[str]:
        return self.subscribed


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    async with open_store("memory:", [LogSettings("state", Retention(max_age_s=3600.0, keep_last=True))]) as opened:
        yield opened


class Replica:
    """A presence with its tasks; `changes` is what its subscribers are told."""

    def __init__(self, store: Store, grace_s: float, lease_s: float = 60.0) -> None:
        self.changes: list[Change] = []
        self.presence = Presence(store["state"], self.changes.append, grace_s=grace_s, lease_s=lease_s)
        work = (self.presence.run(), self.presence.write(), self.presence.leave(), self.presence.beat())
        self.tasks = [asyncio.create_task(one) for one in work]

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        ended = await asyncio.gather(*self.tasks, return_exceptions=True)
        assert all(isinstance(one, asyncio.CancelledError) for one in ended)

    def names(self) -> list[str]:
        return [one.client_id for one in self.presence.page("", "", 100)[0]]


async def test_clients_that_come_and_go_at_once(store: Store) -> None:
    """Without grace, closed and opened again while a write is on its way: what is so in the end is told."""
    replica = Replica(store, grace_s=0.0)
    await replica.presence.caught_up()
    for round_ in range(30):
        streams = [FakeStream(f"c{i}") for i in range(5)]
        for stream in streams:
            replica.presence.opened(stream)
        await asyncio.sleep(0.01 * (round_ % 4))
        for stream in streams:
            replica.presence.closed(stream)
        await asyncio.sleep(0.007 * (round_ % 3))
    stays = FakeStream("stays", subscribed=["a.*"])
    replica.presence.opened(stays)
    async with asyncio.timeout(20):
        while replica.names() != ["stays"]:  # noqa: ASYNC110 - the log tells it
            await asyncio.sleep(0.02)
    joined = [change.client_id for change in replica.changes if change.joined]
    left = [change.client_id for change in replica.changes if not change.joined]
    assert sorted(joined) == sorted([*left, "stays"])
    await replica.stop()


async def test_what_the_log_refuses_is_told_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who came and who left while the log was away is in the table once it is back."""
    state = store["state"]
    append_many, refusals = state.append_many, 0

    async def refuse_once(entries: Sequence[Append]) -> list[Appended | SignpostError]:
        nonlocal refusals
        if refusals:
            refusals -= 1
            raise LogUnavailable("away")
        return await append_many(entries)

    monkeypatch.setattr(state, "append_many", refuse_once)
    monkeypatch.setattr("notification_service.presence.RETRY_S", 0.01)
    replica = Replica(store, grace_s=0.0)
    await replica.presence.caught_up()
    stream = FakeStream("c")
    async with asyncio.timeout(20):
        for names, tell in ((["c"], replica.presence.opened), ([], replica.presence.closed)):
            refusals = 1
            tell(stream)
            while replica.names() != names:  # noqa: ASYNC110 - the log tells it
                await asyncio.sleep(0.02)
            assert not refusals
    await replica.stop()


async def test_two_replicas_come_to_one_table(store: Store) -> None:
    one, other = Replica(store, grace_s=0.05), Replica(store, grace_s=0.05)
    first, second = FakeStream("a", connected_ns=1), FakeStream("a", connected_ns=2, subscribed=["x"])
    one.presence.opened(first)
    other.presence.opened(second)

    async def until_all_have(entries: int) -> None:
        async with asyncio.timeout(20):
            while {len(each.presence._table.get("a", ())) for each in (one, other)} != {entries}:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    await until_all_have(2)
    assert [p.connected_ns for p in one.presence.page("x", "", 10)[0]] == [2]
    one.presence.closed(first)
    await until_all_have(1)
    assert one.names() == other.names() == ["a"]
    assert [change.joined for change in one.changes] == [change.joined for change in other.changes] == [True]
    other.presence.closed(second)
    async with asyncio.timeout(20):
        while one.names() or other.names():  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    assert [change.joined for change in one.changes] == [True, False]
    await one.stop()
    await other.stop()


@given(PATTERNS, TOKENS)
def test_asked_once_a_filter_matches_as_ever(pattern: tuple[list[str], str], tokens: list[str]) -> None:
    text, topic = ".".join([*pattern[0], pattern[1]]), ".".join(tokens)
    assert matches(text, topic) == matcher(text)(topic)
