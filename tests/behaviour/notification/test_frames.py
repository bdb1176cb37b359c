"""The frames of Connect, one by one, against the real service."""

import asyncio
import time
from typing import Any

import grpc
import pytest

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.stream import (
    CURSOR,
    EARLIEST,
    LAST_OF_EACH,
    NEW,
    Stream,
    after,
    notes,
    reason_of,
    violations_of,
)
from tests.support.fields import has_field


async def test_hello_is_answered_with_the_limits(channel: grpc.aio.Channel) -> None:
    async with Stream(channel) as stream:
        welcome = await stream.hello("me", "s1")
    assert (welcome.client_id, welcome.session_id) == ("me", "s1")
    assert welcome.heartbeat_interval_ms == 15_000
    assert welcome.max_record_bytes == 512 * 1024
    assert welcome.head.token


async def test_a_client_without_an_id_is_given_one(channel: grpc.aio.Channel) -> None:
    async with Stream(channel) as one, Stream(channel) as other:
        assert (await one.hello()).client_id != (await other.hello()).client_id


async def test_another_first_frame_ends_the_stream(channel: grpc.aio.Channel) -> None:
    async with Stream(channel) as stream:
        await stream.send(ping=pb.Ping(id=1))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.next()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert reason_of(caught.value) == "HELLO_EXPECTED"
    assert violations_of(caught.value) == {"hello": "must be the first frame, in place of `ping`"}


@pytest.mark.parametrize(
    "hello",
    [
        {"client_id": "x" * 129, "session_id": "s"},
        {"client_id": "c"},
        {"client_id": "c", "session_id": "s", "heartbeat_interval_ms": 1},
    ],
)
async def test_a_wrong_hello_ends_the_stream(channel: grpc.aio.Channel, hello: dict[str, Any]) -> None:
    async with Stream(channel) as stream:
        await stream.send(hello=pb.Hello(**hello))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stream.next()
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        ({"hello": pb.Hello()}, "HELLO_REPEATED"),
        ({}, "FRAME_UNKNOWN"),
        ({"subscribe": pb.SubscribeFrame(subscription="s", filter="a..b")}, "INVALID_ARGUMENT"),
        ({"subscribe": pb.SubscribeFrame(subscription="", filter="a")}, "INVALID_ARGUMENT"),
        ({"subscribe": pb.SubscribeFrame(subscription="s", filter="a", durable=True)}, "INVALID_ARGUMENT"),
        ({"subscribe": pb.SubscribeFrame(subscription="s", filter="a", start=CURSOR)}, "INVALID_ARGUMENT"),
        ({"subscribe": pb.SubscribeFrame(subscription="s", filter="a", window_bytes=0)}, "INVALID_ARGUMENT"),
        ({"subscribe": pb.SubscribeFrame(subscription="s", filter="a", start=after(b"?"))}, "POSITION_MALFORMED"),
        (
            {"subscribe": pb.SubscribeFrame(subscription="s", filter="a", start={"after": {"sequence": 10**9}})},
            "POSITION_AHEAD",  # FAULTS 14
        ),
        ({"unsubscribe": pb.UnsubscribeFrame(subscription="none")}, "SUBSCRIPTION_UNKNOWN"),
        ({"credit": pb.CreditFrame(subscription="none", bytes=1)}, "SUBSCRIPTION_UNKNOWN"),
        ({"ack": pb.AckFrame(subscription="none")}, "SUBSCRIPTION_UNKNOWN"),
        ({"ack": pb.AckFrame(subscription="there")}, "INVALID_ARGUMENT"),
        ({"credit": pb.CreditFrame(subscription="there")}, "INVALID_ARGUMENT"),
        ({"subscribe": pb.SubscribeFrame(subscription="there", filter="a")}, "SUBSCRIPTION_EXISTS"),
        ({"subscribe": pb.SubscribeFrame(subscription="s", filter="a", group="g.*")}, "INVALID_ARGUMENT"),
        ({"subscribe": pb.SubscribeFrame(subscription="s", filter="a", group="g", ack_wait_ms=1)}, "INVALID_ARGUMENT"),
        ({"publish": pb.PublishFrame(id=0, publications=notes("a", ["x"]))}, "INVALID_ARGUMENT"),
        ({"publish": pb.PublishFrame(id=1)}, "INVALID_ARGUMENT"),
    ],
)
async def test_a_wrong_frame_is_answered_and_the_stream_lives(
    stream: Stream, frame: dict[str, Any], reason: str
) -> None:
    await stream.subscribe("there", name="there")
    await stream.send(**frame)
    error = (await stream.read("error")).error
    assert error.error.reason == reason
    assert error.error.message
    if error.error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]:
        (kind,) = frame or [""]
        for field in error.error.metadata:
            assert field in ("hello", "frame") or has_field(frame[kind].DESCRIPTOR, field), field
        assert error.error.metadata, "no field is named"
    await stream.send(ping=pb.Ping(id=7))
    assert (await stream.read("pong")).pong.id == 7


async def test_a_malformed_or_oversized_message_is_answered_and_the_stream_lives(channel: Any) -> None:
    call = channel.stream_stream("/notification.v1.NotificationService/Connect")()
    await call.write(pb.ConnectRequest(hello=pb.Hello()).SerializeToString())
    assert pb.ConnectResponse.FromString(await call.read()).HasField("welcome")
    await call.write(b"\xff\xff\xff")
    assert pb.ConnectResponse.FromString(await call.read()).error.error.reason == "MALFORMED_MESSAGE"
    call.cancel()


async def test_many_subscriptions_on_one_stream(stream: Stream, topic: str) -> None:
    for name in ("one", "two", "three"):
        await stream.subscribe(f"{topic}.{name}", name=name)
    await stream.subscribe(f"{topic}.*", name="all")
    repeated = await stream.subscribe(topic, name="one")
    assert repeated.error.error.reason == "SUBSCRIPTION_EXISTS"
    await stream.publish(*(pb.Publication(topic=f"{topic}.{name}") for name in ("one", "two", "four")))
    got: set[tuple[str, str]] = set()
    while len(got) < 5:
        delivery = (await stream.read("delivery")).delivery
        got |= {(delivery.subscription, n.topic.removeprefix(topic)) for n in delivery.notifications}
    assert got == {("one", ".one"), ("two", ".two"), ("all", ".one"), ("all", ".two"), ("all", ".four")}


async def test_unsubscribe_ends_deliveries(stream: Stream, topic: str) -> None:
    await stream.subscribe(topic, name="s")
    await stream.send(unsubscribe=pb.UnsubscribeFrame(subscription="s"))
    await stream.publish(*notes(topic, ["x"]))
    subscribed = await stream.subscribe(topic, EARLIEST, name="again")
    assert subscribed.subscribed.subscription == "again"
    delivery = (await stream.read("delivery")).delivery
    assert delivery.subscription == "again"


async def test_publishes_are_pipelined_and_answered_in_order(stream: Stream, topic: str) -> None:
    for frame_id in range(1, 301):
        await stream.send(
            publish=pb.PublishFrame(id=frame_id, publications=notes(topic, [str(frame_id)] * (frame_id % 5 + 1)))
        )
    sequences = []
    for frame_id in range(1, 301):
        published = (await stream.read("published")).published
        assert published.id == frame_id
        assert len(published.results) == frame_id % 5 + 1
        sequences += [result.sequence for result in published.results]
    assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))


async def test_ordered_publishes_keep_their_order(stream: Stream, topic: str) -> None:
    await stream.subscribe(f"{topic}.>")
    for frame_id in range(1, 21):
        items = [pb.Publication(topic=f"{topic}.{n % 3}", payload=b"%d" % n) for n in range(10)]
        await stream.send(publish=pb.PublishFrame(id=frame_id, publications=items, ordered=True))
    for frame_id in range(1, 21):
        assert (await stream.read("published")).published.id == frame_id
    got = [int(n.payload) for n in await stream.records(200)]
    assert got == list(range(10)) * 20


async def test_attributes_and_traceparent_come_with_the_payload(stream: Stream, topic: str) -> None:
    await stream.subscribe(topic)
    item = pb.Publication(topic=topic, payload=b"p", attributes={"k": "v"}, message_id="m", traceparent="00-a-b-01")
    await stream.publish(item)
    (record,) = await stream.records(1)
    assert (record.payload, dict(record.attributes), record.message_id, record.traceparent) == (
        b"p",
        {"k": "v"},
        "m",
        "00-a-b-01",
    )
    assert abs(record.time_ns / 1e9 - time.time()) < 60


async def test_an_expired_notification_is_not_delivered(stream: Stream, topic: str) -> None:
    await stream.publish(
        pb.Publication(topic=topic, payload=b"short", ttl_ms=1), pb.Publication(topic=topic, ttl_ms=60_000)
    )
    await asyncio.sleep(0.05)
    await stream.subscribe(topic, EARLIEST)
    (record,) = await stream.records(1)
    assert record.payload == b""
    assert record.expire_time_ns > time.time_ns()


async def test_a_small_window_bounds_the_last_of_each_topic_too(stream: Stream, topic: str) -> None:
    await stream.publish(*[pb.Publication(topic=f"{topic}.{n}", payload=bytes(1000)) for n in range(50)])
    await stream.subscribe(f"{topic}.*", LAST_OF_EACH, window_bytes=1500)
    left, records = 1500, 0
    while records < 50:
        delivery = (await stream.read("delivery")).delivery
        assert left > 0
        assert len(delivery.notifications) == 1
        left, records = left - delivery.ByteSize(), records + 1
        if left <= 0:
            await stream.send(credit=pb.CreditFrame(subscription="s", bytes=1500 - left))
            left = 1500


async def test_the_last_of_each_topic_then_what_is_new(stream: Stream, topic: str) -> None:
    for turn in range(3):
        await stream.publish(*(pb.Publication(topic=f"{topic}.{n}", payload=b"%d" % turn) for n in (5, 3, 9)))
    subscribed = await stream.subscribe(f"{topic}.*", LAST_OF_EACH)
    await stream.publish(pb.Publication(topic=f"{topic}.3", payload=b"new"))
    records = await stream.records(4)
    assert [(n.topic[-1], n.payload) for n in records] == [("5", b"2"), ("3", b"2"), ("9", b"2"), ("3", b"new")]
    await stream.subscribe(f"{topic}.*", after(subscribed.subscribed.position.token), name="resumed")
    resumed = await stream.records(4)
    assert [n.sequence for n in resumed] == [n.sequence for n in records]


async def test_the_last_of_nothing_is_only_what_is_new(stream: Stream, topic: str) -> None:
    await stream.subscribe(topic, LAST_OF_EACH)
    await stream.publish(*notes(topic, ["new"]))
    assert [n.payload for n in await stream.records(1)] == [b"new"]


async def test_a_start_at_a_time(stream: Stream, topic: str) -> None:
    await stream.publish(*notes(topic, ["before"]))
    await asyncio.sleep(0.02)
    now = time.time_ns()
    await stream.publish(*notes(topic, ["since"]))
    await stream.subscribe(topic, pb.Start(time_ns=now))
    assert [n.payload for n in await stream.records(1)] == [b"since"]


async def test_a_plain_sequence_is_a_position_for_people(stream: Stream, topic: str) -> None:
    published = await stream.publish(*notes(topic, ["1", "2", "3"]))
    first = published.results[0].sequence
    await stream.subscribe(topic, pb.Start(after=pb.Position(sequence=first)))
    assert [n.payload for n in await stream.records(2)] == [b"2", b"3"]


async def test_without_credit_nothing_more_is_sent_and_answers_still_come(stream: Stream, topic: str) -> None:
    await stream.subscribe(topic, window_bytes=1)
    for _ in range(10):
        await stream.publish(*notes(topic, ["x" * 100]))
    await stream.send(ping=pb.Ping(id=9))
    await stream.read("pong")
    delivered = [f.delivery for f in stream.frames if f.HasField("delivery") and f.delivery.notifications]
    assert len(delivered) <= 1
    await stream.send(credit=pb.CreditFrame(subscription="s", bytes=1 << 20))
    assert len(await stream.records(10)) == 10


async def test_a_durable_cursor_goes_on_where_it_was_acknowledged(channel: grpc.aio.Channel, topic: str) -> None:
    async with Stream(channel) as stream:
        await stream.hello(topic, "s1")
        await stream.subscribe(topic, CURSOR, durable=True)
        await stream.publish(*notes(topic, map(str, range(10))))
        got: list[pb.Notification] = []
        while len(got) < 10:
            got += (await stream.read("delivery")).delivery.notifications
        await stream.send(ack=pb.AckFrame(subscription="s", through=pb.Position(sequence=got[3].sequence)))
        await stream.send(ping=pb.Ping(id=1))
        await stream.read("pong")
        await stream.call.done_writing()
        with pytest.raises(EOFError):
            await stream.next()
    payloads = [b"0"]
    async with asyncio.timeout(20):
        while payloads[0] == b"0":  # acknowledgements are written soon, not at once
            async with Stream(channel) as stream:
                await stream.hello(topic, "s2")
                await stream.subscribe(topic, CURSOR, durable=True)
                payloads = [n.payload for n in await stream.records(6)]
    assert payloads == [b"4", b"5", b"6", b"7", b"8", b"9"]
    async with Stream(channel) as stream:
        await stream.hello(topic, "s3")
        await stream.subscribe(topic, CURSOR, durable=True)
        await stream.send(ack=pb.AckFrame(subscription="s", through=pb.Position(token=b"?")))
        error = (await stream.read("error")).error.error
        assert (error.reason, list(error.metadata)) == ("POSITION_MALFORMED", ["through.token"])


async def test_half_close_ends_with_ok_once_the_answers_are_out(stream: Stream, topic: str) -> None:
    await stream.subscribe(topic, NEW)
    for frame_id in range(1, 101):
        await stream.send(publish=pb.PublishFrame(id=frame_id, publications=notes(topic, ["x"])))
    await stream.call.done_writing()
    for frame_id in range(1, 101):
        assert (await stream.read("published")).published.id == frame_id
    with pytest.raises(EOFError):
        await stream.read("published")
    assert await stream.call.code() is grpc.StatusCode.OK


async def test_unary_publish_is_idempotent(stream: Stream, topic: str) -> None:
    request = pb.PublishRequest(topic=topic, message_id="m", payload=b"x")
    first, again = await stream.stub.Publish(request), await stream.stub.Publish(request)
    assert (again.sequence, again.duplicate) == (first.sequence, True)
    assert not first.duplicate
    assert first.position == again.position


@pytest.mark.parametrize(
    ("request_", "code", "reason"),
    [
        (pb.PublishRequest(topic="a.*"), grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT"),
        (pb.PublishRequest(topic="_dead.x"), grpc.StatusCode.PERMISSION_DENIED, "SYSTEM_TOPIC"),
        (pb.PublishRequest(topic="a", payload=bytes(600_000)), grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE"),
    ],
)
async def test_unary_publish_refuses(
    stream: Stream, request_: pb.PublishRequest, code: grpc.StatusCode, reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stream.stub.Publish(request_)
    assert caught.value.code() is code
    assert reason_of(caught.value) == reason


async def test_subscribe_gives_the_same_batches(stream: Stream, topic: str) -> None:
    await stream.publish(*notes(topic, ["1", "2"]))
    call: Any = stream.stub.Subscribe(pb.SubscribeRequest(filter=topic, start=EARLIEST))
    assert (await call.read()).HasField("subscribed")
    delivery = (await call.read()).delivery
    assert [n.payload for n in delivery.notifications] == [b"1", b"2"]
    await stream.publish(*notes(topic, ["3"]))
    following = (await call.read()).delivery
    assert following.after == delivery.through
    assert [n.payload for n in following.notifications] == [b"3"]
    call.cancel()


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.SubscribeRequest(filter="a..b"), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.SubscribeRequest(filter="a", start=CURSOR), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.SubscribeRequest(filter="a", start={"after": {"sequence": 10**9}}), grpc.StatusCode.OUT_OF_RANGE),
    ],
)
async def test_subscribe_refuses(stream: Stream, request_: pb.SubscribeRequest, code: grpc.StatusCode) -> None:
    call: Any = stream.stub.Subscribe(request_)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is code
