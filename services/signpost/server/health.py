"""Health: the standard service, told the truth.

- A gRPC service's full name is **readiness**: SERVING while the log takes writes and the service is
  ready. A full disk, an engine that does not answer and a projection that has stopped are NOT_SERVING,
  although reads may go on for those who ask.
- The empty name is **liveness**: SERVING as long as the process answers at all, so that a process that
  waits for its disk is not killed for it. From the first signal on it is NOT_SERVING too.
"""

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2
from grpc_health.v1._async import HealthServicer

from signpost.errors import Draining
from signpost.log.base import LogState, Store
from signpost.server.service import Service

SERVICE = "grpc.health.v1.Health"
_LOOK_S = 0.1
_LOG = logging.getLogger(__name__)
_STATUS = health_pb2.HealthCheckResponse


class Health(HealthServicer):  # type: ignore[misc] # the package is not typed
    """The stock servicer; its watches end when asked to, because `server.stop` waits for them."""

    def __init__(self, services: Sequence[str]) -> None:
        super().__init__()
        self._services = tuple(services)
        self._ended = asyncio.Event()
        for name in self._services:
            self._server_status[name] = _STATUS.NOT_SERVING

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802 - gRPC's name
        watch = asyncio.create_task(super().Watch(request, context))
        ended = asyncio.create_task(self._ended.wait())
        try:
            await asyncio.wait((watch, ended), return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
        finally:
            watch.cancel()
            ended.cancel()
            await asyncio.gather(watch, ended, return_exceptions=True)
        raise Draining("the server is going away")

    def end_watches(self) -> None:
        """End every open watch with UNAVAILABLE / DRAINING."""
        self._ended.set()

    async def follow(self, service: Service, store: Store) -> None:
        """Set the readiness from what is true, for ever."""
        before: str | None = "starting"
        while True:
            reason = why_not(service, store)
            if reason != before:
                _LOG.log(
                    logging.INFO if reason is None else logging.WARNING,
                    "serving" if reason is None else "not serving",
                    extra={"fields": {"reason": reason or "ready"}},
                )
                before = reason
                for name in self._services:
                    await self.set(name, _STATUS.SERVING if reason is None else _STATUS.NOT_SERVING)
            await asyncio.sleep(_LOOK_S)


def why_not(service: Service, store: Store) -> str | None:
    """Why the service is not ready; None: it is."""
    if store.state is not LogState.WRITABLE:
        return f"log {store.state.value}"
    try:
        return service.unready()
    except Exception:
        _LOG.exception("the service cannot say whether it is ready")
        return "unknown"
