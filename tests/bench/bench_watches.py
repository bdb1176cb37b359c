"""Many watches over one busy place: what a burst of changes does to other calls of the same service.

The service, the watchers and the one who asks are three processes. Asking is a GetFeature each 5 ms, begun at its time
whether the ones before are answered or not; its floor is the same without watches. Every change concerns every watch.
`loop late`: the latest timer in the service, so the longest turn of its loop. `all told`: from the burst's begin until
every watch has its last change.
"""

import asyncio
import contextlib
import re
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc

from protos.feature.v1 import feature_pb2 as pb
from tests.bench.harness import Row, Stopwatch
from tests.bench.notification_load import cpu_s
from tests.bench.watch_load import CENTER, END
from tests.support.services import ServiceProcess

CHANGES, BATCH = 2_000, 1_000
SINGLES, IN_FLIGHT = 500, 20
CASES = ((300, "equal"), (1_000, "equal"), (300, "unequal"))
_EVERY_S = 0.005
_CALL = "/feature.v1.FeatureService/"
_LATE = re.compile(r"^bench_loop_late_seconds (\S+)$", re.MULTILINE)


def moved(number: int, step: int, key: str = "") -> pb.Feature:
    """One of the features, somewhere else in the place that is watched."""
    place = pb.Point(latitude=CENTER.latitude + number + step, longitude=CENTER.longitude + number)
    return pb.Feature(id=key or f"v{number}", name=f"Van {number}", location=place)


class Service:
    """A feature service and calls to it, raw but for the puts."""

    def __init__(self, process: ServiceProcess, channel: Any) -> None:
        self.process = process
        self._get: Callable[..., Any] = channel.unary_unary(_CALL + "GetFeature")
        self._import: Callable[..., Any] = channel.stream_stream(_CALL + "ImportFeatures")
        self._put: Callable[..., Any] = channel.unary_unary(_CALL + "PutFeature")
        self._steps = iter(range(1, 1 << 30))

    async def load(self) -> float:
        """Move all features in two batches, then the one that marks the end; answers seconds until answered."""
        step = next(self._steps)
        features = [moved(n, step) for n in range(CHANGES - 1)] + [moved(CHANGES, step, END)]
        requests = [
            pb.ImportFeaturesRequest(id=begin + 1, features=features[begin : begin + BATCH]).SerializeToString()
            for begin in range(0, CHANGES, BATCH)
        ]

        def each() -> Iterator[bytes]:
            yield from requests

        watch = Stopwatch()
        async for _ in self._import(each()):
            pass
        return watch.elapsed_s

    async def singles(self) -> float:
        """Move features one by one, some in flight, then the one that marks the end; answers seconds."""
        step, numbers = next(self._steps), iter(range(SINGLES - 1))
        watch = Stopwatch()

        async def put() -> None:
            for n in numbers:
                await self._put(pb.PutFeatureRequest(feature=moved(n, step)).SerializeToString())

        await asyncio.gather(*(put() for _ in range(IN_FLIGHT)))
        await self._put(pb.PutFeatureRequest(feature=moved(CHANGES, step, END)).SerializeToString())
        return watch.elapsed_s

    async def late_s(self) -> float:
        """The latest timer in the service since this was asked before."""
        found = _LATE.search(await self.process.metrics())
        assert found is not None
        return float(found[1])

    @contextlib.asynccontextmanager
    async def asking(self) -> AsyncIterator[list[float]]:
        """Ask for a feature again and again; the list has how long each answer took, in ms, at the end."""
        waits: list[float] = []
        request = pb.GetFeatureRequest(id="v0").SerializeToString()

        async def ask() -> None:
            watch = Stopwatch()
            await self._get(request)
            waits.append(watch.elapsed_s * 1e3)

        async def again() -> None:
            async with asyncio.TaskGroup() as asked:
                due = time.perf_counter()
                while not stop.is_set():
                    asked.create_task(ask())
                    due += _EVERY_S
                    await asyncio.sleep(max(0.0, due - time.perf_counter()))

        stop = asyncio.Event()
        task = asyncio.create_task(again())
        await asyncio.sleep(0.05)
        try:
            yield waits
        finally:
            await asyncio.sleep(0.05)
            stop.set()
            await task


class Watchers:
    """The other process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def line(self) -> list[str]:
        """What it says next."""
        assert self._process.stdout is not None
        return (await self._process.stdout.readline()).decode().split()


@contextlib.asynccontextmanager
async def watchers(service: Service, count: int, kind: str) -> AsyncIterator[Watchers]:
    """So many of them, live."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "tests.bench.watch_load", service.process.target, str(count), kind),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        made = Watchers(process)
        assert await made.line() == ["live"]
        yield made
    finally:
        process.kill()
        await process.wait()


class Burst(NamedTuple):
    """What was measured of one: times in ms but for `cpu_s`."""

    p50: float
    p99: float
    longest: float
    late: float
    answered: float
    told: float
    messages: float
    cpu_s: float


async def burst(service: Service, change: Callable[[], Any], watching: Watchers | None) -> Burst:
    """Measure one."""
    await service.late_s()
    used, began = cpu_s(service.process.pid), time.perf_counter()
    async with service.asking() as waits:
        answered = await change()
        ended, messages = (time.perf_counter(), 0.0) if watching is None else map(float, await watching.line())
    late = await service.late_s()
    quantiles = statistics.quantiles(waits, n=100)
    return Burst(
        quantiles[49],
        quantiles[98],
        max(waits),
        late * 1e3,
        answered * 1e3,
        (ended - began) * 1e3,
        messages,
        cpu_s(service.process.pid) - used,
    )


async def medians(service: Service, change: Callable[[], Any], watching: Watchers | None, repeats: int) -> Burst:
    """The median of each figure over some bursts, after one that does not count."""
    await burst(service, change, watching)
    bursts = [await burst(service, change, watching) for _ in range(repeats)]
    return Burst(*(statistics.median(values) for values in zip(*bursts, strict=True)))


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[Service]:
    """A service with the features in their place."""
    with tempfile.TemporaryDirectory() as directory:
        process = ServiceProcess("tests.bench.lagging", Path(directory), health="feature.v1.FeatureService")
        try:
            await process.start()
            async with grpc.aio.insecure_channel(process.target) as channel:
                service = Service(process, channel)
                await service.load()
                yield service
        finally:
            process.kill()


async def rows(repeats: int) -> AsyncIterator[Row]:
    """Bursts of an import and of single puts, with equal and unequal watches."""
    async with serving() as service:
        for name, change in (
            (f"{CHANGES:,} changes", service.load),
            (f"{SINGLES} puts", service.singles),
        ):
            alone = await medians(service, change, None, repeats)
            for count, kind in CASES:
                async with watchers(service, count, kind) as watching:
                    found = await medians(service, change, watching, repeats)
                before = f"{count:,} {kind} watches, {name}: "
                yield Row(before + "GetFeature, p50", found.p50, "ms", alone.p50)
                yield Row(before + "GetFeature, p99", found.p99, "ms", alone.p99)
                yield Row(before + "GetFeature, longest", found.longest, "ms", alone.longest)
                yield Row(before + "loop late", found.late, "ms", alone.late)
                yield Row(before + "answered", found.answered, "ms", alone.answered)
                yield Row(before + "all told", found.told, "ms")
                yield Row(before + "messages a watch", found.messages / count, "messages")
                yield Row(before + "processor time", found.cpu_s * 1e3, "ms", alone.cpu_s * 1e3)
