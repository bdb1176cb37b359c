"""Queue groups against the process: each record to one member, tries, poison, windows, one process or two."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest
from signpost.client import NotificationClient
from signpost.log.backup import backup, restore

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.stream import EARLIEST, OWN_CONNECTION, Stream, notes
from tests.support.metrics_text import Samples
from tests.support.nats import NatsServer
from tests.support.services import ServiceProcess, running

MODULE = "notification_service"


@asynccontextmanager
async def opened(target: str) -> AsyncIterator[Stream]:
    async with grpc.aio.insecure_channel(target, options=OWN_CONNECTION) as channel, Stream(channel) as stream:
        await stream.hello()
        yield stream


async def deliveries(stream: Stream, count: int) -> list[tuple[pb.Notification, int]]:
    """The next records, at least so many, each with its tries."""
    found: list[tuple[pb.Notification, int]] = []
    while len(found) < count:
        delivery = (await stream.read("delivery")).delivery
        tries = delivery.redeliveries or [0] * len(delivery.notifications)
        found += zip(delivery.notifications, tries, strict=True)
    return found


async def ack(stream: Stream, *sequences: int, name: str = "s") -> None:
    await stream.send(ack=pb.AckFrame(subscription=name, sequences=sequences))


async def reject(stream: Stream, *sequences: int, name: str = "s") -> None:
    await stream.send(ack=pb.AckFrame(subscription=name, rejected_sequences=sequences))


@pytest.fixture(scope="module")
def nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module", params=["sqlite", "jetstream"])
def targets(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Two addresses of one service: the same process, or two replicas."""
    log = request.getfixturevalue("nats").url if request.param == "jetstream" else None
    count = 2 if log else 1
    made = [ServiceProcess(MODULE, tmp_path_factory.mktemp("groups"), log=log) for _ in range(count)]

    async def start() -> None:
        await asyncio.gather(*[process.start() for process in made])

    try:
        asyncio.run(start())
        yield made[0].target, made[-1].target
    finally:
        for process in made:
            process.kill()


async def test_members_share_a_group(targets: tuple[str, str], topic: str) -> None:
    """Three members, on one stream and on two, on one replica or two; a plain subscriber gets everything."""
    got: Counter[int] = Counter()
    async with opened(targets[0]) as one, opened(targets[1]) as other, opened(targets[1]) as plain:
        await one.subscribe(f"{topic}.*", name="a", group="workers", max_in_flight=10)
        await one.subscribe(f"{topic}.*", name="b", group="workers", max_in_flight=10)
        await other.subscribe(f"{topic}.*", name="c", group="workers", max_in_flight=10)
        await plain.subscribe(f"{topic}.*")
        published = await plain.publish(*[note for i in range(100) for note in notes(f"{topic}.{i % 3}", [str(i)])])
        by_member: Counter[str] = Counter()

        async def work(stream: Stream) -> None:
            while True:
                delivery = (await stream.read("delivery", timeout_s=30)).delivery
                sequences = [n.sequence for n in delivery.notifications]
                got.update(sequences)
                by_member[delivery.subscription] += len(sequences)
                unanswered.append((stream, sequences, delivery.subscription))
                while unanswered and len(by_member) == 3:  # one that is fast leaves something to the others
                    holder, held, name = unanswered.pop()
                    async with answering:  # a stream takes one write at a time, and both workers answer on both
                        await ack(holder, *held, name=name)

        answering = asyncio.Lock()
        unanswered: list[tuple[Stream, list[int], str]] = []
        workers = [asyncio.create_task(work(stream)) for stream in (one, other)]
        async with asyncio.timeout(30):
            while len(got) < 100:  # noqa: ASYNC110 - two workers, one count
                await asyncio.sleep(0.02)
        everything = await plain.records(100)
        for worker in workers:
            worker.cancel()
    sequences = [result.sequence for result in published.results]
    assert got == Counter(sequences)
    assert [n.sequence for n in everything] == sequences
    assert set(by_member) == {"a", "b", "c"}


async def test_what_is_rejected_late_or_left_behind_comes_again(targets: tuple[str, str], topic: str) -> None:
    """Redelivery after a reject, after the waiting time, and when the holder goes; tries are counted."""
    async with opened(targets[0]) as one:
        await one.subscribe(topic, group="g", ack_wait_ms=1500, max_deliveries=10)
        (result,) = (await one.publish(*notes(topic, ["x"]))).results
        assert [(n.sequence, tries) for n, tries in await deliveries(one, 1)] == [(result.sequence, 0)]
        await reject(one, result.sequence)
        assert [(n.sequence, tries) for n, tries in await deliveries(one, 1)] == [(result.sequence, 1)]
        # Not acknowledged in time: it comes again by itself.
        assert [(n.sequence, tries) for n, tries in await deliveries(one, 1)] == [(result.sequence, 2)]
    async with opened(targets[1]) as other:
        await other.subscribe(topic, group="g", ack_wait_ms=1500, max_deliveries=10)
        assert [(n.sequence, tries) for n, tries in await deliveries(other, 1)] == [(result.sequence, 3)]
        await ack(other, result.sequence)
        (later,) = (await other.publish(*notes(topic, ["y"]))).results
        await asyncio.sleep(2)
        assert [n.sequence for n, _ in await deliveries(other, 1)] == [later.sequence]


async def test_poison_ends_under_dead_once(targets: tuple[str, str], topic: str) -> None:
    async with opened(targets[0]) as one, opened(targets[1]) as other, opened(targets[1]) as dead:
        await dead.subscribe(f"_dead.{topic}.>")
        for stream in (one, other):
            await stream.subscribe(f"{topic}.*", group="g", max_deliveries=3)
        poison = pb.Publication(topic=f"{topic}.a", payload=b"bad", message_id="m", attributes={"k": "v"})
        (result,) = (await dead.publish(poison)).results

        async def refuse(stream: Stream) -> None:
            while True:
                for note, _ in await deliveries(stream, 1):
                    tried.append(note.sequence)
                    await reject(stream, note.sequence)

        tried: list[int] = []
        refusing = [asyncio.create_task(refuse(stream)) for stream in (one, other)]
        (copy,) = await dead.records(1)
        (good,) = (await dead.publish(*notes(f"{topic}.b", ["good"]))).results
        (second,) = await dead.records(1)
        for task in refusing:
            task.cancel()
    assert tried == [result.sequence] * 3 + [good.sequence] * 3
    assert copy.topic == f"_dead.{topic}.a"
    assert copy.payload == b"bad"
    assert second.topic == f"_dead.{topic}.b"
    assert copy.message_id != "m"
    assert dict(copy.attributes) == {
        "k": "v",
        "dead-group": "g",
        "dead-filter": f"{topic}.*",
        "dead-tries": "3",
        "dead-sequence": str(result.sequence),
        "dead-topic": f"{topic}.a",
    }


async def test_a_member_holds_no_more_than_it_asked_for(targets: tuple[str, str], topic: str) -> None:
    async with opened(targets[0]) as one:
        await one.subscribe(topic, group="g", max_in_flight=3)
        await one.publish(*notes(topic, [str(i) for i in range(10)]))
        first = await deliveries(one, 3)
        await asyncio.sleep(0.3)
        pong = asyncio.create_task(one.read("pong"))
        await one.send(ping=pb.Ping(id=7))
        await pong
        assert not [frame for frame in one.frames if frame.delivery.notifications]
        assert len(first) == 3
        await ack(one, *[n.sequence for n, _ in first[:2]])
        assert len(await deliveries(one, 2)) == 2


async def test_a_member_keeps_to_its_window(targets: tuple[str, str], topic: str) -> None:
    async with opened(targets[0]) as one:
        await one.subscribe(topic, group="g", window_bytes=5000)
        await one.publish(*notes(topic, [b"x" * 2000 for _ in range(6)]))
        sent = 0
        got: list[int] = []
        while len(got) < 6:
            delivery = (await one.read("delivery")).delivery
            if delivery.notifications:
                sent += delivery.ByteSize()
                assert sent <= 5000 + 2200
                got += [n.sequence for n in delivery.notifications]
                await ack(one, *got)
                if sent >= 5000:
                    await one.send(credit=pb.CreditFrame(subscription="s", bytes=sent))
                    sent = 0
        assert len(set(got)) == 6


async def test_where_a_group_starts_and_goes_on(targets: tuple[str, str], topic: str) -> None:
    async with opened(targets[0]) as one:
        results = (await one.publish(*notes(topic, [str(i) for i in range(6)]))).results
        numbers = [result.sequence for result in results]
        await one.subscribe(topic, EARLIEST, name="a", group="all")
        assert [n.sequence for n, _ in await deliveries(one, 6)] == numbers
        await ack(one, *numbers[:4], name="a")
        middle = pb.Start(after=pb.Position(sequence=numbers[3]))
        await one.subscribe(topic, middle, name="b", group="late")
        assert [n.sequence for n, _ in await deliveries(one, 2)] == numbers[4:]
        await ack(one, *numbers[4:], name="b")
        await one.subscribe(topic, name="c", group="new")
        (more,) = (await one.publish(*notes(topic, ["more"]))).results
        found = {(await one.read("delivery")).delivery.subscription for _ in range(3)}
        assert found == {"a", "b", "c"}
        await ack(one, more.sequence, name="b")
        await one.send(ping=pb.Ping(id=1))
        await one.read("pong")  # the acknowledgements are read
        await asyncio.sleep(0.3)
    # Everybody has gone; a group that is there goes on at its own place, whatever the start says.
    async with opened(targets[1]) as other:
        await other.subscribe(topic, name="b", group="late", start=EARLIEST)
        await other.subscribe(topic, name="a", group="all")
        again: set[int] = set()
        while len(again) < 3:
            delivery = (await other.read("delivery")).delivery
            assert delivery.subscription == "a"
            again |= {n.sequence for n in delivery.notifications}
        assert again == {*numbers[4:], more.sequence}


async def test_the_client_library_shares_a_group(targets: tuple[str, str], topic: str) -> None:
    """Acknowledged by asking for the next, by hand, or rejected."""
    async with (
        NotificationClient(targets[0]) as one,
        NotificationClient(targets[1]) as other,
        one.subscribe(f"{topic}.*", group="g", max_in_flight=5) as auto,
        other.subscribe(f"{topic}.*", group="g", max_in_flight=5, ack="manual") as manual,
    ):
        got: Counter[str] = Counter()

        async def automatic() -> None:
            await somebody_rejected.wait()  # so many in flight are left to the other one
            async for note in auto:
                got[note.text] += 1

        async def by_hand() -> None:
            async for note in manual:
                if not note.redeliveries:
                    manual.reject(note)
                    rejected.add(note.text)
                    somebody_rejected.set()
                else:
                    got[note.text] += 1
                    manual.ack(note)

        rejected: set[str] = set()
        somebody_rejected = asyncio.Event()
        workers = [asyncio.create_task(automatic()), asyncio.create_task(by_hand())]
        for i in range(60):
            await other.publish(f"{topic}.{i % 2}", str(i))
        async with asyncio.timeout(30):
            while len(got) < 60:  # noqa: ASYNC110 - two workers, one count
                await asyncio.sleep(0.02)
        for worker in workers:
            worker.cancel()
        assert rejected
        assert set(got.values()) == {1}


async def test_what_is_wrong_with_a_group(targets: tuple[str, str], topic: str) -> None:
    async with opened(targets[0]) as one:
        cursor = pb.Start(cursor=pb.StartCursor())
        answer = await one.subscribe(
            topic, cursor, group="a b", ack_wait_ms=1, max_deliveries=1001, max_in_flight=10_001, durable=True
        )
        assert answer.error.error.reason == "INVALID_ARGUMENT"
        assert set(answer.error.error.metadata) == {
            "group", "durable", "start", "ack_wait_ms", "max_deliveries", "max_in_flight",
        }  # fmt: skip
        assert (await one.subscribe(topic, group="g")).WhichOneof("frame") == "subscribed"
        await ack(one, 1, 2, 3)  # nothing that it holds: passed over
        await one.send(ping=pb.Ping(id=1))
        assert (await one.next()).pong.id == 1


async def test_expired_records_are_not_dealt(targets: tuple[str, str], topic: str) -> None:
    async with opened(targets[0]) as one:
        short = pb.Publication(topic=topic, payload=b"short", ttl_ms=1)
        await one.publish(short, *notes(topic, ["long"]))
        await asyncio.sleep(0.05)
        await one.subscribe(topic, EARLIEST, group="g")
        assert [n.payload for n, _ in await deliveries(one, 1)] == [b"long"]


async def work_through(target: str, topic: str, count: int, *, hold: int = 0) -> list[int]:
    """Acknowledge records until so many different ones are; the last `hold` of them are only held."""
    seen: list[int] = []
    async with opened(target) as stream:
        await stream.subscribe(topic, EARLIEST, group="g", ack_wait_ms=1500, max_deliveries=50)
        while len(set(seen)) < count:
            for note, _ in await deliveries(stream, 1):
                seen.append(note.sequence)
                if len(set(seen)) <= count - hold:
                    await ack(stream, note.sequence)
        await asyncio.sleep(0.3)
    return seen


async def places_saved(service: ServiceProcess) -> float:
    """How often a group's place has been written, where nothing else is."""
    return Samples(await service.metrics()).value("signpost_log_head", log="state")


async def test_fault_22_a_group_over_a_killed_process(tmp_path: Path) -> None:
    """kill -9 while a member holds records: every one comes to somebody, the acknowledged ones not again."""
    async with running(MODULE, tmp_path) as service:
        async with opened(service.target) as stream:
            await stream.subscribe("work", group="g", max_in_flight=50)
            results = (await stream.publish(*notes("work", [str(i) for i in range(100)]))).results
            numbers = [result.sequence for result in results]
            held = [n.sequence for n, _ in await deliveries(stream, 50)]
            assert held == numbers[:50]
            saved = await places_saved(service)
            await ack(stream, *held[:20])
            more = [n.sequence for n, _ in await deliveries(stream, 20)]
            async with asyncio.timeout(10):
                while await places_saved(service) == saved:  # noqa: ASYNC110 - another process
                    await asyncio.sleep(0.05)
            await asyncio.sleep(0.4)  # what is acknowledged is written within a moment
            service.kill()
        await service.start()
        seen = await work_through(service.target, "work", 80)
        assert sorted(set(seen)) == numbers[20:]
        assert set(more) <= set(seen)


async def test_fault_12_an_acknowledgement_of_before_a_restore_settles_nothing_after_it(tmp_path: Path) -> None:
    async with running(MODULE, tmp_path) as service:
        log, kept = f"sqlite:///{tmp_path / 'data' / 'notification.db'}", tmp_path / "kept"
        async with opened(service.target) as stream:
            await stream.subscribe("work", group="g", ack_wait_ms=60_000)
            await stream.publish(*notes("work", ["both"]))
            await backup(log, kept)
            await stream.publish(*notes("work", ["before"]))
            (both, _), (before, _) = await deliveries(stream, 2)
            await restore(log, kept)
            await stream.publish(*notes("work", ["after"]))
            again, (after, _) = await deliveries(stream, 2)
            assert (again[0].sequence, after.payload) == (both.sequence, b"after")
            assert after.sequence == before.sequence
            await ack(stream, before.sequence, both.sequence)
        async with opened(service.target) as stream:
            await stream.subscribe("work", group="g", ack_wait_ms=60_000)
            assert [n.payload for n, _ in await deliveries(stream, 1)] == [b"after"]
            await ack(stream, after.sequence)


@pytest.mark.long
async def test_fault_22_a_group_over_a_killed_replica(nats: NatsServer, tmp_path: Path) -> None:
    """What a killed replica's members held comes to those of the other one."""
    async with (
        running(MODULE, tmp_path / "a", log=nats.url) as one,
        running(MODULE, tmp_path / "b", log=nats.url) as other,
    ):
        async with opened(one.target) as stream:
            await stream.subscribe("killed.work", group="g", ack_wait_ms=1500, max_in_flight=50)
            results = (await stream.publish(*notes("killed.work", [str(i) for i in range(100)]))).results
            numbers = [result.sequence for result in results]
            held = [n.sequence for n, _ in await deliveries(stream, 50)]
            await ack(stream, *held[:20])
            await asyncio.sleep(0.4)
            one.kill()
        seen = await work_through(other.target, "killed.work", 80)
        assert sorted(set(seen)) == sorted(set(numbers) - set(held[:20]))
