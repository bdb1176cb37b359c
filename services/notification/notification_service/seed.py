"""The seed contracts, byte for byte, on the same hub: `pb.NotificationService/Connect` and `example.Greeter/Chat`."""

import asyncio
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any

import grpc
from signpost.errors import SignpostError
from signpost.log.base import Appended
from signpost.server.context import EOF

from notification_service import metrics
from notification_service.outbox import Outbox
from notification_service.publishing import system_entry
from notification_service.registry import Registry
from notification_service.subscription import SUBSCRIBE_WIRE, Subscription
from protos.example import greeter_pb2
from protos.notification.v1 import notification_pb2 as v1
from protos.pb import notification_pb2 as pb

TOPIC = "_seed.connect"
BROADCAST = "broadcast"
ANSWER = pb.ServerResponse(notification="New Notification").SerializeToString()
MAX_IN_FLIGHT = 64


@lru_cache(8)
def _pushes(frame: bytes) -> Sequence[bytes]:
    """The seed's messages for a delivery, decoded once for all streams of the seed that get the same one."""
    delivery = v1.SubscribeResponse.FromString(frame).delivery
    made = []
    for notification in delivery.notifications:
        try:
            text = notification.payload.decode()
        except UnicodeDecodeError:
            metrics.SEED_SKIPPED.inc()
            continue
        made.append(pb.ServerResponse(notification=text).SerializeToString())
    return made


class SeedConnection:
    """One stream of the seed's Connect."""

    def __init__(self, registry: Registry, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self._registry = registry
        self._context = context
        self._task = asyncio.current_task()
        self._failure: SignpostError | None = None
        self._outbox = Outbox(self, self)

    async def run(self) -> None:
        """Serve it to its end."""
        registry, hub = self._registry, self._registry.hub
        subscription = Subscription(hub, self._outbox, SUBSCRIBE_WIRE, "", BROADCAST)
        registry.follow(self)
        try:
            subscription.begin(hub.through, hub.position)
            await self._read()
            subscription.close()
            await self._outbox.flushed()
        except asyncio.CancelledError:
            if self._failure is None or self._task is None:
                raise
            self._task.uncancel()
        finally:
            registry.unfollow(self)
            subscription.close()
            self._outbox.close()
        if self._failure is not None:
            raise self._failure

    def drain(self, deadline_s: float) -> None:
        """The seed has no word for it: the stream goes on until it is ended."""

    def end(self, error: SignpostError) -> None:
        """End the stream."""
        if self._failure is None and self._task is not None:
            self._failure = error
            self._task.cancel()

    async def _read(self) -> None:
        log = self._registry.hub.log
        while (request := await self._context.read()) is not EOF:
            await self._outbox.answered(MAX_IN_FLIGHT)
            future = asyncio.ensure_future(log.append_many([system_entry(TOPIC, request.message.encode())]))
            self._outbox.answer(future, partial(self._answer, future))

    def _answer(self, future: "asyncio.Future[list[Appended | SignpostError]]") -> bytes:
        (outcome,) = future.result()
        if isinstance(outcome, SignpostError):
            self.end(outcome)
            raise outcome  # nothing more is sent: what is not stored has no answer
        return ANSWER

    async def write(self, frame: bytes) -> None:
        """Send an answer, or what a delivery holds, one message each."""
        if frame is ANSWER:
            await self._context.write(frame)
            return
        for message in _pushes(frame):
            await self._context.write(message)


async def chat(context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    """Answer each message at once; the client's half-close ends the call."""
    while (request := await context.read()) is not EOF:
        await context.write(greeter_pb2.MessageResponse(reply=f"Received: {request.content}").SerializeToString())
