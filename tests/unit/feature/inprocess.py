"""The feature service's parts in one process, over a real log, without gRPC."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from feature_service.expiry import Expiry
from feature_service.importing import Importer
from feature_service.lists import Lister
from feature_service.projection import Projection
from feature_service.validation import Problems, encoded_feature
from feature_service.watches import Watches
from feature_service.watching import Watcher
from feature_service.writes import Writer
from signpost.log import Log, LogSettings, Retention
from signpost.log.memory import MemoryStore

from protos.feature.v1 import feature_pb2 as pb
from protos.storage.v1.storage_pb2 import ImportBatch

NEVER = LogSettings("features", Retention(keep_last=True))


class Parts:
    """One replica."""

    def __init__(self, log: Log, clock: Callable[[], int]) -> None:
        self.log = log
        self._executor = ThreadPoolExecutor(1)
        self._long = ThreadPoolExecutor(1)
        self.projection = Projection(log, self._executor)
        self.watches = Watches(self.projection)
        self.writer = Writer(log, self.projection)
        self.expiry = Expiry(self.projection, self.writer, clock)
        self.lister = Lister(self.projection, self._executor, self._long)
        self.watcher = Watcher(self.projection, self.watches, self._executor)
        self.importer = Importer(log, self.projection)
        self._run = asyncio.create_task(self.projection.run())

    async def put(self, feature: pb.Feature, collection: str = "places") -> int:
        """Put and wait until it is visible."""
        problems = Problems()
        encoded = encoded_feature(problems, "", feature)
        problems.check()
        stored = await self.writer.put(collection, feature.id, encoded)
        await self.projection.wait_for(stored.sequence)
        return stored.sequence

    async def list(self, request: pb.ListFeaturesRequest) -> list[pb.ListFeaturesResponse]:
        """Every batch."""
        request.min_position.sequence = self.log.head
        batches: list[bytes] = []
        async for batch in self.lister.list(request):
            batches.append(batch)
            await asyncio.sleep(0)  # as a write to gRPC lets others run
        return await asyncio.to_thread(lambda: [pb.ListFeaturesResponse.FromString(batch) for batch in batches])

    async def close(self) -> None:
        """End the tasks."""
        await self.importer.close()
        self._run.cancel()
        await asyncio.gather(self._run, return_exceptions=True)
        self._executor.shutdown()
        self._long.shutdown()


@asynccontextmanager
async def parts(
    name: str = "", settings: LogSettings = NEVER, clock: Callable[[], int] = lambda: 0
) -> AsyncIterator[Parts]:
    """A replica over a log in memory; one of the same name goes on where another one ended."""
    async with MemoryStore([settings], name) as store:
        replica = Parts(store["features"], clock)
        try:
            await replica.projection.until_ready()
            yield replica
        finally:
            await replica.close()


def feature(key: str, latitude: int, longitude: int, **properties: float | str | bool | None) -> pb.Feature:
    """A feature at E7 coordinates."""
    made = pb.Feature(id=key, name=key.upper())
    made.location.latitude, made.location.longitude = latitude, longitude
    if properties:
        made.properties.update(properties)
    return made


def batch(number: int, features: Sequence[pb.Feature]) -> ImportBatch:
    """A request of ImportFeatures, as the service reads it."""
    return ImportBatch.FromString(pb.ImportFeaturesRequest(id=number, features=features).SerializeToString())


def features_of(batches: Iterable[pb.ListFeaturesResponse]) -> dict[str, pb.Feature]:
    """What a list answered, by id; nothing may come twice."""
    found: dict[str, pb.Feature] = {}
    for batch in batches:
        for each in batch.features:
            assert each.id not in found
            found[each.id] = each
    return found
