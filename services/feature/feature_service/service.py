"""The feature service as a whole: made of its parts, started, drained, closed."""

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import grpc
from signpost.log import LogSettings, Retention, Store
from signpost.server import Service

from feature_service.config import FeatureSettings
from feature_service.expiry import Expiry
from feature_service.fences.book import FenceBook
from feature_service.fences.leadership import relay_where_leading
from feature_service.fences.servicer import FenceServicer
from feature_service.importing import Importer
from feature_service.lists import Lister
from feature_service.nearest_stream import NearestAnswerer
from feature_service.projection import Projection
from feature_service.servicer import FEATURE_SERVICE, SEED_SERVICE, FeatureServicer, SeedServicer
from feature_service.watches import Watches
from feature_service.watching import Watcher
from feature_service.writes import Writer


class FeatureService(Service):
    """Serves feature.v1.FeatureService and the seed's stream_service.StreamService."""

    name: ClassVar[str] = "feature"
    grpc_services: ClassVar[Sequence[str]] = (FEATURE_SERVICE, SEED_SERVICE)

    def __init__(self, settings: FeatureSettings) -> None:
        self._settings = settings
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="search")
        # Lists have threads of their own: none waits for the whole of anything, a short one for no long one.
        self._lists = ThreadPoolExecutor(2, thread_name_prefix="list")
        self._long_lists = ThreadPoolExecutor(1, thread_name_prefix="long-list")
        self._tasks: list[asyncio.Task[None]] = []
        self._projection: Projection
        self._watches: Watches
        self._writer: Writer
        self._importer: Importer
        self._fences: FenceServicer

    def log_settings(self) -> Sequence[LogSettings]:
        retention = Retention(max_age_s=self._settings.history_s, keep_last=True)
        return (
            LogSettings("features", retention, self._settings.dedupe_window_s),
            LogSettings("state", Retention(max_age_s=3600.0, keep_last=True)),
        )

    async def start(self, store: Store) -> None:
        log = store["features"]
        projection = self._projection = Projection(log, self._executor)
        self._watches = Watches(projection)
        self._writer = Writer(log, projection)
        self._importer = Importer(log, projection)
        expiry = Expiry(projection, self._writer)
        self._fences = FenceServicer(FenceBook(log, store["state"]))
        relay = relay_where_leading(projection, store["state"], self._executor, target=self._settings.notification)
        self._tasks += [asyncio.create_task(work) for work in (projection.run(), expiry.run(), relay)]

    def handlers(self) -> "Iterable[grpc.GenericRpcHandler[Any, Any]]":
        projection, executor = self._projection, self._executor
        feature = FeatureServicer(
            projection=projection,
            writer=self._writer,
            lister=Lister(projection, self._lists, self._long_lists),
            watcher=Watcher(projection, self._watches, executor),
            answerer=NearestAnswerer(projection, executor, self._settings.max_message_bytes),
            importer=self._importer,
            fences=self._fences,
        )
        return feature.handler(), SeedServicer(projection, self._lists, self._settings.seed_limit).handler()

    def unready(self) -> str | None:
        if self._projection.fault is not None:
            return f"the features log cannot be read on: {self._projection.fault}"
        return None if self._projection.ready else "replaying the features log"

    async def drain(self, deadline_s: float) -> None:
        """Watches are told to move; lists, imports and unary calls end by themselves."""
        self._watches.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                while len(self._watches):  # noqa: ASYNC110 - the streams end one by one, at their readers' pace
                    await asyncio.sleep(0.02)

    async def close(self) -> None:
        if hasattr(self, "_importer"):
            await self._importer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for executor in (self._executor, self._lists, self._long_lists):
            executor.shutdown(wait=False, cancel_futures=True)
