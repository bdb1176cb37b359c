"""Who relays: the replica that holds the lease `fences`, for as long as it holds it."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from uuid import uuid4

from signpost.client import Backoff, ClientSettings, NotificationClient
from signpost.log.base import Log
from signpost.log.lease import Held, Lease

from feature_service.fences import metrics
from feature_service.fences.book import is_of
from feature_service.fences.model import Event
from feature_service.fences.relay import Publisher, Relay
from feature_service.projection import Projection
from protos.feature.v1.feature_pb2 import Feature, FenceNotification

_LOG = logging.getLogger(__name__)
LEASE_S = 5.0
"""How long the others wait for a relay that went silent; what a crash delays the events where there are others."""
RETRY_S = 1.0
RECONNECT_CAP_S = 2.0
"""One relay a deployment comes back, so it may come back soon."""


async def relay_where_leading(projection: Projection, state: Log, executor: Executor, *, target: str) -> None:
    """Contend for the lease and relay while it is ours, until cancelled. `target`: the notification service."""
    lease = Lease(state, "fences", uuid4().hex, ttl_s=LEASE_S)
    while True:
        try:
            async with lease.hold() as held, publisher(target, projection.log.epoch) as publish:
                await _relay(held, Relay(projection, state, publish, executor))
        except Exception as error:
            # Whatever it was: the place is kept, so begin again from there.
            metrics.FAILURES.inc()
            _LOG.warning("the fences' relay starts again", exc_info=error)
        finally:
            metrics.LEADER.set(0)
        await asyncio.sleep(RETRY_S)


async def _relay(held: Held, relay: Relay) -> None:
    metrics.LEADER.set(1)
    leading = asyncio.create_task(relay.lead())
    losing = asyncio.create_task(held.lost.wait())
    try:
        await asyncio.wait((leading, losing), return_when=asyncio.FIRST_COMPLETED)
        if leading.done():
            leading.result()
    finally:
        leading.cancel()
        losing.cancel()
        await asyncio.gather(leading, losing, return_exceptions=True)


@contextlib.asynccontextmanager
async def publisher(target: str, epoch: bytes) -> AsyncIterator[Publisher]:
    """Publishes events of the features log of this epoch to the notification service at `target`, waiting while it is
    away."""
    async with NotificationClient(target, settings=ClientSettings(backoff=Backoff(cap_s=RECONNECT_CAP_S))) as client:

        async def publish(event: Event) -> None:
            message = event.fence.message
            notification = FenceNotification(
                fence_id=message.id,
                fence_uid=message.uid,
                fence_revision=message.revision,
                event=event.kind,
                feature=Feature.FromString(event.feature),
                collection=event.key.collection,
                sequence=event.sequence,
                change_time_ns=event.time_ns,
                left_reason=event.reason,
            )
            await client.publish(
                message.topic,
                notification.SerializeToString(),
                # A restored log uses its sequences again: without the epoch, events of it would be taken for repeats.
                message_id=event.message_id if is_of(message.uid, epoch) else f"{epoch.hex()}/{event.message_id}",
                attributes={
                    "event": event.kind_name,
                    "fence": message.id,
                    "feature": event.key.id,
                },
                traceparent=event.traceparent,
            )

        yield publish
