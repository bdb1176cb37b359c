"""Many watches of a real service: each is told every change of its own set, once and in order, on both engines.

One watch of everything tells what happened; what the others were told must follow from it.
"""

import asyncio
import itertools
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import grpc
from signpost.client import Box, Circle
from signpost.client.geo import Area

from protos.feature.v1 import feature_pb2 as pb
from protos.feature.v1 import feature_pb2_grpc
from tests.support.services import ServiceProcess, running

Stub: TypeAlias = "feature_pb2_grpc.FeatureServiceAsyncStub"
AREAS: tuple[Area | None, ...] = (None, Box(-1, -1, 1, 1), Circle((0.0, 0.0), 100_000.0), Circle((0.0, 0.0), 200_000.0))
OF_EACH = 8
END = "the-end"
FALLEN = re.compile(r"^signpost_feature_watches_fallen_behind_total (\S+)$", re.MULTILINE)
STOPPED = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.http2.lookahead_bytes", 65_536),
    ("grpc.http2.bdp_probe", 0),
]
"""A connection that takes little of what nobody reads."""


class Told(NamedTuple):
    """An event as it was told."""

    sequence: int
    kind: int
    id: str
    location: tuple[int, int]


class Watch:
    """One of them; with `after` it resumes."""

    def __init__(self, stub: Stub, area: Area | None, collection: str, after: bytes = b"") -> None:
        self.area = area
        self.told: list[Told] = []
        self.position = after
        request = pb.WatchFeaturesRequest(collection=collection)
        if area is not None:
            request.area.CopyFrom(area.to_area())
        if after:
            request.resume.token = after
        self._call: Any = stub.WatchFeatures(request)

    async def live(self) -> None:
        """Read up to `caught_up`, which nothing comes before where nothing has happened."""
        while not (await self.read()).HasField("caught_up"):
            pass
        self.told.clear()

    async def up_to(self, end: str) -> None:
        """Read until this feature was told."""
        while not any(event.id == end for event in self.told[-1000:]):
            await self.read()

    async def to_its_end(self) -> grpc.StatusCode:
        """Read all; answers the status."""
        try:
            while True:
                await self.read()
        except grpc.aio.AioRpcError as error:
            return error.code()

    def cancel(self) -> None:
        """Leave."""
        self._call.cancel()

    async def read(self) -> pb.WatchFeaturesResponse:
        """The next frame."""
        frame: pb.WatchFeaturesResponse = await self._call.read()
        assert not frame.HasField("reset")
        events = frame.events
        for kind, each, sequence in zip(events.kinds, events.features, events.sequences, strict=True):
            self.told.append(Told(sequence, kind, each.id, (each.location.latitude, each.location.longitude)))
        self.position = frame.position.token or self.position
        return frame


def expected(everything: list[Told], area: Area | None) -> list[tuple[int, int, str]]:
    """What a watch of an area is told, out of what one of everything is."""
    held: set[str] = set()
    events: list[tuple[int, int, str]] = []
    for sequence, kind, key, place in everything:
        inside = kind != pb.EVENT_KIND_LEFT and (area is None or place[0] == 0)
        if inside:
            events.append((sequence, pb.EVENT_KIND_MOVED if key in held else pb.EVENT_KIND_ENTERED, key))
            held.add(key)
        elif key in held:
            events.append((sequence, pb.EVENT_KIND_LEFT, key))
            held.discard(key)
    return events


def check(everything: list[Told], watches: list[Watch]) -> None:
    """All were told what they had to be."""
    assert all(a.sequence < b.sequence for a, b in itertools.pairwise(everything))
    for area in AREAS:
        events = expected(everything, area)
        for watch in watches:
            if watch.area is area:
                assert [event[:3] for event in watch.told] == events


def moves(steps: int, text: str = "") -> Iterator[pb.Feature]:
    """Of ten features, in and out of every area, a last one in all of them that says so."""
    for step in range(steps):
        place = pb.Point(latitude=0 if step % 3 else 500_000_000, longitude=step % 7)
        made = pb.Feature(id=f"f{step % 10}", location=place)
        made.properties.update({"step": step, "text": text})
        yield made
    yield pb.Feature(id=END, location=pb.Point())


async def load(stub: Stub, collection: str, features: Iterator[pb.Feature], batch: int = 500) -> None:
    """Import; the same feature comes again and again."""

    def requests() -> Iterator[pb.ImportFeaturesRequest]:
        for number in itertools.count(1):
            some = list(itertools.islice(features, batch))
            if not some:
                return
            yield pb.ImportFeaturesRequest(id=number, collection=collection, features=some)

    async for answer in stub.ImportFeatures(requests()):
        assert not answer.errors


def watch_all(stub: Stub, collection: str) -> list[Watch]:
    return [Watch(stub, area, collection) for area in AREAS for _ in range(OF_EACH)]


async def test_bursts_reach_equal_and_unequal_watches_whoever_is_slow(
    service: ServiceProcess, stub: Stub, collection: str
) -> None:
    async with asyncio.timeout(120), grpc.aio.insecure_channel(service.target, options=STOPPED) as stopped:
        quick = watch_all(stub, collection)
        slow = watch_all(feature_pb2_grpc.FeatureServiceStub(stopped), collection)
        await asyncio.gather(*(watch.live() for watch in (*quick, *slow)))
        reading = asyncio.gather(*(watch.up_to(END) for watch in quick))
        await load(stub, collection, moves(200))
        await load(stub, collection, moves(400, "x" * 20_000), batch=40)
        await reading
        more = asyncio.gather(*(watch.up_to("second") for watch in (*quick, *slow)))
        await load(stub, collection, iter([pb.Feature(id="second", location=pb.Point())]))
        await more
        check(quick[0].told, [*quick, *slow])
        fallen = FALLEN.search(await service.metrics())
        assert fallen is not None
        assert float(fallen[1]) > 0, "some were as slow as this test wants them"
        for watch in (*quick, *slow):
            watch.cancel()


async def test_watches_come_and_go_in_a_burst(service: ServiceProcess, stub: Stub, collection: str) -> None:
    async with asyncio.timeout(120):
        staying, going = watch_all(stub, collection), watch_all(stub, collection)
        await asyncio.gather(*(watch.live() for watch in (*staying, *going)))
        reading = asyncio.gather(*(watch.up_to(END) for watch in staying))
        loading = asyncio.create_task(load(stub, collection, moves(3000), batch=100))
        back: list[Watch] = []
        for watch in going:
            await watch.read()
            watch.cancel()
            back.append(Watch(stub, watch.area, collection, watch.position))
        await asyncio.gather(loading, *(watch.up_to(END) for watch in back))
        await reading
        check(staying[0].told, staying)
        sets = {watch.area: held(watch.told) for watch in staying}
        for before, after in zip(going, back, strict=True):
            assert held([*before.told, *after.told]) == sets[after.area]
        for watch in (*staying, *back):
            watch.cancel()


def held(told: list[Told]) -> set[str]:
    """The set after these events."""
    found: set[str] = set()
    for event in told:
        (found.discard if event.kind == pb.EVENT_KIND_LEFT else found.add)(event.id)
    return found


async def test_a_drain_ends_all_and_each_has_what_came_before_its_end(tmp_path: Path) -> None:
    async with (
        asyncio.timeout(120),
        running("feature_service", tmp_path) as process,
        grpc.aio.insecure_channel(process.target) as channel,
    ):
        stub = feature_pb2_grpc.FeatureServiceStub(channel)
        watches = watch_all(stub, "places")
        await asyncio.gather(*(watch.live() for watch in watches))
        ends = asyncio.gather(*(watch.to_its_end() for watch in watches))
        await load(stub, "places", moves(2000))
        process.signal(signal.SIGTERM)
        assert set(await ends) == {grpc.StatusCode.UNAVAILABLE}
        assert await process.wait() == 0
        everything = max((watch.told for watch in watches[:OF_EACH]), key=len)
        for watch in watches:
            events = expected(everything, watch.area)
            assert [event[:3] for event in watch.told] == events[: len(watch.told)]
