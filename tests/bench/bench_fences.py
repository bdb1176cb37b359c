"""Moves a second into the feature service, as the number of fences grows; both services are real processes.

Every move goes through ImportFeatures into SQLite. The floor of the rows with fences is the figure without.
`until told`: until every event of those moves has reached a listener at the notification service.
"""

import asyncio
import contextlib
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from signpost.client import Circle, Feature, FeatureClient, Fence, NotificationClient

from tests.bench.harness import Row, Stopwatch
from tests.support.services import running

VEHICLES, ROUNDS = 5_000, 10
RADIUS_M = 20_000.0
FENCES = (0, 1_000, 20_000)


def places(source: random.Random) -> list[Feature]:
    """Every vehicle, somewhere else."""
    return [Feature(f"v{n}", source.uniform(-60, 60), source.uniform(-180, 180)) for n in range(VEHICLES)]


class Listener:
    """Counts the events that arrive."""

    def __init__(self, client: NotificationClient) -> None:
        self.count = 0
        self.last_s = 0.0
        """When the last one arrived, by the performance counter."""
        self._events = client.subscribe("fence.>")
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for batch in self._events.batches():
            self.count += len(batch)
            self.last_s = time.perf_counter()

    async def quiet(self) -> None:
        """Return once nothing has arrived for half a second."""
        seen = -1
        while seen != self.count:
            seen = self.count
            await asyncio.sleep(0.5)

    async def close(self) -> None:
        """Stop listening."""
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._events.aclose()


class Site:
    """Both services with so many fences, and what was measured of them."""

    def __init__(self, fences: int, client: FeatureClient, listener: Listener) -> None:
        self.fences = fences
        self._client, self._listener = client, listener
        self._source = random.Random(fences)
        self._acknowledged: list[float] = []
        self._told: list[float] = []
        self._put_rate = 0.0

    async def prepare(self) -> None:
        """Put the fences, and every vehicle once."""
        watch = Stopwatch()
        async with asyncio.TaskGroup() as tasks:
            for part in range(8):
                tasks.create_task(self._put(range(part, self.fences, 8)))
        self._put_rate = watch.rate(self.fences)
        await self._import(places(self._source))
        await self._listener.quiet()

    async def measure(self) -> None:
        """Move every vehicle some times."""
        moves = [places(self._source) for _ in range(ROUNDS)]
        start = time.perf_counter()
        for moved in moves:
            await self._import(moved)
        self._acknowledged.append(VEHICLES * ROUNDS / (time.perf_counter() - start))
        await self._listener.quiet()
        self._told.append(VEHICLES * ROUNDS / (self._listener.last_s - start))

    async def _import(self, moved: list[Feature]) -> None:
        async for _ in self._client.import_features(moved):
            pass

    async def _put(self, numbers: range) -> None:
        for n in numbers:
            center = (self._source.uniform(-60, 60), self._source.uniform(-180, 180))
            await self._client.put_fence(Fence(f"f{n}", Circle(center, RADIUS_M)))

    def rows(self, without: float | None) -> list[Row]:
        """The medians. `without`: that of the site without fences."""
        acknowledged = Row(f"moves acknowledged, {self.fences:,} fences", self.acknowledged, "moves/s", without)
        if not self.fences:
            return [acknowledged]
        name = f"moves until told, {self.fences:,} fences, {self._listener.count:,} events"
        told = Row(name, statistics.median(self._told), "moves/s")
        return [Row(f"fences put, 8 in flight, {self.fences:,}", self._put_rate, "fences/s"), acknowledged, told]

    @property
    def acknowledged(self) -> float:
        """Moves a second, until all are acknowledged."""
        return statistics.median(self._acknowledged)


@contextlib.asynccontextmanager
async def site(directory: Path, fences: int) -> AsyncIterator[Site]:
    """Both services, with so many fences."""
    async with (
        running("notification_service", directory / "notification") as notification,
        running("feature_service", directory / "feature", args=[f"--notification={notification.target}"]) as feature,
        FeatureClient(feature.target) as client,
        NotificationClient(notification.target) as listening,
    ):
        listener = Listener(listening)
        made = Site(fences, client, listener)
        await made.prepare()
        try:
            yield made
        finally:
            await listener.close()


async def rows(repeats: int) -> AsyncIterator[Row]:
    """Moves a second with 0, 1,000 and 20,000 fences, in turns."""
    async with contextlib.AsyncExitStack() as stack:
        sites = []
        for fences in FENCES:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            sites.append(await stack.enter_async_context(site(directory, fences)))
        for _ in range(repeats):
            for each in sites:
                await each.measure()
        for each in sites:
            for row in each.rows(sites[0].acknowledged if each.fences else None):
                yield row
