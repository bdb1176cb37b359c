"""Many watches of one busy place: each is told every change of its own set, once and in order."""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import NamedTuple, cast

import feature_service.lanes
import feature_service.projection
import feature_service.rounds
import feature_service.watches
import pytest
from feature_service.geometry import unit_vector
from feature_service.items import to_feature, to_item
from feature_service.lanes import Frames, Link
from feature_service.records import Kind, decode, gone_payload, put_payload, subject_of
from feature_service.selections import Selection
from feature_service.validation import Problems, area_of
from signpost.client import Box, Circle, Filter
from signpost.errors import Draining, LogRewound
from signpost.log import Append, positions
from signpost.log.base import Page
from signpost.log.memory import MemoryLog

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import Parts, feature, parts
from tests.unit.feature.rebuilt import PLACES, Rebuilt, Watched

WATCHED = (
    Watched(Circle((0.0, 0.0), 1.0), ()),
    Watched(Circle((0.0, 0.0), 0.5), ()),
    Watched(Box(-1e-6, 179.9999, 1e-6, 1e-6), (Filter("kind", "!=", "bus"),)),
    Watched(None, ()),
    Watched(None, (Filter("kind", "!=", "bus"),)),
)
KEYS = [f"f{n}" for n in range(20)]


class Told(NamedTuple):
    """An event as it was told."""

    sequence: int
    kind: int
    id: str


class Reader:
    """A client: what it was told while it was live, and its set, rebuilt."""

    def __init__(self, replica: Parts, what: Watched) -> None:
        self.what = what
        self.rebuilt = Rebuilt()
        self.live_from = 0
        self.told: list[Told] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.error: Exception | None = None
        self._replica = replica
        self._task: asyncio.Task[None]
        self.connect()

    def connect(self) -> None:
        """With its position, if it has one."""
        request = self.what.request()
        if self.rebuilt.position:
            request.resume.token = self.rebuilt.position
        self._live(False)
        self._task = asyncio.create_task(self._read(request))

    async def leave(self) -> None:
        """At any moment."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _read(self, request: pb.WatchFeaturesRequest) -> None:
        frames = cast("AsyncGenerator[bytes, None]", self._replica.watcher.run(request))
        async with aclosing(frames):
            try:
                async for each in frames:
                    self._take(pb.WatchFeaturesResponse.FromString(each))
                    await self.reads.wait()
            except Draining as error:
                self.error = error

    def _take(self, frame: pb.WatchFeaturesResponse) -> None:
        self.rebuilt.take(frame)
        if frame.WhichOneof("frame") in ("caught_up", "reset"):
            self._live(frame.HasField("caught_up"))
        elif self.rebuilt.live:
            events = frame.events
            ids = [each.id for each in events.features]
            self.told += map(Told, events.sequences, events.kinds, ids)

    def _live(self, live: bool) -> None:
        self.rebuilt.live = live
        self.told = []
        if live:
            self.live_from = positions.decode(self.rebuilt.position).sequence

    @property
    def through(self) -> int:
        """Up to where it knows everything, while it is live."""
        live = self.rebuilt.live and self.rebuilt.position
        return positions.decode(self.rebuilt.position).sequence if live else -1


class World:
    """A replica, its readers, and what happens."""

    def __init__(self, replica: Parts, seed: int) -> None:
        self.replica = replica
        self.draw = random.Random(seed)
        self.readers = [Reader(replica, what) for what in WATCHED for _ in range(4)]

    def burst(self, count: int) -> None:
        """So many changes in one commit."""
        self.replica.log.submit([self._change() for _ in range(count)])

    def _change(self) -> Append:
        key = self.draw.choice(KEYS)
        if self.draw.random() < 0.2:
            return Append(subject_of("places", key), gone_payload(Kind.DELETED), tombstone=True)
        kind = self.draw.choice(["bus", "tram"])
        made = feature(key, *self.draw.choice(PLACES), kind=kind)
        return Append(subject_of("places", key), put_payload(to_item(made.SerializeToString())))

    async def settled(self) -> None:
        """All are live and know everything."""
        async with asyncio.timeout(60):
            while any(reader.through < self.replica.log.head for reader in self.readers):  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)

    async def check(self) -> None:
        """Every reader was told exactly the events of its set since it was live."""
        await self.settled()
        for what in WATCHED:
            events = await self._events(what)
            for reader in self.readers:
                if reader.what is what:
                    assert reader.told == [event for event in events if event.sequence > reader.live_from]
        held = {what: await self.replica.list(what.listing()) for what in WATCHED}
        for reader in self.readers:
            listed = {each.id: each for batch in held[reader.what] for each in batch.features}
            assert reader.rebuilt.held == listed

    async def _events(self, what: Watched) -> list[Told]:
        """What the log says, one change after the other."""
        held: set[str] = set()
        events: list[Told] = []
        after = 0
        while after < self.replica.log.head:
            page = await self.replica.log.read(after)
            after = page.through
            for record in page.records:
                change = decode(record)
                now = change.item is not None and holds(what, to_feature(change.item))
                if now:
                    kind = pb.EVENT_KIND_MOVED if change.id in held else pb.EVENT_KIND_ENTERED
                    events.append(Told(change.sequence, kind, change.id))
                    held.add(change.id)
                elif change.id in held:
                    events.append(Told(change.sequence, pb.EVENT_KIND_LEFT, change.id))
                    held.discard(change.id)
        return events


def holds(what: Watched, each: pb.Feature) -> bool:
    """Whether a feature is in the set."""
    if what.area is not None:
        area = area_of(Problems(), "", what.area.to_area())
        latitude, longitude = each.location.latitude, each.location.longitude
        if area is None or not area.contains_point(latitude, longitude, unit_vector(latitude, longitude)):
            return False
    return not what.filters or each.properties["kind"] != "bus"


@pytest.fixture(params=[10_000, 7], ids=["room", "little-room"])
def most_events(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_service.watches, "MOST_EVENTS", request.param)


@pytest.fixture(params=[None, 0.0], ids=["at-once", "in-turns"], autouse=True)
def turn_s(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With no time for a turn, every step of telling is followed by turns of others."""
    if request.param is not None:
        monkeypatch.setattr(feature_service.watches, "_TURN_S", request.param)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.usefixtures("most_events")
async def test_each_is_told_its_own_events_while_some_are_slow_and_some_come_and_go(seed: int) -> None:
    async with parts() as replica:
        world = World(replica, seed)
        for count in (1, 1, 30, 1300, 2, 700):
            for reader in world.readers:
                (reader.reads.clear if world.draw.random() < 0.3 else reader.reads.set)()
            world.burst(count)
            for reader in world.draw.sample(world.readers, 6):
                for _ in range(world.draw.randrange(10)):
                    await asyncio.sleep(0)
                await reader.leave()
                reader.connect()
                world.burst(world.draw.randrange(1, 20))
        for reader in world.readers:
            reader.reads.set()
        await world.check()
        world.burst(20)
        await world.check()


async def test_all_start_over_when_the_log_is_another_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rewound: list[LogRewound] = []
    follow = MemoryLog.follow

    async def following(log: MemoryLog, after: int) -> AsyncIterator[Page]:
        async with aclosing(follow(log, after)) as pages:
            async for page in pages:
                if rewound:
                    raise rewound.pop()
                yield page

    monkeypatch.setattr(MemoryLog, "follow", following)
    async with parts() as replica:
        world = World(replica, 1)
        world.burst(600)
        await world.check()
        rewound.append(LogRewound("it went back", first_available=1))
        world.burst(600)
        await world.check()
        assert {reader.rebuilt.resets for reader in world.readers} == {1}
        world.burst(600)
        await world.check()


async def test_what_waits_for_a_slow_reader_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_service.watches, "MOST_EVENTS", 7)
    async with parts() as replica:
        watch = replica.watches.open(Selection("places", None, (), pb.WatchFeaturesRequest()))
        watch.go_live(0)
        for n in range(1, 11):
            await replica.put(feature(f"f{n}", 1, 1))
        assert watch.behind is not None
        assert watch.behind.after == 7
        assert watch.take().events == 7
        assert watch.take().events == 0
        replica.watches.close(watch)


async def test_who_waits_for_a_round_is_not_taken_for_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_service.watches, "MOST_EVENTS", 40)
    monkeypatch.setattr(feature_service.projection, "SLICE", 5)
    monkeypatch.setattr(feature_service.rounds, "PAUSE", 1e6)
    monkeypatch.setattr(feature_service.rounds, "LONGEST_PAUSE_S", 0.05)
    async with parts() as replica:
        world = World(replica, 3)
        await world.settled()
        most: list[int] = []

        def joined(begin: Link, end: Link) -> Frames:
            most.append(end.count - begin.count)
            return join(begin, end)

        join = feature_service.lanes._joined
        monkeypatch.setattr(feature_service.lanes, "_joined", joined)
        for _ in range(200):
            world.burst(1)
            await asyncio.sleep(0.001)
        await world.check()
        assert max(most) <= 2 * (10 + 5), "of two rounds, each a quarter of what may wait and a slice"


@pytest.mark.usefixtures("most_events")
async def test_a_drain_ends_all_after_what_was_told() -> None:
    async with parts() as replica:
        world = World(replica, 2)
        world.burst(100)
        await world.settled()
        slow = world.readers[::3]
        for reader in slow:
            reader.reads.clear()
        world.burst(1200)
        await replica.projection.wait_for(replica.log.head)
        replica.watches.drain()
        for reader in slow:
            reader.reads.set()
        async with asyncio.timeout(60):
            while len(replica.watches):  # noqa: ASYNC110 - the streams end one by one
                await asyncio.sleep(0.01)
        assert all(isinstance(reader.error, Draining) for reader in world.readers)
        events = {what: await world._events(what) for what in WATCHED}
        for reader in world.readers:
            since = [event for event in events[reader.what] if event.sequence > reader.live_from]
            assert reader.told == since[: len(reader.told)]
