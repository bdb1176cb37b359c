"""Subscribe: a stream that only listens."""

import asyncio
from typing import Any

import grpc
from signpost.errors import InvalidArgument, SignpostError, Violation

from notification_service import metrics
from notification_service.codec import field
from notification_service.outbox import Outbox
from notification_service.registry import Registry
from notification_service.starting import find_place, snapshot_frames
from notification_service.subscription import SUBSCRIBE_WIRE, gap_frame
from notification_service.topics import check_filter
from protos.notification.v1 import notification_pb2 as pb


class Listener:
    """One Subscribe stream: a subscription without a name, until the client or the server goes."""

    def __init__(self, registry: Registry, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
        self._registry = registry
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._outbox = Outbox(context, self)

    async def run(self, request: pb.SubscribeRequest) -> None:
        """Serve it; never returns by itself. Raises what ends it."""
        pattern = check_filter(request.filter)
        if request.start.WhichOneof("start") == "cursor":
            rule = "only Connect has durable cursors"
            raise InvalidArgument(f"start.cursor: {rule}", violations=[Violation("start.cursor", rule)])
        registry, hub = self._registry, self._registry.hub
        place = await find_place(hub, request.start, None)
        subscription = registry.presence_events.subscription(hub, self._outbox, SUBSCRIBE_WIRE, "", pattern)
        begin = place
        if place.snapshot:
            begin, frames = await snapshot_frames(hub, SUBSCRIBE_WIRE, "", pattern, place)
            subscription.prepend(frames)
        started = pb.Subscribed(position=pb.Position(token=begin.position))
        self._outbox.put(field(1, started.SerializeToString()))
        if place.lost is not None:
            metrics.GAPS.inc()
            self._outbox.put(gap_frame(SUBSCRIBE_WIRE, "", *place.lost))
        registry.follow(self)
        registry.count(pattern)
        try:
            subscription.begin(place.sequence, place.position)
            await self._over
        finally:
            registry.uncount(pattern)
            registry.unfollow(self)
            subscription.close()
            self._outbox.close()

    def drain(self, deadline_s: float) -> None:
        """Ask the client to move."""
        self._outbox.put(field(4, pb.Draining(deadline_ms=round(deadline_s * 1000)).SerializeToString()))

    def end(self, error: SignpostError) -> None:
        """End the stream."""
        if not self._over.done():
            self._over.set_exception(error)
