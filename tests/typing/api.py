"""The public API as users write it: checked by mypy, never run. A change of a public type shows here."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import assert_type

from signpost.client import (
    Box,
    Circle,
    ClientSettings,
    Deleted,
    Feature,
    FeatureBatch,
    FeatureClient,
    Fence,
    FilePositionStore,
    Filter,
    Gap,
    ImportProgress,
    Notification,
    NotificationBatch,
    NotificationClient,
    OutboxSettings,
    Position,
    Published,
    State,
    StateChange,
    Subscription,
    Topic,
    Unsent,
    WatchEvent,
    Written,
    sync,
)


def on_state(change: StateChange) -> None:
    assert_type(change.state, State)


def on_gap(gap: Gap) -> None:
    assert_type(gap.first_available, int)


async def token() -> str:
    return "fresh"


async def features() -> None:
    async with FeatureClient(["a:1", "b:1"], token=token, on_state=on_state) as client:
        assert_type(client, FeatureClient)
        found = client.list((1, 2), area=Circle((1, 2), 3), filters=[Filter("a", "==", 1)], limit=3)
        async for feature in found:
            assert_type(feature, Feature)
            assert_type(feature.distance_m, float | None)
        async for batch in found.batches():
            assert_type(batch, FeatureBatch)
        assert_type(found.continuation, bytes)
        async with client.watch(Box(1, 2, 3, 4)) as watch:
            async for event in watch:
                assert_type(event, WatchEvent)
            assert_type(watch.features, Mapping[str, Feature])
        assert_type(await client.get("a"), Feature)
        assert_type(await client.put(Feature("a", 1, 2)), Written)
        assert_type(await client.delete("a"), Deleted)
        async for progress in client.import_features([Feature("a", 1, 2)]):
            assert_type(progress, ImportProgress)
        assert_type(await client.put_fence(Fence("f", Circle((1, 2), 3))), Fence)
        assert_type(await client.delete_fence("f"), bool)
        assert_type(client.list_fences(), AsyncIterator[Fence])


async def notifications() -> None:
    settings = ClientSettings(outbox=OutboxSettings(max_messages=5))
    async with NotificationClient("a:1", client_id="c", token="t", settings=settings) as client:  # noqa: S106 - no secret
        assert_type(await client.publish("t", b"x", ttl_s=1.5), Published)
        assert_type(client.publish_nowait("t", "x"), asyncio.Future[Published])
        subscription = client.subscribe("t", start=Position(b"", 3), on_gap=on_gap, position_store=None)
        assert_type(subscription, Subscription)
        async for notification in subscription:
            assert_type(notification, Notification)
            assert_type(notification.position, Position)
            subscription.ack(notification)
        async for batch in subscription.batches():
            assert_type(batch, NotificationBatch)
            assert_type(batch.payloads, list[bytes])
        assert_type(subscription.position, Position | None)
        async for topic in client.topics():
            assert_type(topic, Topic)
        assert_type(await client.status.wait_for(State.CONNECTED), State)
        client.subscribe("t", name="n", position_store=FilePositionStore("/tmp/positions"))  # noqa: S108 - never run
        assert_type(await client.close(), tuple[Unsent, ...])


def without_asyncio() -> None:
    with sync.FeatureClient("a:1") as client:
        for feature in client.list((1, 2)):
            assert_type(feature, Feature)
    with sync.NotificationClient("a:1") as other, other.subscribe("t") as subscription:
        assert_type(next(subscription), Notification)
        assert_type(other.publish("t", "x"), Published)


# What must not pass: each ignore is needed, or mypy says so.
async def wrong(client: NotificationClient) -> None:
    client.subscribe("t", start="yesterday")  # type: ignore[arg-type]
    client.subscribe("t", ack="sometimes")  # type: ignore[arg-type]
    await client.publish("t", 5)  # type: ignore[arg-type]
    Feature("a", "north", 2)  # type: ignore[arg-type]
