"""The three seed contracts against the real services, byte for byte, over stubs that know no protobuf.

The bytes are written out here, so that neither a generated class nor a changed proto can hide a difference.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import pytest

from protos.feature.v1 import feature_pb2, feature_pb2_grpc
from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from tests.behaviour.notification.stream import violations_of
from tests.support.services import ServiceProcess

LIST_FEATURES = "/stream_service.StreamService/ListFeatures"
CONNECT = "/pb.NotificationService/Connect"
EOF: object = grpc.aio.EOF  # type: ignore[attr-defined] # the stubs lack it
CHAT = "/example.Greeter/Chat"

PLACES = [
    ("Paris", 488_566_000, 23_522_000),
    ("Lyon", 457_640_000, 48_357_000),
    ("Sydney", -338_688_000, 1_512_093_000),
]


@pytest.fixture(scope="module")
def feature(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    yield from started(ServiceProcess("feature_service", tmp_path_factory.mktemp("feature")))


@pytest.fixture(scope="module")
def notification(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    yield from started(ServiceProcess("notification_service", tmp_path_factory.mktemp("notification")))


def started(service: ServiceProcess) -> Iterator[ServiceProcess]:
    try:
        asyncio.run(service.start())
        yield service
    finally:
        service.kill()


def varint(number: int) -> bytes:
    """Protobuf's; negative numbers as 64 bits."""
    number &= (1 << 64) - 1
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*encoded, number])


def text(value: str) -> bytes:
    """A message whose field 1 is a string."""
    data = value.encode()
    return b"\x0a" + varint(len(data)) + data


def point(latitude: int, longitude: int) -> bytes:
    """Point{1: int32, 2: int32}."""
    return b"\x08" + varint(latitude) + b"\x10" + varint(longitude)


def place(name: str, latitude: int, longitude: int) -> bytes:
    """Feature{1: string, 2: Point}."""
    location = point(latitude, longitude)
    return text(name) + b"\x12" + varint(len(location)) + location


@pytest.fixture
async def chat_channel(notification: ServiceProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(notification.target) as channel:
        yield channel


def raw_stream(channel: grpc.aio.Channel, method: str) -> Any:
    """A bidirectional call, bytes in, bytes out."""
    return channel.stream_stream(method, bytes, bytes)(None, timeout=20)


async def test_list_features_answers_one_feature_a_message_nearest_first(feature: ServiceProcess) -> None:
    async with grpc.aio.insecure_channel(feature.target) as channel:
        stub = feature_pb2_grpc.FeatureServiceStub(channel)
        for name, latitude, longitude in PLACES:
            location = feature_pb2.Point(latitude=latitude, longitude=longitude)
            await stub.PutFeature(
                feature_pb2.PutFeatureRequest(feature=feature_pb2.Feature(id=name, name=name, location=location))
            )
        call: Any = channel.unary_stream(LIST_FEATURES, bytes, bytes)
        near_lyon = [message async for message in call(point(457_000_000, 48_000_000), timeout=20)]
        assert near_lyon == [place(*PLACES[1]), place(*PLACES[0]), place(*PLACES[2])]
        near_sydney = [message async for message in call(point(-330_000_000, 1_510_000_000), timeout=20)]
        assert near_sydney[0] == place(*PLACES[2])


async def test_list_features_answers_exactly_the_seed_bytes(feature: ServiceProcess) -> None:
    """A client of the seed gets the seed's fields and no others."""
    async with grpc.aio.insecure_channel(feature.target) as channel:
        stub = feature_pb2_grpc.FeatureServiceStub(channel)
        location = feature_pb2.Point(latitude=-900_000_000, longitude=-1_800_000_000)
        await stub.PutFeature(
            feature_pb2.PutFeatureRequest(feature=feature_pb2.Feature(id="pole", name="Südpol", location=location))
        )
        call: Any = channel.unary_stream(LIST_FEATURES, bytes, bytes)(point(-900_000_000, 0), timeout=20)
        first = await call.read()
        call.cancel()
        assert first == place("Südpol", -900_000_000, -1_800_000_000)


async def test_list_features_refuses_a_point_off_the_sphere(feature: ServiceProcess) -> None:
    async with grpc.aio.insecure_channel(feature.target) as channel:
        call: Any = channel.unary_stream(LIST_FEATURES, bytes, bytes)(point(900_000_001, 0), timeout=20)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call.read()
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert violations_of(refused.value) == {"latitude": "must be from -900000000 to 900000000"}


async def test_connect_answers_each_request_and_half_close_ends_it(chat_channel: grpc.aio.Channel) -> None:
    call = raw_stream(chat_channel, CONNECT)
    for message in ("one", "", "drei äöü"):
        await call.write(text(message) if message else b"")
    await call.done_writing()
    answers = [answer async for answer in call]
    assert answers == [b"\x0a\x10New Notification"] * 3
    assert await call.code() is grpc.StatusCode.OK


async def test_connect_appends_each_request_to_its_topic(chat_channel: grpc.aio.Channel) -> None:
    stub = notification_pb2_grpc.NotificationServiceStub(chat_channel)
    request = notification_pb2.SubscribeRequest(filter="_seed.connect")
    watching: Any = stub.Subscribe(request, timeout=20)
    assert (await watching.read()).HasField("subscribed")
    call = raw_stream(chat_channel, CONNECT)
    await call.write(text("hello"))
    assert await call.read() == b"\x0a\x10New Notification"
    frame = await watching.read()
    while not frame.delivery.notifications:
        frame = await watching.read()
    assert frame.delivery.notifications[0].topic == "_seed.connect"
    assert b"hello" in frame.delivery.notifications[0].payload
    watching.cancel()
    call.cancel()


async def test_connect_pushes_what_is_broadcast_with_no_message_from_the_client(
    chat_channel: grpc.aio.Channel,
) -> None:
    call = raw_stream(chat_channel, CONNECT)
    await asyncio.wait_for(call.wait_for_connection(), 10)
    stub = notification_pb2_grpc.NotificationServiceStub(chat_channel)
    reading = asyncio.create_task(call.read())
    payloads = [b"pushed", b"\xff\xfe no UTF-8", "again äöü".encode()]
    while not reading.done():  # the stream's subscription begins a moment after the call
        await stub.Publish(notification_pb2.PublishRequest(topic="broadcast", payload=b"are you there"))
        await asyncio.wait((reading,), timeout=0.2)
    assert reading.result() == text("are you there")
    for payload in payloads:
        await stub.Publish(notification_pb2.PublishRequest(topic="broadcast", payload=payload))
    received: list[bytes] = []
    while len(received) < 2:
        message = await call.read()
        if message != text("are you there"):
            received.append(message)
    assert received == [text("pushed"), text("again äöü")], "what is not UTF-8 is skipped"
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK


async def test_chat_answers_what_it_received_and_half_close_ends_it(chat_channel: grpc.aio.Channel) -> None:
    call = raw_stream(chat_channel, CHAT)
    for content in ("hi", "", "naïve ☃", "x" * 100_000):
        await call.write(text(content) if content else b"")
        assert await call.read() == text(f"Received: {content}")
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK
