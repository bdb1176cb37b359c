"""The relay over real logs: every event once, whatever happens between publishing and keeping."""

import asyncio
import gc
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
from feature_service.fences.book import FenceBook
from feature_service.fences.model import Event
from feature_service.fences.relay import Relay
from feature_service.fences.stored import start_of
from feature_service.items import to_item
from feature_service.projection import Projection
from feature_service.records import put_payload, subject_of
from feature_service.writes import Writer
from signpost.errors import SignpostError, Unavailable
from signpost.log import Append, Appended, Log, LogSettings, Record, Retention, open_store

from protos.feature.v1.feature_pb2 import Feature, Fence, FenceEvent, LeftReason, Point

ENTERED, LEFT = FenceEvent.FENCE_EVENT_ENTERED, FenceEvent.FENCE_EVENT_LEFT
KEPT = Retention(max_age_s=3600, keep_last=True)


class Topic:
    """What was published: once for each message id, as the notification service keeps it."""

    def __init__(self) -> None:
        self.events: dict[str, Event] = {}
        self.attempts = 0
        self.epoch = ""  # of the features log
        self.away = False
        self.awake = asyncio.Event()
        self.awake.set()
        self.before: Callable[[Event], Awaitable[None]] | None = None

    async def __call__(self, event: Event) -> None:
        await self.awake.wait()
        if self.before is not None:
            await self.before(event)
        self.attempts += 1
        if self.away:
            raise Unavailable("the notification service is away")
        self.events.setdefault(self.epoch + event.message_id, event)

    def told(self) -> list[tuple[FenceEvent, str]]:
        return [(e.kind, e.key.id) for e in self.events.values()]

    async def has(self, count: int) -> None:
        async with asyncio.timeout(30):
            while len(self.events) < count:  # noqa: ASYNC110 - the events come from another task
                await asyncio.sleep(0.01)


class World:
    """Two logs, with a projection, and a relay that can be killed and started."""

    def __init__(self, store: Mapping[str, Log], topic: Topic | None = None) -> None:
        self.store = store
        self.executor = ThreadPoolExecutor(2)
        self.projection = Projection(store["features"], self.executor)
        self.writer = Writer(store["features"], self.projection)
        self.book = FenceBook(store["features"], store["state"])
        self.topic = topic or Topic()

    async def put(self, feature_id: str, latitude: float, longitude: float) -> None:
        feature = Feature(id=feature_id)
        feature.location.latitude, feature.location.longitude = int(latitude * 1e7), int(longitude * 1e7)
        await self.writer.put("places", feature_id, feature.SerializeToString())

    async def kept(self, uid: str, count: int) -> None:
        """Return once so many members of a fence are kept: telling comes before keeping."""
        async with asyncio.timeout(10):
            while len(await self._members(uid)) != count:  # noqa: ASYNC110 - another task keeps them
                await asyncio.sleep(0.01)

    async def begun(self, uid: str, revision: int) -> None:
        """Return once this revision of a fence has begun, and what is inside is kept; 0: once it is gone."""
        async with asyncio.timeout(60):
            while await self._revision(uid) != revision:  # noqa: ASYNC110 - another task begins it
                await asyncio.sleep(0.01)

    async def rebuilt(self, *, everything: bool) -> None:
        """The index as it is once everything put has been seen, and rebuilt."""
        await self.projection.wait_for(self.store["features"].head)
        index = self.projection.index("places")
        assert index is not None
        await self.projection._run_rebuild(index, everything=everything)

    async def _revision(self, uid: str) -> int | None:
        last = await self.store["state"].last(f"fencestart.{uid}")
        return None if last is None else 0 if last.tombstone else start_of(last).revision

    async def _members(self, uid: str) -> list[Record]:
        return [r for r in await self.store["state"].last_of_each(f"inside.{uid}.>") if not r.tombstone]

    @asynccontextmanager
    async def relay(self) -> AsyncIterator["asyncio.Task[None]"]:
        leading = asyncio.create_task(Relay(self.projection, self.store["state"], self.topic, self.executor).lead())
        try:
            yield leading
        finally:
            leading.cancel()
            with suppress(asyncio.CancelledError, SignpostError, BaseExceptionGroup):
                await leading


def fence(**changes: object) -> Fence:
    made = Fence(id="f", collection="places", topic="f", events=[ENTERED, LEFT])
    made.area.circle.center.latitude = 0
    made.area.circle.radius_m = 1000
    made.MergeFrom(Fence(**changes))  # type: ignore[arg-type]
    return made


@pytest.fixture(params=["memory", "sqlite"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    url = "memory:" if request.param == "memory" else f"sqlite:///{tmp_path / 'log.db'}"
    async with (
        open_store(url, [LogSettings("features", KEPT), LogSettings("state", KEPT)]) as store,
        following(World({name: store[name] for name in ("features", "state")})) as made,
    ):
        yield made


@asynccontextmanager
async def following(world: World) -> AsyncIterator[World]:
    """The world with its projection at work."""
    running = asyncio.create_task(world.projection.run())
    yield world
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    world.executor.shutdown()


@asynccontextmanager
async def features(state: Log, topic: Topic) -> AsyncIterator[World]:
    """A world around a state log, with a features log of its own, for which everything is published."""
    async with open_store("memory:", [LogSettings("features", KEPT)]) as store:
        topic.epoch = store["features"].epoch.hex()
        async with following(World({"features": store["features"], "state": state}, topic)) as made:
            yield made


class Mortal:
    """A log whose process ends at a write: after `writes` more of them, with `part` of that one done."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.writes: int | None = None
        self.part = 0.0

    def __getattr__(self, name: str) -> object:
        return getattr(self._log, name)

    async def append(self, entry: Append) -> Appended:
        (answer,) = await self.append_many([entry])
        if isinstance(answer, SignpostError):
            raise answer
        return answer

    async def append_many(self, entries: Sequence[Append]) -> list[Appended | SignpostError]:
        if self.writes is not None:
            if self.writes <= 0:
                await self._log.append_many(entries[: round(self.part * len(entries))])
                self.writes = 0
                raise Unavailable("the process has ended")
            self.writes -= 1
        return await self._log.append_many(entries)


async def test_a_fence_tells_what_enters_and_leaves(world: World) -> None:
    await world.put("there before", 0, 0)
    async with world.relay():
        await world.book.put(fence())
        await world.put("a", 0.001, 0)
        await world.put("there before", 5, 5)
        await world.put("elsewhere", 5, 5)
        await world.topic.has(2)
        await asyncio.sleep(0.3)
    assert world.topic.told() == [(ENTERED, "a"), (LEFT, "there before")]


async def test_present_features_are_told_where_asked(world: World) -> None:
    await world.put("a", 0, 0)
    await world.put("b", 0, 0.001)
    async with world.relay():
        await world.book.put(fence(notify_present=True))
        await world.topic.has(2)
    assert sorted(world.topic.told()) == [(ENTERED, "a"), (ENTERED, "b")]


async def test_an_outage_costs_delay_and_nothing_else(world: World) -> None:
    async with world.relay():
        await world.book.put(fence())
        await world.put("a", 0, 0)
        await world.topic.has(1)
    world.topic.away = True
    async with world.relay():
        for n in range(20):
            await world.put(f"x{n}", 0, 0)
        await world.put("a", 9, 9)
        async with asyncio.timeout(10):
            while world.topic.attempts < 2:  # noqa: ASYNC110 - the relay is another task
                await asyncio.sleep(0.01)
        await asyncio.sleep(0.3)
    assert len(world.topic.events) == 1
    world.topic.away = False
    async with world.relay():
        await world.topic.has(22)
    assert world.topic.told() == [(ENTERED, "a"), *((ENTERED, f"x{n}") for n in range(20)), (LEFT, "a")]


async def test_relays_that_are_killed_at_any_moment_tell_everything_once(world: World) -> None:
    async with world.relay():
        await world.book.put(fence())
        await world.put("first", 0, 0)
        await world.topic.has(1)
    inside: set[str] = {"first"}
    expected = [(ENTERED, "first")]
    for n in range(60):
        name = f"m{n % 7}"
        where = 0 if n % 3 else 9
        await world.put(name, where, 0)
        if where == 0 and name not in inside:
            inside.add(name)
            expected.append((ENTERED, name))
        elif where and name in inside:
            inside.discard(name)
            expected.append((LEFT, name))
        if n % 5 == 0:
            async with world.relay():
                await asyncio.sleep(0.003 * (n % 4))
    async with world.relay():
        await world.topic.has(len(expected))
        await asyncio.sleep(0.2)
    assert sorted(world.topic.told()) == sorted(expected)


async def test_a_removed_fence_lets_go_and_says_so_where_asked(world: World) -> None:
    async with world.relay():
        uid = (await world.book.put(fence())).fence.uid
        await world.put("a", 0, 0)
        await world.topic.has(1)
        await world.kept(uid, 1)
    assert await world.book.delete("f", notify_left=True)
    async with world.relay():
        await world.topic.has(2)
    last = list(world.topic.events.values())[-1]
    assert (last.kind, last.reason) == (LEFT, LeftReason.LEFT_REASON_FENCE_REMOVED)
    async with world.relay():
        await world.put("a", 0, 0)
        await asyncio.sleep(0.3)
    assert len(world.topic.events) == 2


@pytest.mark.parametrize("notify_left", [True, False])
async def test_a_fence_that_is_put_again_while_nobody_relays_is_another_one(world: World, notify_left: bool) -> None:
    async with world.relay():
        first = (await world.book.put(fence())).fence.uid
        await world.put("a", 0, 0)
        await world.put("b", 0, 0)
        await world.topic.has(2)
        await world.kept(first, 2)
    for _ in range(2):  # the one between never began: nobody is told of it
        assert await world.book.delete("f", notify_left=notify_left)
        second = (await world.book.put(fence(notify_present=True))).fence.uid
    async with world.relay():
        await world.topic.has(6 if notify_left else 4)
        await world.kept(first, 0)
        await world.kept(second, 2)
    async with world.relay():  # and what is told stays told
        await world.put("a", 9, 9)
        await world.topic.has(7 if notify_left else 5)
    events = [(e.fence.uid, e.kind, e.key.id) for e in world.topic.events.values()]
    left = [(first, LEFT, "a"), (first, LEFT, "b")] if notify_left else []
    assert sorted(events[2 : 2 + len(left)]) == left
    assert sorted(events[2 + len(left) : -1]) == [(second, ENTERED, "a"), (second, ENTERED, "b")]
    assert events[-1] == (second, LEFT, "a")


async def test_what_moved_before_a_fence_was_changed_or_removed_is_told_as_it_was(world: World) -> None:
    async with world.relay():
        await world.book.put(fence(id="revised", topic="old"))
        await world.book.put(fence(id="removed", topic="removed"))
        await world.put("first", 0, 0)
        await world.topic.has(2)
        world.topic.awake.clear()
        for n in range(20):
            await world.put(f"a{n}", 0, 0)
            await asyncio.sleep(0.01)
        await world.book.put(fence(id="revised", topic="new"))
        await world.book.delete("removed", notify_left=True)
        for n in range(20):
            await world.put(f"b{n}", 0, 0)
            await asyncio.sleep(0.01)
        world.topic.awake.set()
        await world.topic.has(82)
        await asyncio.sleep(0.5)
    told: dict[str, list[tuple[FenceEvent, str]]] = {"old": [], "new": [], "removed": []}
    for event in world.topic.events.values():
        told[event.fence.message.topic].append((event.kind, event.key.id))
    before = ["first", *(f"a{n}" for n in range(20))]
    assert told["old"] == [(ENTERED, each) for each in before]
    assert told["new"] == [(ENTERED, f"b{n}") for n in range(20)]
    assert told["removed"] == [*((ENTERED, each) for each in before), *((LEFT, each) for each in before)]


async def test_what_moved_before_a_fence_was_removed_is_told_by_the_next_relay(world: World) -> None:
    async with world.relay():
        uid = (await world.book.put(fence())).fence.uid
        await world.put("first", 0, 0)
        await world.topic.has(1)
        await world.kept(uid, 1)
    await world.put("second", 0, 0)
    await world.put("first", 9, 9)
    await world.book.delete("f", notify_left=False)
    await world.put("third", 0, 0)
    async with world.relay():
        await world.topic.has(3)
        await asyncio.sleep(0.5)
    assert world.topic.told() == [(ENTERED, "first"), (ENTERED, "second"), (LEFT, "first")]


async def test_a_stay_is_told_once_over_restarts(world: World) -> None:
    asked = fence(dwell_time_ms=1000)
    asked.events[:] = [FenceEvent.FENCE_EVENT_DWELLED]
    async with world.relay():
        await world.book.put(asked)
        await world.put("a", 0, 0)
        await asyncio.sleep(0.3)
    async with world.relay():
        await world.topic.has(1)
        await asyncio.sleep(0.5)
    async with world.relay():
        await asyncio.sleep(1.2)
    assert world.topic.told() == [(FenceEvent.FENCE_EVENT_DWELLED, "a")]


async def test_a_stay_during_an_outage_is_told_though_it_has_ended(world: World) -> None:
    asked = fence(dwell_time_ms=1000)
    asked.events.append(FenceEvent.FENCE_EVENT_DWELLED)
    world.topic.away = True
    async with world.relay():
        await world.book.put(asked)
        await world.put("a", 0, 0)
        await asyncio.sleep(1.2)
        await world.put("a", 9, 9)
    world.topic.away = False
    async with world.relay():
        await world.topic.has(3)
        await asyncio.sleep(0.5)
    assert world.topic.told() == [(ENTERED, "a"), (FenceEvent.FENCE_EVENT_DWELLED, "a"), (LEFT, "a")]


@pytest.mark.parametrize("world", ["sqlite"], indirect=True)  # the one in memory works on the loop
async def test_a_fence_around_very_many_features_holds_nobody_up(world: World) -> None:
    count, longest_s = 30_000, 0.0
    gc.disable()  # it would go through all that the test holds

    async def take_turns() -> None:
        nonlocal longest_s
        while True:
            before_s = time.thread_time()
            await asyncio.sleep(0)
            longest_s = max(longest_s, time.thread_time() - before_s)

    for begin in range(0, count, 1000):
        ids = [f"x{n}" for n in range(begin, begin + 1000)]
        encoded = [Feature(id=each, location=Point()).SerializeToString() for each in ids]
        puts = [Append(subject_of("places", i), put_payload(to_item(e))) for i, e in zip(ids, encoded, strict=True)]
        await world.store["features"].append_many(puts)
    await world.rebuilt(everything=True)
    async with world.relay():
        turns = asyncio.create_task(take_turns())
        uid = (await world.book.put(fence())).fence.uid
        await world.begun(uid, 1)
        assert len(await world.store["state"].last_of_each(f"inside.{uid}.>", limit=count + 1)) == count
        await world.book.put(fence(topic="g"))
        await world.begun(uid, 2)
        await world.book.delete("f", notify_left=False)
        await world.begun(uid, 0)
        stays = fence(id="late", dwell_time_ms=1000)
        stays.events[:] = [FenceEvent.FENCE_EVENT_DWELLED]
        uid = (await world.book.put(stays)).fence.uid
        await world.begun(uid, 1)
        await world.topic.has(count)
        turns.cancel()
    gc.enable()
    assert longest_s < 0.05


async def test_a_fence_expires_and_says_left_where_asked(world: World) -> None:
    asked = fence(notify_left_on_expiry=True)
    asked.expire_time.GetCurrentTime()
    asked.expire_time.seconds += 4
    async with world.relay():
        await world.book.put(asked)
        await world.put("a", 0, 0)
        await world.topic.has(2)
    assert world.topic.told() == [(ENTERED, "a"), (LEFT, "a")]
    assert (await world.book.page("", 10, "")).fences == []


async def test_a_fence_expires_in_its_time_though_nothing_can_be_told(world: World) -> None:
    asked = fence(notify_left_on_expiry=True)
    asked.expire_time.GetCurrentTime()
    asked.expire_time.seconds += 2
    async with world.relay():
        await world.book.put(asked)
        for name in ["revised", "for good"]:
            asked.id = name
            await world.book.put(asked)
        await world.put("a", 0, 0)
        await world.topic.has(3)
        world.topic.awake.clear()
        await world.put("b", 0, 0)
        asked.id = "revised"
        asked.expire_time.seconds += 3600
        await world.book.put(asked)
        asked.id = "for good"
        asked.ClearField("expire_time")
        await world.book.put(asked)
        asked.id = "new"
        asked.expire_time.GetCurrentTime()
        asked.expire_time.seconds += 1
        await world.book.put(asked)
        await world.put("c", 0, 0)
        await asyncio.sleep(3)
        await world.put("d", 0, 0)
        world.topic.awake.set()
        await world.topic.has(18)
        await asyncio.sleep(0.5)
    told: dict[str, list[str]] = {}
    for event in world.topic.events.values():
        told.setdefault(event.fence.message.id, []).append(f"{event.kind_name} {event.key.id}")
    stays = ["entered a", "entered b", "entered c", "entered d"]
    gone = ["entered a", "entered b", "entered c", "left a", "left b", "left c"]
    new = ["entered c", "left a", "left b", "left c"]  # it was put around a and b
    assert {name: sorted(events) for name, events in told.items()} == {
        "f": gone,
        "revised": stays,
        "for good": stays,
        "new": new,
    }
    assert [each.id for each in (await world.book.page("", 10, "")).fences] == ["for good", "revised"]


async def test_a_fence_put_further_on_than_a_restored_features_log_reaches_begins_at_its_end() -> None:
    topic = Topic()
    async with open_store("memory:", [LogSettings("state", KEPT)]) as kept:
        async with features(kept["state"], topic) as world:
            for n in range(20):
                await world.put("a", 0, n)
            await world.book.put(fence())
        async with features(kept["state"], topic) as world, world.relay() as leading:
            await world.put("b", 9, 9)
            await asyncio.sleep(0.5)
            await world.put("a", 0, 0)
            await topic.has(1)
            assert not leading.done()
    assert topic.told() == [(ENTERED, "a")]


async def test_a_revision_that_is_taken_up_late_tells_no_one_out_who_stayed(world: World) -> None:
    await world.put("goes", 0, 0)
    await world.put("moves inside", 0, 0)
    async with world.relay():
        put = await world.book.put(fence(notify_present=True))
        await world.topic.has(2)
        await world.kept(put.fence.uid, 2)
    await world.book.put(fence(notify_present=True))
    await world.put("goes", 9, 9)
    await world.put("moves inside", 0, 0.001)
    await world.rebuilt(everything=True)
    async with world.relay():
        await world.put("comes", 0, 0)
        await world.topic.has(4)
    assert world.topic.told()[2:] == [(LEFT, "goes"), (ENTERED, "comes")]


async def test_a_fence_that_is_taken_up_late_knows_who_has_left_since(world: World) -> None:
    await world.put("goes", 0, 0)
    await world.put("moves inside", 0, 0)
    await world.book.put(fence())
    await world.put("goes", 9, 9)
    await world.put("moves inside", 0, 0.001)
    await world.rebuilt(everything=False)
    async with world.relay():
        await world.put("comes", 0, 0)
        await world.topic.has(2)
    assert world.topic.told() == [(LEFT, "goes"), (ENTERED, "comes")]


async def test_fences_that_come_while_nothing_can_be_told_tell_what_each_alone_would(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Put, put again and removed between moves, while the relay waits: each begins at its own place in the log.
    monkeypatch.setattr("feature_service.fences.relay.FENCES_AT_ONCE", 20)  # so that some dozens are several times
    source = random.Random(1)
    expected: list[tuple[str, FenceEvent, str]] = []
    inside: dict[str, set[str]] = {}
    where: dict[str, int] = {}
    async with world.relay():
        await world.book.put(fence(id="first"))
        await world.put("first", 0, 0)
        await world.topic.has(1)
        world.topic.awake.clear()
        await world.put("first", 9, 9)
        await asyncio.sleep(0.5)  # the relay waits by now
        for n in range(120):
            name, latitude = f"f{n % 100}", n % 100 % 5
            made = fence(id=name)
            made.area.circle.center.latitude = latitude * 10_000_000
            await world.book.put(made)
            inside.setdefault(name, {vehicle for vehicle, at in where.items() if at == latitude})
            if n % 3 == 0:
                vehicle, to = f"v{source.randrange(12)}", source.randrange(5)
                came = where.get(vehicle)
                await world.put(vehicle, to, 0.001)
                where[vehicle] = to
                for other, vehicles in inside.items() if came != to else ():
                    if int(other[1:]) % 5 == came:
                        vehicles.discard(vehicle)
                        expected.append((other, LEFT, vehicle))
                    elif int(other[1:]) % 5 == to:
                        vehicles.add(vehicle)
                        expected.append((other, ENTERED, vehicle))
            if n % 7 == 0 and await world.book.delete(gone := f"f{source.randrange(100)}", notify_left=False):
                del inside[gone]
            if n % 30 == 0:
                await asyncio.sleep(0.2)  # the relay looks into what came, before the index lets go of what is past
                await world.rebuilt(everything=True)
        world.topic.awake.set()
        await world.topic.has(len(expected) + 2)
        await asyncio.sleep(0.2)
    told = sorted(
        (e.fence.message.id, e.kind, e.key.id) for e in world.topic.events.values() if e.fence.message.id != "first"
    )
    assert told == sorted(expected)


async def test_fences_that_come_while_others_begin_stop_nothing(world: World) -> None:
    # Each comes while the one before tells who is inside it, the last between two records of a page.
    names = iter(["second", "third", "fourth"])
    met: set[str] = set()

    async def put_next(event: Event) -> None:
        about = event.fence.message.id if event.key.id == "there" else event.key.id
        if about not in met and about in {"a", "second", "third"}:
            met.add(about)
            await world.book.put(fence(id=next(names), notify_present=True))
            if about == "a":
                await world.put("b", 0, 0)
            await asyncio.sleep(0.3)

    await world.put("there", 0, 0)
    async with world.relay():
        await world.book.put(fence(id="first", notify_present=True))
        await world.topic.has(1)
        world.topic.before = put_next
        await world.put("a", 0, 0)
        await world.topic.has(4 * 3)
        await world.put("c", 0, 0)
        await world.topic.has(4 * 4)


async def test_a_revision_that_is_put_while_nobody_relays_counts_from_its_place(world: World) -> None:
    async with world.relay():
        uid = (await world.book.put(fence(topic="1"))).fence.uid
        await world.put("first", 0, 0)
        await world.topic.has(1)
        await world.kept(uid, 1)
    for revision in range(2, 5):
        await world.put(f"before {revision}", 0, 0)
        made = fence(topic=str(revision))
        if revision == 3:
            made.area.circle.center.latitude = 50_000_000
        await world.book.put(made)
    await world.put("after", 0, 0)
    async with world.relay():
        await world.topic.has(7)
        await asyncio.sleep(0.3)
    assert [(e.fence.message.topic, e.kind, e.key.id) for e in world.topic.events.values()] == [
        ("1", ENTERED, "first"),
        ("1", ENTERED, "before 2"),
        ("2", ENTERED, "before 3"),
        ("3", LEFT, "first"),
        ("3", LEFT, "before 2"),
        ("3", LEFT, "before 3"),
        ("4", ENTERED, "after"),
    ]


async def test_what_happens_after_the_features_log_is_restored_is_told_under_its_old_sequences() -> None:
    # The state log knows of sequences that the restored features log gives out once more.
    topic = Topic()
    async with open_store("memory:", [LogSettings("state", KEPT)]) as kept:
        async with features(kept["state"], topic) as world, world.relay():
            uid = (await world.book.put(fence())).fence.uid
            for name in ["stays", "goes", "returns"]:
                await world.put(name, 0, 0)
            for n in range(20):
                await world.put("far", 9, n)
            await world.put("returns", 9, 9)  # up to here it must not be let in again, had this log gone on
            await world.put("stays", 0, 0)
            await world.topic.has(4)
            await world.kept(uid, 2)
            await world.put("far", 9, 9)
        async with features(kept["state"], topic) as world:
            await world.put("stays", 0, 0)
            await world.put("other", 0, 0)
            async with world.relay():
                await topic.has(6)  # "goes" is not there, "other" is
            await world.put("returns", 0, 0)
            async with world.relay():
                await world.put("stays", 9, 9)
                await topic.has(8)
                for n in range(30):  # under some of these sequences others have left
                    await world.put(f"x{n % 3}", 0 if n % 6 < 3 else 9, 0)
                await topic.has(38)
    told = topic.told()[4:]
    assert sorted(told[:2]) == [(ENTERED, "other"), (LEFT, "goes")]
    # Two that a second comparison tells, where the first relay ended before it had kept its own: in any order.
    assert sorted(told[2:4]) == [(ENTERED, "returns"), (LEFT, "stays")]
    assert told[4:] == [(ENTERED if n % 6 < 3 else LEFT, f"x{n % 3}") for n in range(30)]


async def test_a_process_that_ends_while_it_compares_a_restored_features_log_misses_no_fence() -> None:
    topic = Topic()
    async with open_store("memory:", [LogSettings("state", KEPT)]) as kept:
        async with features(kept["state"], topic) as world, world.relay():
            await world.put("before", 9, 9)
            for n in range(250):
                uid = (await world.book.put(fence(id=f"f{n}"))).fence.uid
            await world.begun(uid, 1)
            await world.put("goes", 0, 0)
            await topic.has(250)
            await world.kept(uid, 1)
        mortal = Mortal(kept["state"])
        async with features(cast(Log, mortal), topic) as world:
            await world.put("comes", 0, 0)
            for writes in range(8):
                mortal.writes, mortal.part = writes, writes % 3 / 2
                async with world.relay() as leading:
                    await asyncio.wait([leading], timeout=0.3)
            mortal.writes = None
            async with world.relay():
                await topic.has(750)
                await world.put("comes", 9, 9)
                await topic.has(1000)
                await asyncio.sleep(0.3)
    assert sorted(topic.told()) == sorted(
        250 * [(ENTERED, "goes"), (LEFT, "goes"), (ENTERED, "comes"), (LEFT, "comes")]
    )


@pytest.mark.parametrize("seed", range(3))
async def test_a_process_that_ends_at_any_append_tells_everything_once(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    # Each relay dies at a later write than the one before, with the write done, half done, or not at all.
    monkeypatch.setattr("feature_service.projection.QUIET_S", 3600)  # what an index lets go of, a revision cannot know
    source = random.Random(seed)
    async with open_store("memory:", [LogSettings("state", KEPT)]) as kept:
        state = cast(Log, mortal := Mortal(kept["state"]))
        async with features(state, Topic()) as world:
            expected: list[tuple[str, int, FenceEvent, str]] = []
            fences: dict[str, tuple[int, int]] = {}
            inside: dict[str, set[str]] = {}
            where: dict[str, int] = {}
            for step in range(60):
                for _ in range(source.randrange(4)):
                    name = f"f{source.randrange(4)}"
                    if name in fences and source.random() < 0.3:
                        await world.book.delete(name, notify_left=True)
                        expected += [(name, fences[name][0], LEFT, each) for each in inside.pop(name)]
                        del fences[name]
                        continue
                    latitude = source.randrange(3)
                    made = fence(id=name)
                    made.area.circle.center.latitude = latitude * 10_000_000
                    put = (await world.book.put(made)).fence
                    now = {vehicle for vehicle, at in where.items() if at == latitude}
                    expected += [(name, put.revision, LEFT, each) for each in inside.get(name, set()) - now]
                    fences[name], inside[name] = (put.revision, latitude), now
                    # One that has not begun when it is removed or revised is told of only by a relay that knew of it.
                    if put.revision == 1:
                        async with world.relay():
                            await world.begun(put.uid, 1)
                for _ in range(source.randrange(5)):
                    vehicle, to = f"v{source.randrange(5)}", source.randrange(4)
                    await world.put(vehicle, to, 0)
                    where[vehicle] = to
                    for name, (revision, latitude) in fences.items():
                        if latitude == to and vehicle not in inside[name]:
                            inside[name].add(vehicle)
                            expected.append((name, revision, ENTERED, vehicle))
                        elif latitude != to and vehicle in inside[name]:
                            inside[name].discard(vehicle)
                            expected.append((name, revision, LEFT, vehicle))
                mortal.writes = source.randrange(4)
                mortal.part = source.choice([0.0, 0.5, 1.0])
                async with world.relay() as leading:
                    await asyncio.wait([leading], timeout=0.1 if step % 5 else 0.5)
                mortal.writes = None
            async with world.relay():
                await world.topic.has(len(expected))
                await asyncio.sleep(0.3)
            told = [
                (e.fence.message.id, e.fence.message.revision, e.kind, e.key.id) for e in world.topic.events.values()
            ]
            assert sorted(told) == sorted(expected)
