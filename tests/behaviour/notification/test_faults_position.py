"""FAULTS 12 to 17 and 19 to 23 against the real service as a process."""

import asyncio
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.conftest import MODULE
from tests.behaviour.notification.resuming import numbered, publish_all, resuming
from tests.behaviour.notification.stream import CURSOR, EARLIEST, OWN_CONNECTION, Stream, after, notes, reason_of
from tests.support.services import ServiceProcess, health_of, running


def rss_kb(service: ServiceProcess) -> int:
    return int(Path(f"/proc/{service.pid}/statm").read_text().split()[1]) * 4


async def resumed(service: ServiceProcess, start: pb.Start) -> tuple[list[pb.Gap], list[bytes]]:
    """What a client gets that comes back: gaps, and the payloads up to the one called `end`."""
    gaps: list[pb.Gap] = []
    payloads: list[bytes] = []
    async with grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel, Stream(channel) as stream:
        await stream.hello()
        await stream.publish(*notes("t", ["end"]))
        assert (await stream.subscribe("t", start)).HasField("subscribed")
        while b"end" not in payloads:
            frame = await stream.read("gap", "delivery")
            if frame.HasField("gap"):
                assert not payloads, "the gap comes first"
                gaps.append(frame.gap)
            else:
                payloads += [n.payload for n in frame.delivery.notifications]
    return gaps, payloads


async def last_position(service: ServiceProcess) -> bytes:
    async with grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel, Stream(channel) as stream:
        return (await stream.hello()).head.token


def database(service: ServiceProcess) -> Path:
    return service.directory / "data" / "notification.db"


def move(source: Path, target: Path) -> None:
    """A database with what belongs to it."""
    for suffix in ("", "-wal", "-shm"):
        Path(f"{target}{suffix}").unlink(missing_ok=True)
        if Path(f"{source}{suffix}").exists():
            shutil.copy(f"{source}{suffix}", f"{target}{suffix}")


async def test_fault_12_a_log_deleted_and_made_anew(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path) as service:
        await publish_all(service.target, numbered("t", 10))
        position = await last_position(service)
        assert await service.terminate() == 0
        shutil.rmtree(service.directory / "data")
        await service.start()
        await publish_all(service.target, numbered("t", 20))
        gaps, payloads = await resumed(service, after(position))
    assert [(gap.reason, gap.first_available) for gap in gaps] == [(pb.GAP_REASON_EPOCH_CHANGED, 1)]
    assert payloads == [*(b"%d" % n for n in range(20)), b"end"]


@pytest.mark.parametrize("more", [0, 5, 50])
async def test_fault_12_a_log_restored_from_an_older_backup(tmp_path: Path, more: int) -> None:
    """Whether the log that was restored has come less far than the position, or further by other records."""
    async with running(MODULE, tmp_path) as service:
        await publish_all(service.target, numbered("t", 10))
        assert await service.terminate() == 0
        backup = tmp_path / "backup.db"
        move(database(service), backup)
        await service.start()
        await publish_all(service.target, numbered("t", 10, prefix="lost"))
        position = await last_position(service)
        assert await service.terminate() == 0
        move(backup, database(service))
        await service.start()
        await publish_all(service.target, numbered("t", more, prefix="other"))
        gaps, payloads = await resumed(service, after(position))
    assert len(gaps) == 1
    assert gaps[0].reason in (pb.GAP_REASON_EPOCH_CHANGED, pb.GAP_REASON_LOG_REWOUND)
    assert payloads == [*(b"%d" % n for n in range(10)), *(b"%d" % n for n in range(more)), b"end"]


async def test_fault_13_a_position_older_than_retention(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path, args=["--retention-s=3"]) as service:
        await publish_all(service.target, numbered("t", 10))
        position = await last_position(service)
        await publish_all(service.target, numbered("t", 10, prefix="gone"))
        gaps: list[pb.Gap] = []
        async with asyncio.timeout(30):
            while not gaps:
                await asyncio.sleep(0.5)
                gaps, payloads = await resumed(service, after(position))
        assert gaps[0].reason == pb.GAP_REASON_RETENTION
        assert gaps[0].requested.token == position
        assert gaps[0].first_available > 20
        assert b"3" not in payloads


async def test_fault_14_a_plain_sequence_ahead_of_the_head(stream: Stream) -> None:
    answer = await stream.subscribe("t", pb.Start(after=pb.Position(sequence=10**12)))
    assert (answer.error.error.reason, answer.error.error.code) == ("POSITION_AHEAD", 11)
    assert (await stream.subscribe("t")).HasField("subscribed"), "the stream lives, and the name is free"


async def test_fault_15_publishes_during_the_change_from_replay_to_live(service: ServiceProcess, topic: str) -> None:
    await publish_all(service.target, numbered(topic, 5_000), frame=500)
    publishing = asyncio.create_task(publish_all(service.target, numbered(topic, 2_000, prefix="live"), client="live"))
    async with asyncio.TaskGroup() as group:

        async def one(delay_s: float) -> None:
            await asyncio.sleep(delay_s)
            async with resuming(service.target, topic, start=EARLIEST) as subscriber:
                await subscriber.until(7_000)
            assert subscriber.payloads == [b"%d" % n for n in (*range(5_000), *range(2_000))]
            assert not subscriber.reasons

        for number in range(15):
            group.create_task(one(number * 0.02))
    await publishing


async def flood(service: ServiceProcess, topic: str, records: int, steady_filter: str) -> tuple[int, list[bytes]]:
    """One subscriber stops reading while records pass, then reads again: growth of memory in KB, and what it got."""
    options = [*OWN_CONNECTION, ("grpc.http2.lookahead_bytes", 65536), ("grpc.http2.bdp_probe", 0)]
    async with (
        grpc.aio.insecure_channel(service.target, options=options) as channel,
        Stream(channel) as stopped,
        resuming(service.target, steady_filter) as steady,
    ):
        await stopped.hello()
        await stopped.subscribe(topic)
        before = rss_kb(service)
        async with (
            grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as other,
            Stream(other) as publisher,
        ):
            await publisher.hello()
            items = notes(topic, ["x" * 100] * 1_000)
            for turn in range(records // 1_000):
                await publisher.publish(*items)
                if turn % 10 == 0:  # the stopped one still says that it is there
                    await stopped.send(pong=pb.Pong(id=1))
            await publisher.publish(*notes(steady_filter, ["last"]))
        await steady.until(1)
        grown = rss_kb(service) - before
        got: list[pb.Notification] = []
        through: int | None = None
        while len(got) < records:
            delivery = (await stopped.read("delivery", timeout_s=30)).delivery
            assert through in (None, delivery.after)
            through = delivery.through
            got += delivery.notifications
        sequences = [n.sequence for n in got]
        assert sequences == list(range(sequences[0], sequences[0] + records))
        return grown, steady.payloads


async def test_fault_17_a_subscriber_that_stops_reading(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path, args=["--tail-bytes=2097152"]) as service:
        grown, others = await flood(service, "t", 100_000, "other")
    assert others == [b"last"]
    assert grown < 60_000


@pytest.mark.long
async def test_fault_17_a_million_records_pass(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path, args=["--tail-bytes=2097152"]) as service:
        grown, others = await flood(service, "t", 1_000_000, "other")
    assert others == [b"last"]
    assert grown < 80_000


async def test_fault_19_what_is_too_large_is_refused_and_the_stream_lives(stream: Stream, topic: str) -> None:
    published = await stream.publish(
        pb.Publication(topic=topic, payload=bytes(600_000)), pb.Publication(topic=topic, payload=b"fits")
    )
    large, fits = published.results
    assert (large.error.reason, large.error.metadata["limitBytes"]) == ("TOO_LARGE", str(512 * 1024))
    assert fits.sequence
    await stream.send(publish=pb.PublishFrame(id=99, publications=notes(topic, [bytes(400_000)] * 11)))  # over 4 MiB
    error = (await stream.read("error")).error.error
    assert (error.reason, error.metadata["limitBytes"]) == ("TOO_LARGE", str(4 * 1024 * 1024))
    await stream.publish(*notes(topic, ["lives"]))


async def test_fault_20_faster_than_the_allowance(tmp_path: Path) -> None:
    async with (
        running(MODULE, tmp_path, args=["--publish-rate-per-s=1", "--publish-burst=10"]) as service,
        grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel,
        grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as elsewhere,
        Stream(channel) as greedy,
        Stream(elsewhere) as modest,
    ):
        await greedy.hello("greedy", "s")
        await modest.hello("modest", "s")
        outcomes = [(await greedy.publish(*notes("t", ["x"]))).results[0] for _ in range(40)]
        refused = [result.error for result in outcomes if result.HasField("error")]
        assert refused
        assert {error.reason for error in refused} == {"RATE_LIMITED"}
        assert (await modest.publish(*notes("t", ["x"]))).results[0].sequence, "the others are unaffected"
        await asyncio.sleep(max(error.retry_after_ms for error in refused) / 1000)
        assert (await greedy.publish(*notes("t", ["x"]))).results[0].sequence
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await asyncio.gather(*(greedy.stub.Publish(pb.PublishRequest(topic="t")) for _ in range(40)))
        assert reason_of(caught.value) == "RATE_LIMITED"
        await modest.stub.Publish(pb.PublishRequest(topic="t"))


async def test_fault_21_another_session_fences_and_the_same_is_handed_over(
    channel: grpc.aio.Channel, topic: str
) -> None:
    async with Stream(channel) as first, Stream(channel) as second, Stream(channel) as third, Stream(channel) as back:
        await first.hello(topic, "pod-1")
        await first.subscribe(topic)
        await second.hello(topic, "pod-2")
        with pytest.raises(grpc.aio.AioRpcError) as fenced:
            await first.next()
        assert (fenced.value.code(), reason_of(fenced.value)) == (grpc.StatusCode.ABORTED, "SESSION_FENCED")
        await back.send(hello=pb.Hello(client_id=topic, session_id="pod-1"))
        with pytest.raises(grpc.aio.AioRpcError) as away:
            await back.next()
        assert reason_of(away.value) == "SESSION_FENCED"
        for frame_id in range(1, 21):
            await second.send(publish=pb.PublishFrame(id=frame_id, publications=notes(topic, ["x"])))
        await second.send(ping=pb.Ping(id=1))
        await second.read("pong")  # the publishes are read, their answers are due
        await third.hello(topic, "pod-2")
        for frame_id in range(1, 21):  # answers that are due are not lost in a handover
            assert (await second.read("published")).published.id == frame_id
        with pytest.raises(EOFError):
            await second.next()
        assert await second.call.code() is grpc.StatusCode.OK
        await third.publish(*notes(topic, ["x"]))


async def test_fault_22_killed_at_any_moment_every_acknowledged_record_is_there(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path) as service:
        async with resuming(service.target, "t") as subscriber:
            publishing = asyncio.create_task(publish_all(service.target, numbered("t", 2_000, size=200)))
            for turn in range(4):
                await subscriber.until(100 + turn * 300)
                service.kill()
                await service.start()
            sequences = await publishing
            await subscriber.until(2_000)
        assert [n.sequence for n in subscriber.records] == sequences == sorted(set(sequences))
        assert subscriber.payloads == [item.payload for item in numbered("t", 2_000, size=200)]
        assert not subscriber.gaps


async def test_fault_22_a_durable_cursor_survives_a_kill(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path) as service:
        for turn in range(3):
            async with (
                grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel,
                Stream(channel) as stream,
            ):
                await stream.hello("c", f"s{turn}")
                await stream.subscribe("t", CURSOR, durable=True)
                await stream.publish(*notes("t", [f"{turn}.{n}" for n in range(10)]))
                records = await stream.records(10)
                assert records[0].payload == f"{turn}.0".encode(), "what was acknowledged does not come again"
                through = pb.Position(sequence=records[-1].sequence)
                await stream.send(ack=pb.AckFrame(subscription="s", through=through))
                await stream.send(unsubscribe=pb.UnsubscribeFrame(subscription="s"))  # which writes it
                await stream.send(ping=pb.Ping(id=1))
                await stream.read("pong")
                service.kill()
            await service.start()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


async def test_fault_23_a_full_disk(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3 << 20))
    async with (
        running(MODULE, small_disk) as service,
        grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel,
        Stream(channel) as stream,
    ):
        await stream.hello("c", "s")
        await stream.subscribe("t")
        stored, error = 0, pb.Error()
        while not error.reason and stored < 10_000:
            for result in (await stream.publish(*notes("t", [bytes(4_000)] * 10))).results:
                stored += bool(result.sequence)
                error = error if result.sequence else result.error
        assert (error.code, error.reason) == (8, "STORAGE_FULL")
        async with asyncio.timeout(20):
            while await health_of(service.target, service.health) != "NOT_SERVING":  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        await stream.records(stored)
        async with Stream(channel) as late:
            await late.hello()
            assert (await late.subscribe("t", EARLIEST)).HasField("subscribed")
            await late.records(stored)
        ballast.unlink()
        async with asyncio.timeout(20):
            while not (await stream.publish(*notes("t", ["room"]))).results[0].sequence:  # noqa: ASYNC110
                await asyncio.sleep(0.1)
        await service.wait_serving()
