"""Presence against the process: who is there, who came and went, over reconnects, replicas and their deaths."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from signpost.client import NotificationClient

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.presence import connected, event, names, until_names, who
from tests.behaviour.notification.stream import OWN_CONNECTION, Stream, notes, reason_of, stub_of, violations_of
from tests.support.services import ServiceProcess, running

MODULE = "notification_service"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(
        MODULE, tmp_path_factory.mktemp("presence"), args=["--presence-grace-s=0.6", "--presence-lease-s=1.5"]
    )
    try:
        asyncio.run(process.start())
        yield process
    finally:
        process.kill()


async def test_who_is_there(service: ServiceProcess, topic: str) -> None:
    async with (
        connected(service.target, f"{topic}-b", "1", f"{topic}.*", f"{topic}.x.>"),
        connected(service.target, f"{topic}-a", "1", f"{topic}.x.y"),
        connected(service.target, "", "", f"{topic}.x"),
    ):
        await until_names(service.target, f"{topic}.x.y", [f"{topic}-a", f"{topic}-b"])
        assert await names(service.target, f"{topic}.z") == [f"{topic}-b"]
        assert await names(service.target, f"{topic}.z.z") == []
        everybody = [one for one in await who(service.target) if one.client_id.startswith(topic)]
        assert [list(one.filters) for one in everybody] == [[f"{topic}.x.y"], [f"{topic}.*", f"{topic}.x.>"]]
        assert all(one.connected_time_ns > 0 for one in everybody)
        assert await names(service.target, f"{topic}.x.y", page_size=1) == [f"{topic}-a", f"{topic}-b"]
    await until_names(service.target, f"{topic}.x.y", [])


async def test_joined_and_left(service: ServiceProcess, topic: str) -> None:
    client = f"{topic} *.ä"
    async with connected(service.target, "", "", "_presence.>") as watching:
        async with connected(service.target, client, "1", f"{topic}.*"):
            assert await event(watching, topic) == (client, True, [f"{topic}.*"])
        assert await event(watching, topic) == (client, False, [f"{topic}.*"])


async def test_a_quick_reconnect_and_a_handover_are_no_event(tmp_path: Path, topic: str) -> None:
    mark = f"{topic}-mark"
    async with (
        running(MODULE, tmp_path, args=["--presence-grace-s=3"]) as service,  # a slow machine reconnects within it
        connected(service.target, "", "", "_presence.>") as watching,
    ):
        async with connected(service.target, topic, "1", "a"):
            assert await event(watching, topic) == (topic, True, ["a"])
        await asyncio.sleep(0.2)
        async with connected(service.target, topic, "1", "a"):
            await asyncio.sleep(0.2)
            async with connected(service.target, topic, "1", "a"):  # make before break
                await asyncio.sleep(3.5)  # longer than the grace
                async with connected(service.target, mark):
                    assert await event(watching, topic) == (mark, True, [])
                assert await names(service.target, "a") == [topic]


async def test_the_client_library_hears_events(service: ServiceProcess, topic: str) -> None:
    async with NotificationClient(service.target) as watching, watching.subscribe(f"_presence.{topic}") as events:
        for _ in range(2):
            async with NotificationClient(service.target, client_id=topic) as client:
                async with client.subscribe("a.b"):
                    joined = pb.PresenceEvent.FromString((await anext(events)).payload)
                    assert (joined.client_id, joined.joined) == (topic, True)
                    assert [one.client_id async for one in watching.presence("a.b")] == [topic]
                # Records in between move the position, which events do not.
                await client.publish("a.b", b"x")
            left = pb.PresenceEvent.FromString((await anext(events)).payload)
            assert (left.client_id, left.joined) == (topic, False)


async def test_a_window_holds_events_back(service: ServiceProcess, topic: str) -> None:
    async with (
        grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel,
        Stream(channel) as watching,
    ):
        await watching.hello()
        await watching.subscribe(f"_presence.{topic}", window_bytes=1)
        async with connected(service.target, topic, "1", f"{topic}.a"):
            assert await event(watching) == (topic, True, [f"{topic}.a"])
        await until_names(service.target, f"{topic}.a", [])
        await watching.send(ping=pb.Ping(id=1))
        await watching.read("pong")
        assert not [frame for frame in watching.frames if frame.delivery.notifications]
        await watching.send(credit=pb.CreditFrame(subscription="s", bytes=10_000))
        assert await event(watching) == (topic, False, [f"{topic}.a"])


async def test_topics_by_page(service: ServiceProcess, topic: str) -> None:
    """By name, with their records; the system's only where they are asked for; who subscribes here counts."""
    wanted = [f"{topic}.{i:02}" for i in range(25)]
    async with grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel, Stream(channel) as stream:
        await stream.hello()
        await stream.subscribe(f"{topic}.*", name="all")
        await stream.subscribe(f"{topic}.07", name="seven")
        await stream.subscribe(f"{topic}.>", name="shared", group="g")
        await stream.subscribe("elsewhere", name="none")
        await stream.publish(*[note for name in reversed(wanted) for note in notes(name, ["a", "b"])])
        (last,) = (await stream.publish(*notes(wanted[3], ["c"]))).results
        found: list[pb.Topic] = []
        token = ""
        while True:
            request = pb.ListTopicsRequest(filter=f"{topic}.*", page_size=10, page_token=token)
            page = await stub_of(channel).ListTopics(request, timeout=10)
            assert len(page.topics) <= 10
            found += page.topics
            token = page.next_page_token
            if not token:
                break
        assert [one.name for one in found] == wanted
        assert [one.records for one in found] == [2, 2, 2, 3] + [2] * 21
        assert found[3].last_sequence == last.sequence
        assert found[3].first_sequence < found[3].last_sequence
        assert [one.subscribers for one in found] == [2] * 7 + [3] + [2] * 17
        # A poison record gives the system a topic.
        await stream.subscribe("poison", name="p", group="p", max_deliveries=1)
        (result,) = (await stream.publish(*notes("poison", ["x"]))).results
        delivery = pb.Delivery()
        while delivery.subscription != "p" or not delivery.notifications:  # only who holds a record can reject it
            delivery = (await stream.read("delivery")).delivery
        await stream.send(ack=pb.AckFrame(subscription="p", rejected_sequences=[result.sequence]))
        async with asyncio.timeout(10):
            while not (  # noqa: ASYNC110 - nobody tells a test
                page := await stub_of(channel).ListTopics(pb.ListTopicsRequest(filter="_dead.>"))
            ).topics:
                await asyncio.sleep(0.02)
        assert [one.name for one in page.topics] == ["_dead.poison"]
        everything = await stub_of(channel).ListTopics(pb.ListTopicsRequest(page_size=1000))
        assert "poison" in [one.name for one in everything.topics]
        assert not [one.name for one in everything.topics if one.name.startswith("_")]


async def test_what_is_wrong_with_a_question(service: ServiceProcess) -> None:
    async with grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel:
        stub = stub_of(channel)
        for call in (
            stub.ListPresence(pb.ListPresenceRequest(topic="a.*"), timeout=10),
            stub.ListPresence(pb.ListPresenceRequest(page_size=1001), timeout=10),
            stub.ListTopics(pb.ListTopicsRequest(filter="a..b"), timeout=10),
            stub.ListTopics(pb.ListTopicsRequest(page_size=1001), timeout=10),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call
            assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert reason_of(caught.value) == "INVALID_ARGUMENT"
            assert violations_of(caught.value)


async def test_a_foreign_page_token_is_refused(service: ServiceProcess, topic: str) -> None:
    """Also one of the other list."""
    async with (
        grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as channel,
        connected(service.target, f"{topic}-1", "1", topic),
        connected(service.target, f"{topic}-2", "1", topic) as stream,
    ):
        stub = stub_of(channel)
        await until_names(service.target, topic, [f"{topic}-1", f"{topic}-2"])
        await stream.publish(*notes(f"{topic}.a", ["x"]), *notes(f"{topic}.b", ["x"]))
        page = pb.ListTopicsRequest(filter=f"{topic}.*", page_size=1)
        topics = (await stub.ListTopics(page, timeout=10)).next_page_token
        clients = (
            await stub.ListPresence(pb.ListPresenceRequest(topic=topic, page_size=1), timeout=10)
        ).next_page_token
        assert topics
        assert clients
        foreign = ["x", "a.b", f"{topic}.a", "x" * 2000, "\N{SNOWMAN}", "====", "dG9waWMv", f"{topics}A"]
        for method, request, tokens in (
            (stub.ListTopics, pb.ListTopicsRequest, [*foreign, clients]),
            (stub.ListPresence, pb.ListPresenceRequest, [*foreign, topics]),
        ):
            for token in tokens:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method(request(page_token=token), timeout=10)
                assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
                assert violations_of(caught.value) == {"page_token": "is no token of this server's"}
