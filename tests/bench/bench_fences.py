"""Moves a second into the feature service, as the number of fences grows; both services are real processes.

Every move goes through ImportFeatures into SQLite. The floor of the rows with fences is the figure without.
`until told`: until every event of those moves has reached a listener at the notification service.
"""

import asyncio
import random
import statistics
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

from signpost.client import Circle, Feature, FeatureClient, Fence, NotificationClient

from tests.bench.harness import Row, Stopwatch
from tests.support.services import running

VEHICLES, ROUNDS = 5_000, 4
RADIUS_M = 20_000.0
FENCES = (0, 1_000, 20_000)


def places(source: random.Random) -> list[Feature]:
    """Every vehicle, somewhere else."""
    return [Feature(f"v{n}", source.uniform(-60, 60), source.uniform(-180, 180)) for n in range(VEHICLES)]


class Listener:
    """Counts the events that arrive."""

    def __init__(self, client: NotificationClient) -> None:
        self.count = 0
        self._events = client.subscribe("fence.>")
        self._task = asyncio.create_task(self._listen())

    async def _listen(self) -> None:
        async for _ in self._events:
            self.count += 1

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


async def measure(directory: Path, fences: int, repeats: int) -> tuple[float, float, int]:
    """Moves a second acknowledged, moves a second until all events are told, and the events."""
    source = random.Random(fences)
    acknowledged: list[float] = []
    told: list[float] = []
    async with (
        running("notification_service", directory / "notification") as notification,
        running("feature_service", directory / "feature", args=[f"--notification={notification.target}"]) as feature,
        FeatureClient(feature.target) as client,
        NotificationClient(notification.target) as listening,
    ):
        async with asyncio.TaskGroup() as tasks:
            for part in range(8):
                tasks.create_task(_put(client, source, range(part, fences, 8)))
        listener = Listener(listening)
        await listener.quiet()
        for _ in range(repeats):
            watch = Stopwatch()
            for _ in range(ROUNDS):
                async for _ in client.import_features(places(source)):
                    pass
            acknowledged.append(watch.rate(VEHICLES * ROUNDS))
            await listener.quiet()
            told.append(VEHICLES * ROUNDS / (watch.elapsed_s - 0.5))
        count = listener.count
        await listener.close()
    return statistics.median(acknowledged), statistics.median(told), count


async def _put(client: FeatureClient, source: random.Random, numbers: range) -> None:
    for n in numbers:
        await client.put_fence(Fence(f"f{n}", Circle((source.uniform(-60, 60), source.uniform(-180, 180)), RADIUS_M)))


async def rows(repeats: int) -> AsyncIterator[Row]:
    """Moves a second with 0, 1,000 and 20,000 fences."""
    without: float | None = None
    for fences in FENCES:
        with tempfile.TemporaryDirectory() as directory:
            acknowledged, told, count = await measure(Path(directory), fences, repeats)
        yield Row(f"moves acknowledged, {fences:,} fences", acknowledged, "moves/s", without)
        if fences:
            yield Row(f"moves until told, {fences:,} fences, {count:,} events", told, "moves/s")
        without = without or acknowledged
