"""How cost grows: 10,000, 100,000 and 1,000,000 features in one service, and a plot of it in docs/.

Features are scattered evenly over the sphere, with a name and two properties. Each size has a process
of its own: loaded, killed, started again, asked.
"""

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import grpc

from protos.feature.v1 import feature_pb2 as pb
from tests.bench.bench_feature import Service, serving
from tests.bench.harness import Row, Stopwatch
from tests.bench.plot import Series, plot
from tests.unit.feature.test_large_index import hold

SIZES = (10_000, 100_000, 1_000_000)
HELD = 150_000
MOVES_A_SECOND = 5_000
PLOT = Path(__file__).parents[2] / "docs" / "feature-size.svg"


def scattered(count: int, source: random.Random) -> Iterator[pb.Feature]:
    """So many features, somewhere."""
    for n in range(count):
        yield moved(n, source)


def moved(n: int, source: random.Random) -> pb.Feature:
    """A feature, somewhere."""
    made = pb.Feature(id=f"feature-{n}", name=f"Feature {n}")
    made.location.latitude = source.randint(-900_000_000, 900_000_000)
    made.location.longitude = source.randint(-1_800_000_000, 1_800_000_000)
    made.properties.update({"kind": "place", "size": n % 100})
    return made


def origin(source: random.Random) -> pb.Point:
    """A point, somewhere."""
    return pb.Point(latitude=source.randint(-800_000_000, 800_000_000), longitude=source.randint(-1_800_000_000, 0))


async def question_us(service: Service, source: random.Random, limit: int, rounds: int = 200) -> list[float]:
    """How long lists of the nearest take, one after the other."""
    took = []
    for _ in range(rounds):
        request = pb.ListFeaturesRequest(origin=origin(source), limit=limit)
        start = time.perf_counter()
        async for _ in service.list(request):
            pass
        took.append((time.perf_counter() - start) * 1e6)
    return took


async def area_us(service: Service, source: random.Random, rounds: int = 100) -> list[float]:
    """The same for a polygon of about 10,000 square kilometres."""
    took = []
    for _ in range(rounds):
        at, reach = origin(source), 5_000_000
        ring = pb.Ring(
            latitudes=[at.latitude - reach, at.latitude, at.latitude + reach],
            longitudes=[at.longitude, at.longitude + 2 * reach, at.longitude],
        )
        request = pb.ListFeaturesRequest(area=pb.Area(polygon=pb.Polygon(exterior=ring)), limit=1000)
        start = time.perf_counter()
        async for _ in service.list(request):
            pass
        took.append((time.perf_counter() - start) * 1e6)
    return took


async def move_on(service: Service, count: int, seconds: float, source: random.Random) -> float:
    """Move features at a steady rate, in batches of 250; answers the rate that was reached."""

    async def requests() -> AsyncIterator[pb.ImportFeaturesRequest]:
        began, number = time.perf_counter(), 0
        while (due := number * 250 / MOVES_A_SECOND) < seconds:
            await asyncio.sleep(max(0.0, began + due - time.perf_counter()))
            number += 1
            batch = [moved(source.randrange(count), source) for _ in range(250)]
            yield pb.ImportFeaturesRequest(id=number, features=batch)

    watch, done = Stopwatch(), 0
    async for answer in service.imports(requests()):
        done += answer.written
    return watch.rate(done)


async def rows(repeats: int) -> AsyncIterator[Row]:
    """Rows for each size, then the plot."""
    figures: dict[str, list[float]] = {}

    def row(count: int, name: str, value: float, unit: str) -> Row:
        figures.setdefault(f"{name}, {unit}", []).append(value)
        return Row(f"{count:,} features: {name}", value, unit)

    for count in SIZES:
        source = random.Random(count)
        async with serving() as service:
            yield row(count, "import", await service.load(scattered(count, source)), "features/s")
            service.process.kill()
            watch = Stopwatch()
            await service.process.start(120)
            yield row(count, "start-up", watch.elapsed_s, "s")
            async with grpc.aio.insecure_channel(service.process.target) as channel:
                again = Service(service.process, channel)
                yield row(count, "memory", again.process_mib(), "MiB")
                for limit in (10, 1000):
                    took = await question_us(again, source, limit)
                    yield row(count, f"{limit:,} nearest, p50", statistics.median(took), "µs")
                yield row(count, "a polygon, p50", statistics.median(await area_us(again, source)), "µs")
                moving = asyncio.create_task(move_on(again, count, 5.0, source))
                busy: list[float] = []
                while not moving.done():
                    busy += await question_us(again, source, 10, rounds=20)
                yield row(count, "moves while it answers", await moving, "moves/s")
                yield row(count, "10 nearest meanwhile, p50", statistics.median(busy), "µs")
                yield row(count, "10 nearest meanwhile, p99", statistics.quantiles(busy, n=100)[98], "µs")
                yield row(count, "memory after the moves", again.process_mib(), "MiB")
    # In a loop of asyncio's own: uvloop's callbacks cannot be timed from outside.
    held = await asyncio.to_thread(lambda: asyncio.run(hold(HELD)))
    yield Row(f"{HELD:,} features: longest that the event loop was held", held.seconds * 1e3, "ms")
    chosen = [name for name in figures if not name.startswith(("import", "moves"))]
    PLOT.write_text(plot("How cost grows with the features", SIZES, [Series(n, figures[n]) for n in chosen]))
