"""FAULTS 1 to 11 against the real service as a process, through the fault proxy."""

import asyncio
import random
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.conftest import MODULE
from tests.behaviour.notification.resuming import numbered, publish_all, resuming
from tests.behaviour.notification.stream import OWN_CONNECTION, Stream, after, notes, reason_of, stub_of
from tests.support.proxy import Direction, FaultProxy
from tests.support.services import ServiceProcess, health_of, running


async def metric(service: ServiceProcess, name: str) -> float:
    """A metric without labels."""
    lines = (await service.metrics()).splitlines()
    return float(next(line.split()[1] for line in lines if line.startswith(name + " ")))


async def settles(service: ServiceProcess, name: str, value: float, timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while await metric(service, name) != value:  # noqa: ASYNC110 - it is another process's
            await asyncio.sleep(0.05)


async def read_to_the_end(call: Any) -> None:
    while await call.read() is not grpc.aio.EOF:  # type: ignore[attr-defined] # the stubs lack it
        pass


async def test_fault_01_cut_at_any_byte_in_either_direction(service: ServiceProcess, topic: str) -> None:
    chance = random.Random(1)
    async with FaultProxy(service.port) as proxy, FaultProxy(service.port) as publishing:
        async with resuming(proxy.target, topic) as subscriber:
            # Every connection dies after a few hundred to a few thousand bytes, one way or the other.
            proxy.cut_each([chance.randint(250, 4_000) for _ in range(25)], Direction.DOWN)
            proxy.cut_each([chance.randint(450, 900) for _ in range(25)], Direction.UP)
            publishing.cut_each([chance.randint(400, 4_000) for _ in range(25)], Direction.UP, Direction.DOWN)
            proxy.cut_now()
            sequences = await publish_all(publishing.target, numbered(topic, 600))
            await subscriber.until(600)
        assert subscriber.payloads == [b"%d" % n for n in range(600)]
        assert [n.sequence for n in subscriber.records] == sequences
        assert subscriber.streams > 5
        assert proxy.accepted > 5
        assert publishing.accepted > 5


async def test_fault_02_cut_after_subscribed_and_before_the_first_delivery(
    service: ServiceProcess, stream: Stream, topic: str
) -> None:
    async with FaultProxy(service.port) as proxy:
        async with (
            grpc.aio.insecure_channel(proxy.target, options=OWN_CONNECTION) as channel,
            Stream(channel) as broken,
        ):
            await broken.hello("c", "s")
            subscribed = await broken.subscribe(topic)
            proxy.cut_now()
            with pytest.raises(grpc.aio.AioRpcError):
                await broken.next()
        await stream.publish(*notes(topic, ["while away"]))
        await stream.subscribe(topic, after(subscribed.subscribed.position.token))
        assert [n.payload for n in await stream.records(1)] == [b"while away"]


async def test_fault_03_stored_but_the_answer_lost(service: ServiceProcess, stream: Stream, topic: str) -> None:
    await stream.subscribe(topic)
    item = pb.Publication(topic=topic, message_id="once")
    async with (
        FaultProxy(service.port) as proxy,
        grpc.aio.insecure_channel(proxy.target, options=OWN_CONNECTION) as channel,
        Stream(channel) as broken,
    ):
        await broken.hello("publisher", "s")
        proxy.stall(Direction.DOWN)
        await broken.send(publish=pb.PublishFrame(id=1, publications=[item]))
        (record,) = await stream.records(1)
        proxy.cut_now()
        with pytest.raises(grpc.aio.AioRpcError):
            await broken.next()
    async with Stream(stream.channel) as again:
        await again.hello("publisher", "s")
        (result,) = (await again.publish(item)).results
    assert (result.sequence, result.duplicate) == (record.sequence, True)


async def test_fault_04_an_equal_message_id_swallows_nothing_of_others(tmp_path: Path) -> None:
    async with (
        running(MODULE, tmp_path, args=["--dedupe-window-s=4"]) as service,
        grpc.aio.insecure_channel(service.target) as channel,
        Stream(channel) as one,
        Stream(channel) as other,
    ):
        await one.hello("one", "s")
        await other.hello("other", "s")
        first = (await one.publish(pb.Publication(topic="t", message_id="m"))).results[0]
        assert not (await other.publish(pb.Publication(topic="t", message_id="m"))).results[0].duplicate
        assert not (await one.publish(pb.Publication(topic="u", message_id="m"))).results[0].duplicate
        repeated = (await one.publish(pb.Publication(topic="t", message_id="m"))).results[0]
        assert (repeated.sequence, repeated.duplicate) == (first.sequence, True)
        await asyncio.sleep(4.5)
        late = (await one.publish(pb.Publication(topic="t", message_id="m"))).results[0]
        assert not late.duplicate, "after the window it is another message"


async def test_fault_05_a_frozen_peer_is_noticed_within_two_heartbeats(tmp_path: Path) -> None:
    async with (
        running(MODULE, tmp_path, args=["--heartbeat-s=1"]) as service,
        FaultProxy(service.port) as proxy,
        grpc.aio.insecure_channel(proxy.target, options=OWN_CONNECTION) as channel,
        Stream(channel) as frozen,
    ):
        welcome = await frozen.hello("c", "s")
        assert welcome.heartbeat_interval_ms == 1000
        await frozen.subscribe("t")
        for _ in range(4):  # who answers pings stays
            async with asyncio.timeout(8):
                assert (await frozen.call.read()).HasField("ping")
            await frozen.send(pong=pb.Pong(id=1))
        proxy.stall()
        await settles(service, "signpost_notification_connections", 0, timeout_s=10)
        assert await metric(service, "signpost_notification_dead_peers_total") == 1
        assert await metric(service, "signpost_notification_subscriptions") == 0


async def test_fault_05_the_client_hears_from_the_server_as_often_as_it_asked(tmp_path: Path) -> None:
    async with (
        running(MODULE, tmp_path) as service,
        grpc.aio.insecure_channel(service.target) as channel,
        Stream(channel) as stream,
    ):
        await stream.hello("c", "s", heartbeat_interval_ms=1000)
        for _ in range(2):
            async with asyncio.timeout(8):
                assert (await stream.call.read()).HasField("ping")


async def test_fault_06_a_connection_that_is_old_is_left_unseen(tmp_path: Path) -> None:
    args = ["--max-connection-age-s=0.5", "--max-connection-age-grace-s=0.3"]
    async with running(MODULE, tmp_path, args=args) as service, resuming(service.target, "t") as subscriber:
        for turn in range(10):
            await publish_all(service.target, numbered("t", 30, prefix=f"{turn}."), client=f"p{turn}")
            await asyncio.sleep(0.2)
        await subscriber.until(300)
    assert subscriber.payloads == [b"%d" % n for _ in range(10) for n in range(30)]
    assert subscriber.streams >= 3


async def test_fault_07_sigterm_under_load_drains_and_ends_with_0(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path, args=["--drain-s=5"]) as service:
        async with resuming(service.target, "t", client="c") as subscriber:
            publishing = asyncio.create_task(publish_all(service.target, numbered("t", 3_000)))
            await subscriber.until(200)
            async with grpc.aio.insecure_channel(service.target) as channel, Stream(channel) as stays:
                await stays.hello("stays", "s")
                listens = stub_of(channel).Subscribe(pb.SubscribeRequest(filter="t"))
                await listens.read()
                ending = asyncio.create_task(service.terminate())
                draining = (await stays.read("draining")).draining
                assert 0 < draining.deadline_ms <= 5_000
                assert await health_of(service.target, timeout_s=10) == "NOT_SERVING"
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await stub_of(channel).Publish(pb.PublishRequest(topic="t"))
                assert reason_of(refused.value) == "DRAINING"
                with pytest.raises(grpc.aio.AioRpcError) as ended:
                    await stays.next()
                assert reason_of(ended.value) == "DRAINING"
                with pytest.raises(grpc.aio.AioRpcError) as over:
                    await read_to_the_end(listens)
                assert reason_of(over.value) == "DRAINING"
            assert await ending == 0
            assert subscriber.draining.is_set()
            await service.start()
            sequences = await publishing
            await subscriber.until(3_000)
        assert [n.sequence for n in subscriber.records] == sequences
        assert subscriber.payloads == [b"%d" % n for n in range(3_000)]


async def test_fault_08_a_thousand_come_back_at_once(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path) as service:
        channels = [grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) for _ in range(20)]

        async def opened(number: int) -> Stream:
            stream = Stream(channels[number % len(channels)])
            await stream.send(hello=pb.Hello(client_id=f"c{number}", session_id="s"))
            await stream.send(subscribe=pb.SubscribeFrame(subscription="s", filter="t"))
            await stream.read("welcome", timeout_s=60)
            await stream.read("subscribed", timeout_s=60)
            return stream

        streams = await asyncio.gather(*map(opened, range(1_000)))
        service.kill()
        for stream in streams:
            stream.call.cancel()
        await service.start()
        await asyncio.gather(*(channel.channel_ready() for channel in channels))
        async with asyncio.timeout(60):
            streams = await asyncio.gather(*map(opened, range(1_000)))
        for stream in streams:
            stream.call.cancel()
        for channel in channels:
            await channel.close(None)


@pytest.mark.long
async def test_fault_09_nine_thousand_streams_at_once(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path) as service:
        channels = [grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) for _ in range(90)]

        async def opened(number: int) -> Stream:
            stream = Stream(channels[number % len(channels)])
            await stream.send(hello=pb.Hello(client_id=f"c{number}", session_id="s"))
            await stream.send(subscribe=pb.SubscribeFrame(subscription="s", filter=f"t.{number}"))
            await stream.read("welcome", timeout_s=120)
            await stream.read("subscribed", timeout_s=120)
            return stream

        streams = await asyncio.gather(*map(opened, range(9_000)))
        assert await metric(service, "signpost_notification_connections") == 9_000
        await streams[8_999].publish(*notes("t.17", ["x"]))
        assert [n.payload for n in await streams[17].records(1)] == [b"x"]
        for stream in streams:
            stream.call.cancel()
        for channel in channels:
            await channel.close(None)
        await settles(service, "signpost_notification_connections", 0, timeout_s=30)


async def test_fault_10_a_caller_that_goes_leaves_nothing_behind(service: ServiceProcess, topic: str) -> None:
    before = 0
    await settles(service, "signpost_notification_subscriptions", before)  # others' have gone
    async with grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel:
        streams = []
        for number in range(20):
            stream = Stream(channel)
            await stream.hello(f"{topic}{number}", "s")
            await stream.subscribe(topic, name="a")
            await stream.subscribe(f"{topic}.>", name="b")
            streams.append(stream)
        listens = stub_of(channel).Subscribe(pb.SubscribeRequest(filter=topic))
        await listens.read()
        assert await metric(service, "signpost_notification_subscriptions") == before + 41
        for stream in streams[:10]:
            stream.call.cancel()
        listens.cancel()
    await settles(service, "signpost_notification_subscriptions", before)


def rss_kb(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4


@pytest.mark.long
async def test_fault_11_ten_thousand_cycles_leave_memory_where_it_was(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path) as service:
        channels = [grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) for _ in range(4)]

        async def cycle(number: int) -> None:
            stream = Stream(channels[number % len(channels)])
            await stream.hello(f"c{number % 500}", f"s{number}" if number % 5 == 0 else "s")
            await stream.subscribe(f"t.{number % 700}", name="a")
            stream.call.cancel()

        async def cycles(count: int) -> None:
            for at in range(0, count, 100):
                await asyncio.gather(*(cycle(at + n) for n in range(100)), return_exceptions=True)

        await cycles(2_000)
        await settles(service, "signpost_notification_connections", 0)
        before = rss_kb(service.pid)
        await cycles(10_000)
        await settles(service, "signpost_notification_connections", 0)
        await settles(service, "signpost_notification_subscriptions", 0)
        assert rss_kb(service.pid) - before < 8_000
        for channel in channels:
            await channel.close(None)
