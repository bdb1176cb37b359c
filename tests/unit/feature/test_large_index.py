"""A large index under moves: the event loop is never held for long, whatever is asked meanwhile."""

import asyncio
import gc
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import Parts, feature, parts

FEATURES = 150_000
LONGEST_S = 0.020

pytestmark = pytest.mark.long


class Longest:
    """The longest that one callback kept the event loop's thread busy, in its CPU time: what others on the
    machine do does not count."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds, self.where = 0.0, ""
        run: Callable[[Any], None] = asyncio.Handle._run

        def timed(handle: Any) -> None:
            start = time.thread_time()
            run(handle)
            seconds = time.thread_time() - start
            if seconds > self.seconds:
                self.seconds, self.where = seconds, repr(handle)

        monkeypatch.setattr(asyncio.Handle, "_run", timed)


def somewhere(n: int, source: random.Random) -> pb.Feature:
    return feature(
        f"f{n}", source.randint(-900_000_000, 900_000_000), source.randint(-1_800_000_000, 1_800_000_000), size=n % 100
    )


async def import_all(replica: Parts, features: list[pb.Feature]) -> None:
    async def requests() -> Any:
        for number, begin in enumerate(range(0, len(features), 1000), 1):
            yield pb.ImportFeaturesRequest(id=number, features=features[begin : begin + 1000])

    async for answer in replica.importer.run(requests()):
        assert not answer.errors
    await replica.projection.wait_for(replica.log.head)


async def ask_everything(replica: Parts) -> None:
    """Lists of all there is: by distance, by id, in a polygon, by filter, masked."""
    everywhere = pb.Area(circle=pb.Circle(center=pb.Point(), radius_m=3e7))
    ring = pb.Ring(latitudes=[-80, -80, -80, 80, 80, 80], longitudes=[-170, 0, 170, 170, 0, -170])
    for part in (ring.latitudes, ring.longitudes):
        part[:] = [degrees * 10_000_000 for degrees in part]
    small = pb.Filter(property="size", operator=pb.FILTER_OPERATOR_LESS)
    small.value.number_value = 50
    for request, at_least in (
        (pb.ListFeaturesRequest(area=everywhere), FEATURES),
        (
            pb.ListFeaturesRequest(
                area=pb.Area(box=pb.Box(south=-900_000_000, west=-1_800_000_000, north=900_000_000, east=1_800_000_000))
            ),
            FEATURES,
        ),
        (pb.ListFeaturesRequest(area=pb.Area(polygon=pb.Polygon(exterior=ring)), origin=pb.Point()), FEATURES // 2),
        (pb.ListFeaturesRequest(area=everywhere, filters=[small]), FEATURES // 2),
        (pb.ListFeaturesRequest(origin=pb.Point(), limit=5000, read_mask=["id", "properties.size"]), 5000),
    ):
        listed = sum([len(batch.features) for batch in await replica.list(request)])
        assert listed >= at_least


@pytest.fixture(autouse=True)
def _no_garbage_collection() -> Iterator[None]:
    """The test's own hundred thousands of messages are in this process, and looking through them takes long."""
    gc.disable()
    yield
    gc.enable()


async def test_the_event_loop_is_never_held_for_20_ms(monkeypatch: pytest.MonkeyPatch) -> None:
    source = random.Random(5)
    features = [somewhere(n, source) for n in range(FEATURES)]
    moves = [somewhere(source.randrange(FEATURES), source) for _ in range(20_000)]
    async with parts() as replica:
        longest = Longest(monkeypatch)
        await import_all(replica, features)
        assert longest.seconds < LONGEST_S, longest.where
        async with asyncio.TaskGroup() as work:
            work.create_task(import_all(replica, moves))
            work.create_task(ask_everything(replica))
        assert longest.seconds < LONGEST_S, longest.where
        assert replica.projection.sizes() == {"places": FEATURES}
