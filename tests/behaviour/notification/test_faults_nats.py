"""FAULTS 7, 21 and 26 with two replicas on one NATS JetStream."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import grpc
import pytest

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.conftest import MODULE
from tests.behaviour.notification.resuming import numbered, publish_all, resuming
from tests.behaviour.notification.stream import CURSOR, OWN_CONNECTION, Stream, notes, reason_of
from tests.support.nats import NatsServer
from tests.support.services import ServiceProcess, running


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        yield server
    finally:
        server.kill()


@pytest.fixture
async def replicas(tmp_path: Path, nats: NatsServer) -> AsyncIterator[list[ServiceProcess]]:
    async with AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(running(MODULE, tmp_path / name, log=nats.url, args=["--drain-s=2"]))
            for name in ("one", "two")
        ]


async def test_fault_07_a_replica_goes_and_its_clients_move(replicas: list[ServiceProcess]) -> None:
    one, two = replicas
    where = [one.target]
    async with resuming(lambda: where[0], "t", client="c") as subscriber, resuming(two.target, "t") as neighbour:
        publishing = asyncio.create_task(publish_all(lambda: where[0], numbered("t", 1_000)))
        await subscriber.until(100)
        ending = asyncio.create_task(one.terminate())
        await subscriber.draining.wait()
        where[0] = two.target
        assert await ending == 0
        sequences = await publishing
        await subscriber.until(1_000)
        await neighbour.until(1_000)
    assert [n.sequence for n in subscriber.records] == sorted(sequences)
    assert [n.sequence for n in neighbour.records] == sorted(sequences)
    assert set(subscriber.payloads) == {b"%d" % n for n in range(1_000)}


async def test_fault_21_a_session_is_fenced_on_the_other_replica(replicas: list[ServiceProcess]) -> None:
    async with (
        grpc.aio.insecure_channel(replicas[0].target, options=OWN_CONNECTION) as here,
        grpc.aio.insecure_channel(replicas[1].target, options=OWN_CONNECTION) as there,
        Stream(here) as first,
        Stream(there) as second,
        Stream(here) as back,
    ):
        await first.hello("c", "pod-1")
        await second.hello("c", "pod-2")
        with pytest.raises(grpc.aio.AioRpcError) as fenced:
            await first.next()
        assert reason_of(fenced.value) == "SESSION_FENCED"
        await back.send(hello=pb.Hello(client_id="c", session_id="pod-1"))
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await back.next()
        assert reason_of(away.value) == "SESSION_FENCED"


async def test_a_durable_cursor_moves_between_replicas(replicas: list[ServiceProcess]) -> None:
    for turn, replica in enumerate([*replicas, *replicas]):
        async with (
            grpc.aio.insecure_channel(replica.target, options=OWN_CONNECTION) as channel,
            Stream(channel) as stream,
        ):
            await stream.hello("c", "s")
            await stream.subscribe("t", CURSOR, durable=True)
            await stream.publish(*notes("t", [f"{turn}.{n}" for n in range(10)]))
            records = await stream.records(10)
            assert [n.payload for n in records] == [f"{turn}.{n}".encode() for n in range(10)]
            await stream.send(ack=pb.AckFrame(subscription="s", through=pb.Position(sequence=records[-1].sequence)))
            await stream.send(unsubscribe=pb.UnsubscribeFrame(subscription="s"))  # which writes what is acknowledged
            await stream.send(ping=pb.Ping(id=1))
            await stream.read("pong")
            await stream.call.done_writing()
            with pytest.raises(EOFError):
                await stream.read("error")


async def test_fault_26_nats_is_killed_and_comes_back(nats: NatsServer, replicas: list[ServiceProcess]) -> None:
    async with resuming(replicas[0].target, "t") as one, resuming(replicas[1].target, "t") as other:
        publishing = asyncio.create_task(publish_all(replicas[0].target, numbered("t", 2_000)))
        for turn in range(2):
            await one.until(200 + turn * 400)
            nats.restart()
        async with asyncio.timeout(60):
            sequences = await publishing
        for subscriber in (one, other):
            await subscriber.until(2_000)
            assert [n.sequence for n in subscriber.records] == sorted(sequences)
            assert not subscriber.gaps
            assert subscriber.streams == 1, "the stream bears it"


@pytest.mark.long
async def test_fault_07_an_acknowledgement_that_nats_cannot_take_does_not_keep_a_replica_from_ending(
    nats: NatsServer, replicas: list[ServiceProcess]
) -> None:
    async with (
        grpc.aio.insecure_channel(replicas[0].target, options=OWN_CONNECTION) as channel,
        Stream(channel) as stream,
    ):
        await stream.hello("c", "s")
        await stream.subscribe("t", CURSOR, durable=True)
        await stream.publish(*notes("t", ["before"]))
        (record,) = await stream.records(1)
        nats.kill()
        await stream.send(ack=pb.AckFrame(subscription="s", through=pb.Position(sequence=record.sequence)))
        await asyncio.sleep(0.3)  # it is being written
        assert await replicas[0].terminate(timeout_s=20) == 0


async def test_a_stream_that_is_ending_is_not_cut_short_by_the_one_that_takes_over(
    nats: NatsServer, replicas: list[ServiceProcess]
) -> None:
    target = replicas[0].target
    async with (
        grpc.aio.insecure_channel(target, options=OWN_CONNECTION) as channel,
        Stream(channel) as older,
        Stream(channel) as newer,
    ):
        await older.hello("c", "s")
        nats.freeze()
        await older.send(publish=pb.PublishFrame(id=50, publications=notes("t", ["due"])))
        await older.call.done_writing()
        await asyncio.sleep(0.3)  # the server waits for the answer that is due
        await newer.hello("c", "s")
        nats.thaw()
        assert (await older.read("published")).published.results[0].sequence == 1
        with pytest.raises(EOFError):
            await older.read("error")
        assert await older.call.code() is grpc.StatusCode.OK


@pytest.mark.long
async def test_fault_26_publishes_without_nats_are_answered(nats: NatsServer, replicas: list[ServiceProcess]) -> None:
    async with (
        grpc.aio.insecure_channel(replicas[0].target, options=OWN_CONNECTION) as channel,
        Stream(channel) as stream,
    ):
        await stream.hello("c", "s")
        await stream.subscribe("t")
        await stream.publish(*notes("t", ["before"]))
        nats.kill()
        await stream.send(publish=pb.PublishFrame(id=50, publications=notes("t", ["lost"])))
        answer = (await stream.read("published", timeout_s=30)).published.results[0]
        assert answer.error.reason == "LOG_UNAVAILABLE"
        assert answer.error.retry_after_ms
        nats.start()
        async with asyncio.timeout(30):
            while not (await stream.publish(*notes("t", ["after"]))).results[0].sequence:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        payloads = [n.payload for n in await stream.records(2)]
        assert payloads[0] == b"before"
        assert b"after" in payloads or (await stream.records(1))[0].payload == b"after"


async def test_fault_26_the_stream_is_recreated_under_an_idle_follower(
    nats: NatsServer, replicas: list[ServiceProcess], tmp_path: Path
) -> None:
    """Somebody wipes the server's store: clients get a gap, then what is new."""
    async with resuming(replicas[0].target, "t") as subscriber:
        await publish_all(replicas[0].target, numbered("t", 10))
        await subscriber.until(10)
        nats.kill()
        for path in sorted((tmp_path / "nats" / "n1").rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
        nats.start()
        await publish_all(replicas[0].target, numbered("t", 5, prefix="new"))
        await subscriber.until(15, timeout_s=60)
    assert len(subscriber.gaps) == 1
    assert subscriber.gaps[0].reason == pb.GAP_REASON_EPOCH_CHANGED
    assert subscriber.payloads[10:] == [b"%d" % n for n in range(5)]
