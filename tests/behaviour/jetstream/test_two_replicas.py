"""Two replicas of each service on one JetStream are one service; and they live through what NATS does."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from protos.feature.v1 import feature_pb2, feature_pb2_grpc
from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from tests.support.nats import NatsServer
from tests.support.services import ServiceProcess, health_of, running

WITHIN_S = 30.0
HERE = feature_pb2.Point(latitude=525_200_000, longitude=134_050_000)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def channels() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def replicas(stack: AsyncExitStack, module: str, server: NatsServer, tmp_path: Path) -> list[ServiceProcess]:
    """Two of one service, started at the same time, as a deployment does."""
    return await asyncio.gather(
        *[
            stack.enter_async_context(running(module, tmp_path / f"{module}-{i}", log=server.url, args=["--drain-s=1"]))
            for i in range(2)
        ]
    )


async def features_of(stack: AsyncExitStack, process: ServiceProcess) -> "feature_pb2_grpc.FeatureServiceAsyncStub":
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(process.target))
    return feature_pb2_grpc.FeatureServiceStub(channel)  # type: ignore[no-any-return,unused-ignore]


async def notifications_of(
    stack: AsyncExitStack, process: ServiceProcess
) -> "notification_pb2_grpc.NotificationServiceAsyncStub":
    channel = await stack.enter_async_context(grpc.aio.insecure_channel(process.target))
    return notification_pb2_grpc.NotificationServiceStub(channel)  # type: ignore[no-any-return,unused-ignore]


class Listener:
    """A subscription on one replica: what it was handed, by payload."""

    def __init__(self, stub: "notification_pb2_grpc.NotificationServiceAsyncStub") -> None:
        start = notification_pb2.Start(earliest=notification_pb2.StartEarliest())
        self._call = stub.Subscribe(notification_pb2.SubscribeRequest(filter="news.>", start=start))
        self.sequences: list[int] = []
        self.payloads: list[bytes] = []

    async def until(self, count: int) -> None:
        """Return once so many came."""
        async with asyncio.timeout(WITHIN_S):
            async for frame in self._call:
                for notification in frame.delivery.notifications:
                    self.sequences.append(notification.sequence)
                    self.payloads.append(notification.payload)
                if len(self.payloads) >= count:
                    return

    def cancel(self) -> None:
        self._call.cancel()


async def test_a_publish_to_one_is_delivered_by_the_other(
    server: NatsServer, channels: AsyncExitStack, tmp_path: Path
) -> None:
    one, other = [
        await notifications_of(channels, p) for p in await replicas(channels, "notification_service", server, tmp_path)
    ]
    listeners = [Listener(one), Listener(other)]
    sent: list[int] = []
    for i in range(20):
        request = notification_pb2.PublishRequest(topic="news.a", message_id=f"m{i}", payload=b"%d" % i)
        sent.append((await (one, other)[i % 2].Publish(request)).sequence)
    again = await other.Publish(notification_pb2.PublishRequest(topic="news.a", message_id="m0", payload=b"0"))
    assert (again.sequence, again.duplicate) == (sent[0], True)
    for listener in listeners:
        await listener.until(20)
        assert listener.sequences == sent
        assert listener.payloads == [b"%d" % i for i in range(20)]
        listener.cancel()


async def test_a_put_to_one_is_listed_by_the_other(
    server: NatsServer, channels: AsyncExitStack, tmp_path: Path
) -> None:
    one, other = [await features_of(channels, p) for p in await replicas(channels, "feature_service", server, tmp_path)]
    for i in range(20):
        writer, reader = ((one, other), (other, one))[i % 2]
        feature = feature_pb2.Feature(id=f"f{i}", name=f"place {i}", location=HERE)
        written = await writer.PutFeature(feature_pb2.PutFeatureRequest(feature=feature, message_id=f"put {i}"))
        request = feature_pb2.ListFeaturesRequest(origin=HERE, min_position=written.position)
        found = [listed.id async for batch in reader.ListFeatures(request) for listed in batch.features]
        assert found == sorted(f"f{n}" for n in range(i + 1))
    deleted = await one.DeleteFeature(feature_pb2.DeleteFeatureRequest(id="f0"))
    request = feature_pb2.ListFeaturesRequest(origin=HERE, min_position=deleted.position)
    found = [listed.id async for batch in other.ListFeatures(request) for listed in batch.features]
    assert found == sorted(f"f{n}" for n in range(1, 20))
    unchanged = feature_pb2.Feature(id="f1", location=HERE)
    stale = feature_pb2.PutFeatureRequest(feature=unchanged, expected_sequence=deleted.sequence)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await other.PutFeature(stale)
    assert raised.value.code() is grpc.StatusCode.ABORTED


async def test_fault_26_services_live_through_a_restart_of_nats(
    server: NatsServer, channels: AsyncExitStack, tmp_path: Path
) -> None:
    processes = await replicas(channels, "notification_service", server, tmp_path)
    one, other = [await notifications_of(channels, process) for process in processes]
    listener = Listener(other)

    async def publish(number: int) -> int:
        request = notification_pb2.PublishRequest(topic="news.a", message_id=f"m{number}", payload=b"%d" % number)
        return (await one.Publish(request, timeout=WITHIN_S)).sequence

    sent = [await publish(i) for i in range(5)]
    await listener.until(5)
    server.kill()
    in_flight = [asyncio.create_task(publish(i)) for i in range(5, 25)]
    async with asyncio.timeout(WITHIN_S):
        while await health_of(processes[0].target, processes[0].health) == "SERVING":  # noqa: ASYNC110 - asked over the network
            await asyncio.sleep(0.05)
    server.start()
    sent += sorted(await asyncio.gather(*in_flight))
    await listener.until(25)
    assert listener.sequences == sent
    assert sorted(listener.payloads) == sorted(b"%d" % i for i in range(25))
    for process in processes:
        await process.wait_serving(WITHIN_S)
    listener.cancel()


async def test_fault_26_nats_down_at_start_is_said_and_waited_for(tmp_path: Path, channels: AsyncExitStack) -> None:
    server = NatsServer(tmp_path / "nats")
    process = ServiceProcess("feature_service", tmp_path, log=server.url)
    process.spawn()
    try:
        await asyncio.sleep(1.5)
        assert process.exit_code is None
        server.start()
        await process.wait_serving()
    finally:
        process.kill()
        server.kill()
