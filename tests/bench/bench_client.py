"""The client library beside plain generic grpcio calls to the same services, in turns.

The floor opens the same stream, parses the same messages with protobuf, and does with them what the
library's caller does; it knows no positions, windows, heartbeats or states.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
from signpost.client import Box, Feature, FeatureClient, NotificationClient

from protos.feature.v1 import feature_pb2 as fpb
from protos.notification.v1 import notification_pb2 as npb
from tests.bench.harness import Row, Stopwatch, compare
from tests.support.services import ServiceProcess

FEATURES = 100_000
RECORDS = 200_000
BOX = Box(-90, -180, 90, 180)
Work = Callable[[], Any]


async def rows(repeats: int) -> AsyncIterator[Row]:
    """Lists, then deliveries."""
    with tempfile.TemporaryDirectory() as directory:
        for module, measure in (("feature_service", _lists), ("notification_service", _deliveries)):
            service = ServiceProcess(module, Path(directory) / module)
            await service.start()
            try:
                async for row in measure(service, repeats):
                    yield row
            finally:
                service.kill()


async def _lists(service: ServiceProcess, repeats: int) -> AsyncIterator[Row]:
    features = (Feature(f"{n:06}", n % 80, n % 170, name=f"place {n}") for n in range(FEATURES))
    async with FeatureClient(service.target) as client, grpc.aio.insecure_channel(service.target) as channel:
        async for _ in client.import_features(features):
            pass
        raw: Any = channel.unary_stream(
            "/feature.v1.FeatureService/ListFeatures",
            fpb.ListFeaturesRequest.SerializeToString,
            fpb.ListFeaturesResponse.FromString,
        )

        async def batches() -> float:
            watch = Stopwatch()
            assert sum([len(b) async for b in client.list(area=BOX).batches()]) == FEATURES
            return watch.rate(FEATURES)

        async def batches_raw() -> float:
            watch = Stopwatch()
            request = fpb.ListFeaturesRequest(area=BOX.to_area())
            assert sum([len(m.features) async for m in raw(request)]) == FEATURES
            return watch.rate(FEATURES)

        async def items() -> float:
            watch = Stopwatch()
            assert len({f.id async for f in client.list(area=BOX)}) == FEATURES
            return watch.rate(FEATURES)

        async def items_raw() -> float:
            watch = Stopwatch()
            request = fpb.ListFeaturesRequest(area=BOX.to_area())
            assert len({f.id async for m in raw(request) for f in m.features}) == FEATURES
            return watch.rate(FEATURES)

        yield await compare("client: list, by batches", "features/s", batches, batches_raw, repeats)
        yield await compare("client: list, one by one, reading the id", "features/s", items, items_raw, repeats)


async def _deliveries(service: ServiceProcess, repeats: int) -> AsyncIterator[Row]:
    async with NotificationClient(service.target) as client, grpc.aio.insecure_channel(service.target) as channel:
        payload = b"x" * 64
        for _ in range(0, RECORDS, 1000):
            await asyncio.gather(*[client.publish_nowait("bench", payload) for _ in range(1000)])
        raw: Any = channel.stream_stream(
            "/notification.v1.NotificationService/Connect",
            npb.ConnectRequest.SerializeToString,
            npb.ConnectResponse.FromString,
        )

        async def batches() -> float:
            watch, count = Stopwatch(), 0
            subscription = client.subscribe("bench", start="earliest")
            async for batch in subscription.batches():
                count += len(batch)
                if count >= RECORDS:
                    break
            rate = watch.rate(RECORDS)
            await subscription.aclose()
            return rate

        async def items() -> float:
            watch, size = Stopwatch(), 0
            subscription = client.subscribe("bench", start="earliest")
            async for notification in subscription:
                size += len(notification.payload)
                if size >= RECORDS * len(payload):
                    break
            rate = watch.rate(RECORDS)
            await subscription.aclose()
            return rate

        async def delivered(read: Callable[[npb.Delivery], int]) -> float:
            watch, count, call = Stopwatch(), 0, raw()
            await call.write(npb.ConnectRequest(hello=npb.Hello()))
            start = npb.Start(earliest=npb.StartEarliest())
            frame = npb.SubscribeFrame(subscription="raw", filter="bench", start=start)
            await call.write(npb.ConnectRequest(subscribe=frame))
            while count < RECORDS:
                count += read((await call.read()).delivery)
            rate = watch.rate(RECORDS)
            call.cancel()
            return rate

        async def batches_raw() -> float:
            return await delivered(lambda delivery: len(delivery.notifications))

        async def items_raw() -> float:
            return await delivered(
                lambda delivery: sum([len(n.payload) for n in delivery.notifications]) // len(payload)
            )

        yield await compare("client: deliveries, by batches", "records/s", batches, batches_raw, repeats)
        yield await compare(
            "client: deliveries, one by one, reading the payload", "records/s", items, items_raw, repeats
        )
        yield Row("client: publishes acknowledged, 1,000 at a time", await _published(client, payload), "records/s")


async def _published(client: NotificationClient, payload: bytes) -> float:
    watch = Stopwatch()
    for _ in range(20):
        await asyncio.gather(*[client.publish_nowait("bench", payload) for _ in range(1000)])
    return watch.rate(20_000)
