"""Queue groups on JetStream: at least once, one member at a time, over every process and the server's death."""

import asyncio
import hashlib
from collections.abc import AsyncIterator

import nats
import pytest
from signpost.log import Append, Log, LogSettings, Store
from signpost.log.group import Delivered, Group, GroupSettings
from signpost.log.jetstream import JetStreamSettings, JetStreamStore

from tests.support.nats import NatsServer

LOGS = [LogSettings("notifications"), LogSettings("state")]
QUICK = JetStreamSettings(heartbeat_s=0.3, request_timeout_s=2.0, reconnect_max_s=0.2)


@pytest.fixture
async def stores(server: NatsServer) -> AsyncIterator[list[Store]]:
    async with (
        await JetStreamStore.open(server.url, LOGS, QUICK) as one,
        await JetStreamStore.open(server.url, LOGS, QUICK) as other,
    ):
        yield [one, other]


def settings(ack_wait_s: float = 30.0, start_after: int = 0) -> GroupSettings:
    return GroupSettings("g", "work.>", start_after=start_after, ack_wait_s=ack_wait_s)


async def opened(store: Store, of: GroupSettings) -> Group:
    return await store["notifications"].open_group(of, store["state"])


async def fill(log: Log, count: int, subject: str = "work.a") -> list[int]:
    answers = await log.append_many([Append(subject, b"%d" % i) for i in range(count)])
    return [answer.sequence for answer in answers if isinstance(answer, tuple)]


async def fetch(group: Group, member: str, limit: int, within_s: float = 30.0) -> list[Delivered]:
    async with asyncio.timeout(within_s):
        return await group.fetch(member, limit)


async def take(group: Group, member: str, count: int) -> list[int]:
    found: list[int] = []
    while len(found) < count:
        found += [delivered.record.sequence for delivered in await fetch(group, member, count - len(found))]
    return found


async def drain(group: Group, quiet_s: float) -> None:
    """Acknowledge what comes again, until nothing does for so long."""
    while True:
        try:
            again = [delivered.record.sequence for delivered in await fetch(group, "b", 100, quiet_s)]
        except TimeoutError:
            return
        group.ack("b", again)


async def is_quiet(group: Group, member: str, for_s: float = 0.5) -> bool:
    try:
        await fetch(group, member, 100, for_s)
    except TimeoutError:
        return True
    return False


async def test_two_processes_share_a_group(stores: list[Store]) -> None:
    groups = [await opened(store, settings()) for store in stores]
    sequences = await fill(stores[0]["notifications"], 500)
    await fill(stores[1]["notifications"], 50, "other.topic")
    got: dict[str, list[int]] = {"a": [], "b": [], "c": []}

    async def work(group: Group, member: str) -> None:
        while True:
            taken = [delivered.record.sequence for delivered in await group.fetch(member, 7)]
            got[member] += taken
            group.ack(member, taken)
            await asyncio.sleep(0)

    workers = [asyncio.create_task(work(groups[i % 2], member)) for i, member in enumerate(got)]
    async with asyncio.timeout(30):
        while sum(map(len, got.values())) < 500:  # noqa: ASYNC110 - three workers, one sum
            await asyncio.sleep(0.02)
    for worker in workers:
        worker.cancel()
    assert sorted(got["a"] + got["b"] + got["c"]) == sequences
    assert got["b"]
    assert got["a"] + got["c"]
    for group in groups:
        assert await is_quiet(group, "late")
        await group.close()


async def test_what_is_not_acknowledged_in_time_goes_to_another_process(stores: list[Store]) -> None:
    # Not with the end of a request (2 s): records that lapse in that instant may be counted, and dealt, once more.
    one, other = [await opened(store, settings(ack_wait_s=3.0)) for store in stores]
    await fill(stores[0]["notifications"], 3)
    held = await take(one, "slow", 3)
    one.ack("slow", held[:1])
    again = [await fetch(other, "quick", 1), await fetch(other, "quick", 1)]
    assert sorted(d.record.sequence for (d,) in again) == held[1:]
    assert all(d.tries >= 1 for (d,) in again)  # once, unless the machine stalls
    one.ack("slow", held[1:])  # too late: it no longer holds them
    other.reject("quick", held[1:])
    third = [*await take(one, "third", 2)]
    assert sorted(third) == held[1:]
    one.ack("third", third)
    assert await is_quiet(other, "late", 3.5)
    await one.close()
    await other.close()


async def test_a_member_that_goes_gives_back(stores: list[Store]) -> None:
    one, other = [await opened(store, settings()) for store in stores]
    await fill(stores[0]["notifications"], 5)
    held = await take(one, "a", 5)
    one.release("a")
    assert sorted(await take(other, "b", 5)) == held
    await one.close()
    await other.close()


async def test_a_cancelled_fetch_takes_none(stores: list[Store]) -> None:
    one, other = [await opened(store, settings()) for store in stores]
    waiting = asyncio.create_task(one.fetch("a", 5))
    await asyncio.sleep(0.1)
    waiting.cancel()
    sequences = await fill(stores[0]["notifications"], 5)
    assert sorted(await take(other, "b", 5)) == sequences
    await one.close()
    await other.close()


async def test_a_group_starts_where_it_is_told_and_goes_on_where_it_was(stores: list[Store]) -> None:
    sequences = await fill(stores[0]["notifications"], 10)
    group = await opened(stores[0], settings(start_after=4))
    held = await take(group, "a", 6)
    assert held == sequences[4:]
    group.ack("a", held[:3])
    await group.close()
    again = await opened(stores[1], settings(start_after=9, ack_wait_s=5.0))
    assert sorted(await take(again, "b", 3)) == held[3:]
    await again.close()


@pytest.mark.long
async def test_acknowledgements_of_a_deleted_stream_settle_nothing_in_the_next(
    server: NatsServer, stores: list[Store]
) -> None:
    log = stores[0]["notifications"]
    one, other = await opened(stores[0], settings()), await opened(stores[1], settings())
    sequences = await fill(log, 10)
    assert await take(one, "a", 10) == sequences
    client = await nats.connect(server.url)
    try:
        await client.jetstream().delete_stream("signpost-notifications")
    finally:
        await client.close()
    one.ack("a", sequences)  # nobody confirms it
    async with asyncio.timeout(30):
        while log.head:  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.05)
    assert await fill(log, 10) == sequences
    assert sorted(await take(other, "b", 10)) == sequences
    await asyncio.sleep(0.5)
    other.release("b")
    assert sorted(await take(other, "c", 10)) == sequences
    for group in (one, other):
        await group.close()


async def test_fault_12_a_process_that_has_not_seen_that_the_stream_is_another_settles_nothing_in_it(
    server: NatsServer,
) -> None:
    """It holds what it can and asks for nothing, while others have made the stream anew and deal it out."""
    async with await JetStreamStore.open(server.url, LOGS, QUICK) as one:
        behind = await opened(one, settings())
        sequences = await fill(one["notifications"], 5)
        assert await take(behind, "a", 5) == sequences
        client = await nats.connect(server.url)
        try:
            await client.jetstream().delete_stream("signpost-notifications")
        finally:
            await client.close()
        async with await JetStreamStore.open(server.url, LOGS, QUICK) as other:
            group = await opened(other, settings())
            assert await fill(other["notifications"], 5) == sequences
            assert sorted(await take(group, "b", 5)) == sequences
            behind.ack("a", sequences)
            await asyncio.sleep(0.5)
            group.release("b")
            assert sorted(await take(group, "c", 5)) == sequences
            group.ack("c", sequences)
            await group.close()
        await behind.close()


async def test_a_group_of_an_earlier_release_goes_on_where_it_was(server: NatsServer, stores: list[Store]) -> None:
    """Its consumer is called by the group's name and filter alone."""
    sequences = await fill(stores[0]["notifications"], 5)
    client = await nats.connect(server.url)
    try:
        digest = hashlib.sha256(b"g\nwork.>").hexdigest()[:32]
        await client.jetstream().add_consumer(
            "signpost-notifications",
            durable_name=f"group-{digest}",
            filter_subject="signpost.notifications.work.>",
            ack_policy="explicit",
            deliver_policy="by_start_sequence",
            opt_start_seq=3,
            ack_wait=30,
        )
    finally:
        await client.close()
    group = await opened(stores[0], settings(start_after=4))
    assert await take(group, "a", 3) == sequences[2:]
    group.ack("a", sequences[2:])
    await group.close()
    again = await opened(stores[1], settings())
    assert await is_quiet(again, "b")
    await again.close()


async def test_fault_26_a_group_over_a_killed_server(server: NatsServer, stores: list[Store]) -> None:
    group = await opened(stores[0], settings(ack_wait_s=2.0))
    sequences = await fill(stores[0]["notifications"], 200)
    held = await take(group, "a", 100)
    server.kill()
    group.ack("a", held)  # told once the server is back
    await asyncio.sleep(0.3)
    server.start()
    # A killed server may have forgotten what it had just dealt: that comes again.
    seen = set(held)
    while seen != set(sequences):
        more = [delivered.record.sequence for delivered in await fetch(group, "a", 50)]
        group.ack("a", more)
        seen.update(more)
    async with asyncio.timeout(60):
        await drain(group, quiet_s=2.5)
    await group.close()
