"""The seed contracts over plain generic stubs, byte for byte."""

import asyncio
from typing import Any

import grpc
import pytest

from protos.notification.v1 import notification_pb2 as pb
from protos.notification.v1.notification_pb2_grpc import NotificationServiceStub
from tests.behaviour.notification.stream import EARLIEST, Stream

ANSWER = b"\n\x10New Notification"
EOF = grpc.aio.EOF  # type: ignore[attr-defined] # the stubs lack it


def connect(channel: Any) -> Any:
    return channel.stream_stream("/pb.NotificationService/Connect")()


async def test_each_message_is_answered_and_kept(channel: grpc.aio.Channel, stream: Stream) -> None:
    call = connect(channel)
    for text in (b"one", b"", b"three"):
        await call.write(b"\n" + bytes((len(text),)) + text if text else b"")
        assert await call.read() == ANSWER
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK
    await stream.subscribe("_seed.connect", EARLIEST)
    assert [n.payload for n in await stream.records(3)] == [b"one", b"", b"three"]


async def test_a_broadcast_is_pushed_with_no_message_from_the_client(channel: grpc.aio.Channel) -> None:
    call = connect(channel)
    stub = NotificationServiceStub(channel)
    read = asyncio.ensure_future(call.read())
    while not read.done():  # until the stream is up, a broadcast passes it by
        await stub.Publish(pb.PublishRequest(topic="broadcast", payload="für alle".encode()))
        await asyncio.sleep(0.01)
    assert await read == b"\n\x09" + "für alle".encode()
    call.cancel()


async def test_a_broadcast_that_is_not_utf8_is_skipped(channel: grpc.aio.Channel) -> None:
    call = connect(channel)
    await call.write(b"")
    assert await call.read() == ANSWER
    stub = NotificationServiceStub(channel)
    for payload in (b"\xff\xfe", b"next"):
        await stub.Publish(pb.PublishRequest(topic="broadcast", payload=payload))
    assert await call.read() == b"\n\x04next"
    call.cancel()


async def test_half_close_ends_the_call_once_the_answers_are_out(channel: grpc.aio.Channel) -> None:
    call = connect(channel)
    for _ in range(200):
        await call.write(b"\n\x01x")
    await call.done_writing()
    answers = []
    while (message := await call.read()) is not EOF:
        answers.append(message)
    assert answers == [ANSWER] * 200
    assert await call.code() is grpc.StatusCode.OK


async def test_what_is_not_stored_is_not_answered(channel: grpc.aio.Channel) -> None:
    call = connect(channel)
    await call.write(b"\n\x03one")
    assert await call.read() == ANSWER
    await call.write(b"\n\x80\x80\x28" + b"x" * (640 * 1024))  # more than a record may have
    await call.done_writing()
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call.read()
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_chat(channel: Any) -> None:
    call = channel.stream_stream("/example.Greeter/Chat")()
    await call.write(b"\n\x02hi")
    assert await call.read() == b"\n\x0cReceived: hi"
    await call.write(b"")
    assert await call.read() == b"\n\nReceived: "
    await call.done_writing()
    assert await call.read() is EOF
    assert await call.code() is grpc.StatusCode.OK
