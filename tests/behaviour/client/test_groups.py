"""Queue groups, topics and presence through the client."""

import asyncio
from collections import Counter

import pytest
from signpost.client import ClientSettings, NotificationClient

from tests.behaviour.client.conftest import Services
from tests.behaviour.client.workloads import HASTY
from tests.support.proxy import FaultProxy


async def test_a_group_shares_its_records_and_takes_back_what_was_rejected_or_left(services: Services) -> None:
    target, done, tries = services["notification_service"].target, Counter[int](), Counter[int]()
    enough = asyncio.Event()

    async def work(client: NotificationClient) -> None:
        subscription = client.subscribe("jobs", group="workers", ack="manual", ack_wait_s=5)
        async for record in subscription:
            number = int(record.payload)
            tries[number] += 1
            if number % 10 == 3 and tries[number] == 1:
                subscription.reject(record)
                continue
            done[number] += 1
            subscription.ack(record)
            if len(done) == 200:
                enough.set()

    async with (
        NotificationClient(target, settings=HASTY) as one,
        NotificationClient(target, settings=HASTY) as two,
        NotificationClient(target, settings=HASTY) as publisher,
    ):
        leaving = one.subscribe("jobs", group="workers", ack="manual", ack_wait_s=5, max_in_flight=20)
        await leaving.started()
        await asyncio.gather(*[publisher.publish_nowait("jobs", str(n)) for n in range(200)])
        async with asyncio.timeout(60):
            for _ in range(20):
                await anext(leaving)  # taken, and never acknowledged
            await leaving.aclose()
            working = [asyncio.create_task(work(client)) for client in (one, two)]
            await enough.wait()
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
    assert set(done) == set(range(200))
    assert [n for n in tries if tries[n] > 1 and n % 10 == 3]


async def test_a_group_survives_cuts_at_least_once(services: Services) -> None:
    service, got = services["notification_service"], set[int]()
    async with (
        FaultProxy(service.port) as proxy,
        NotificationClient(proxy.target, settings=HASTY) as client,
        NotificationClient(service.target, settings=HASTY) as publisher,
    ):
        subscription = client.subscribe("cut.jobs", group="workers", ack_wait_s=1)
        await subscription.started()
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            group.create_task(_publish_and_cut(publisher, proxy))
            async for record in subscription:
                got.add(int(record.payload))
                if len(got) == 300:
                    break
    assert got == set(range(300))


async def _publish_and_cut(publisher: NotificationClient, proxy: FaultProxy) -> None:
    for start in range(0, 300, 50):
        await asyncio.gather(*[publisher.publish_nowait("cut.jobs", str(n)) for n in range(start, start + 50)])
        await asyncio.sleep(0.1)
        proxy.cut_now()


async def test_topics_and_presence(services: Services) -> None:
    target = services["notification_service"].target
    async with NotificationClient(target, client_id="present") as client, client.subscribe("seen.>"):
        for number in range(3):
            await client.publish(f"seen.{number}", "x")
        topics = [topic async for topic in client.topics("seen.>", page_size=2)]
        assert [topic.name for topic in topics] == ["seen.0", "seen.1", "seen.2"]
        assert all(topic.records == 1 for topic in topics)
        async with asyncio.timeout(20):  # it is known a moment after the subscription
            while not (people := [p async for p in client.presence("seen.1")]):  # noqa: ASYNC110 - a server elsewhere sets no event
                await asyncio.sleep(0.05)
        assert [(p.client_id, p.filters) for p in people] == [("present", ("seen.>",))]
        assert people[0].connected_time_ns > 0


@pytest.mark.columns("subscribe")
async def test_fault_21_the_same_session_takes_over_without_a_word(services: Services) -> None:
    """Draining and a slow end of the old stream look like this: the library's own second stream."""
    target = services["notification_service"].target
    settings = ClientSettings(backoff=HASTY.backoff)  # with heartbeats that a slow machine keeps
    async with (
        NotificationClient(target, client_id="same", session_id="s", settings=settings) as client,
        client.subscribe("same.>") as subscription,
    ):
        for number in range(3):
            await client.publish("same.x", str(number))
            assert client._connection.session is not None
            client._connection.session.moving.set()  # as a draining frame does
            await asyncio.sleep(0.2)
        assert [int((await anext(subscription)).payload) for _ in range(3)] == [0, 1, 2]
        assert client.status.last_error is None or client.status.last_error.reason == "ENDED"
