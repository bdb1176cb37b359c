"""The notification service as the bootstrap sees it: start, truth about readiness, drain, end."""

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any, ClassVar

import grpc
from signpost.log.base import LogSettings, LogState, Record, Retention, Store
from signpost.server import Service

from notification_service.codec import published_of
from notification_service.hub import Hub, HubSettings
from notification_service.registry import Registry
from notification_service.servicer import GREETER, SEED, V1, Servicer
from notification_service.sessions import SWEEP_INTERVAL_S, Sessions
from notification_service.settings import NotificationSettings
from protos.notification.v1.notification_pb2 import Notification

NOTIFICATIONS, STATE = "notifications", "state"
FOLLOWER_TAIL_BYTES = 8 * 1024 * 1024
"""The log's own tail: the hub follows close behind and keeps the newest records itself, encoded."""

STATE_TAIL_BYTES = 128 * 1024


class NotificationService(Service):
    """Its tasks: the hub's follower, the session table's, presence's, the heartbeat, the hourly sweep.

    One that fails (a record that this release does not know) makes the service not ready, for good.
    """

    name: ClassVar[str] = "notification"
    grpc_services: ClassVar[Sequence[str]] = (V1, SEED, GREETER)

    def __init__(self, settings: NotificationSettings) -> None:
        self._settings = settings
        self._tasks: list[asyncio.Task[None]] = []
        self._registry: Registry | None = None
        self._store: Store | None = None

    def log_settings(self) -> Sequence[LogSettings]:
        settings = self._settings
        retention = Retention(max_age_s=settings.retention_s, max_bytes=settings.retention_bytes or None)
        return (
            LogSettings(NOTIFICATIONS, retention, settings.dedupe_window_s, FOLLOWER_TAIL_BYTES),
            LogSettings(STATE, Retention(max_age_s=3600.0, keep_last=True), tail_bytes=STATE_TAIL_BYTES),
        )

    async def start(self, store: Store) -> None:
        settings = self._settings
        hub = Hub(
            store[NOTIFICATIONS],
            HubSettings(
                tail_bytes=settings.tail_bytes,
                buffer_bytes=settings.buffer_bytes,
                pause_factor=settings.round_pause,
            ),
            on_delivery=self._trace if self.tracing.enabled else None,
        )
        await hub.start()
        sessions = Sessions(store[STATE])
        self._store = store
        self._registry = registry = Registry(hub, store[STATE], sessions, settings)
        presence = registry.presence
        for work in (hub.run(), sessions.run(), registry.keep_time(), _sweep(sessions)):
            self._spawn(work)
        for work in (presence.run(), presence.write(), presence.leave(), presence.beat()):
            self._spawn(work)
        await sessions.caught_up()
        await presence.caught_up()

    def handlers(self) -> "Iterable[grpc.GenericRpcHandler[Any, Any]]":
        assert self._registry is not None, "started first"  # noqa: S101 - the order that Service promises
        return Servicer(self._registry).handlers()

    def unready(self) -> str | None:
        failed = next((task for task in self._tasks if task.done()), None)
        if failed is not None:
            return f"a task has ended: {failed.exception() if not failed.cancelled() else 'cancelled'}"
        if self._store is not None and self._store.state is not LogState.WRITABLE:
            return f"the log is {self._store.state.value}"
        return None

    async def drain(self, deadline_s: float) -> None:
        if self._registry is not None:
            await self._registry.drain(deadline_s)

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._registry is not None:
            await self._registry.close()

    def _trace(self, records: Sequence[Record]) -> None:
        published = [Notification.FromString(published_of(record.payload)) for record in records]
        self.tracing.deliver("deliver", [notification.traceparent for notification in published])

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.append(asyncio.get_running_loop().create_task(work))


async def _sweep(sessions: Sessions) -> None:
    while True:
        await asyncio.sleep(SWEEP_INTERVAL_S)
        await sessions.sweep()
