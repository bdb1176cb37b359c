"""However a call ends, it is counted as handled once, with the code that the client saw."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from protos.example import greeter_pb2, greeter_pb2_grpc
from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from protos.stream_service import stream_service_pb2, stream_service_pb2_grpc
from tests.support.metrics_text import Samples
from tests.support.services import ServiceProcess
from tests.support.tiny_service import ENDINGS

UNARY = {
    "grpc_type": "unary",
    "grpc_service": "notification.v1.NotificationService",
    "grpc_method": "Publish",
}
SERVER_STREAM = {
    "grpc_type": "server_stream",
    "grpc_service": "stream_service.StreamService",
    "grpc_method": "ListFeatures",
}
BIDI = {"grpc_type": "bidi_stream", "grpc_service": "example.Greeter", "grpc_method": "Chat"}

CODES = {
    "ok": ("OK", "OK"),
    "error": ("NOT_FOUND", "NotFound"),
    "invalid": ("INVALID_ARGUMENT", "InvalidArgument"),
    "abort": ("FAILED_PRECONDITION", "FailedPrecondition"),
    "code": ("DATA_LOSS", "DataLoss"),
    "crash": ("INTERNAL", "Internal"),
    "group": ("NOT_FOUND", "NotFound"),
    "deadline": ("DEADLINE_EXCEEDED", "DeadlineExceeded"),
    "cancel": ("CANCELLED", "Canceled"),
}

Caller = Callable[[ServiceProcess, grpc.aio.Channel, str], Awaitable[tuple[str, int, int]]]
"""Makes one call that ends so; answers the code, and how many messages were sent and received."""


async def call_unary(tiny: ServiceProcess, channel: grpc.aio.Channel, how: str) -> tuple[str, int, int]:
    stub = notification_pb2_grpc.NotificationServiceStub(channel)
    topic = "hang" if how in ("cancel", "deadline") else how
    call = stub.Publish(notification_pb2.PublishRequest(topic=topic), timeout=1.0 if how == "deadline" else 30)
    if how == "cancel":
        async with asyncio.timeout(20):
            while not Samples(await tiny.metrics()).value("signpost_calls_open", **UNARY):  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        call.cancel()
    code = await call.code()
    return code.name, 1, 1 if code.name in ("OK", "DATA_LOSS") else 0


async def call_server_stream(tiny: ServiceProcess, channel: grpc.aio.Channel, how: str) -> tuple[str, int, int]:
    stub = stream_service_pb2_grpc.StreamServiceStub(channel)
    ending = ENDINGS.index("hang" if how in ("cancel", "deadline") else how)
    request = stream_service_pb2.Point(latitude=3, longitude=ending)
    call = stub.ListFeatures(request, timeout=1.0 if how == "deadline" else 30)
    for _ in range(3):
        await call.read()
    if how == "cancel":
        call.cancel()
    return (await call.code()).name, 1, 3


async def call_bidi(tiny: ServiceProcess, channel: grpc.aio.Channel, how: str) -> tuple[str, int, int]:
    stub = greeter_pb2_grpc.GreeterStub(channel)
    call: Any = stub.Chat(None, timeout=1.0 if how == "deadline" else 30)
    contents = ["one", "hang" if how == "deadline" else how]
    for content in contents:
        await call.write(greeter_pb2.MessageRequest(content=content))
        assert (await call.read()).reply == f"Received: {content}"
    if how == "cancel":
        call.cancel()
    elif how in ("ok", "code"):
        await call.done_writing()
    return (await call.code()).name, 2, 2


@pytest.mark.parametrize("how", CODES)
@pytest.mark.parametrize(
    ("labels", "caller"), [(UNARY, call_unary), (SERVER_STREAM, call_server_stream), (BIDI, call_bidi)]
)
async def test_a_call_is_counted_once_however_it_ends(
    tiny: ServiceProcess, channel: grpc.aio.Channel, how: str, labels: dict[str, str], caller: Caller
) -> None:
    seen, name = CODES[how]
    before = Samples(await tiny.metrics())
    code, sent, received = await caller(tiny, channel, how)
    assert code == seen
    after = await counted(tiny, labels)
    assert after.value("signpost_calls_open", **labels) == 0

    def grown(metric: str, **more: str) -> float:
        return after.value(metric, **labels, **more) - before.value(metric, **labels, **more)

    assert grown("grpc_server_started_total") == 1
    codes = [dict(found)["grpc_code"] for found in before.matching("grpc_server_handled_total", **labels)]
    assert len(codes) == 17, "every code is there from the start"
    assert {one for one in codes if grown("grpc_server_handled_total", grpc_code=one)} == {name}
    assert grown("grpc_server_handled_total", grpc_code=name) == 1
    assert grown("grpc_server_handling_seconds_count") == 1
    assert grown("grpc_server_msg_received_total") == sent
    assert grown("grpc_server_msg_sent_total") == received


async def counted(tiny: ServiceProcess, labels: dict[str, str]) -> Samples:
    """The metrics once the call is over on the server too."""
    deadline = time.monotonic() + 20
    while Samples(await tiny.metrics()).value("signpost_calls_open", **labels) and time.monotonic() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0.05)
    return Samples(await tiny.metrics())  # an answer is put together while calls end: one that began after this one


async def status(call: grpc.aio.Call) -> tuple[str, status_pb2.Status]:
    """The text and the rich status of a call."""
    trailers = dict((await call.trailing_metadata()) or ())
    return await call.details(), status_pb2.Status.FromString(bytes(trailers["grpc-status-details-bin"]))


async def test_an_error_carries_its_reason_and_every_violation(channel: grpc.aio.Channel) -> None:
    stub = notification_pb2_grpc.NotificationServiceStub(channel)
    text, rich = await status(stub.Publish(notification_pb2.PublishRequest(topic="invalid")))
    assert text == rich.message == "two fields are wrong"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert rich.details[0].Unpack(info)
    assert rich.details[1].Unpack(bad)
    assert (info.domain, info.reason) == ("signpost", "INVALID_ARGUMENT")
    assert [(v.field, v.description) for v in bad.field_violations] == [("a", "too small"), ("b.c", "odd")]


async def test_an_exception_tells_the_log_everything_and_the_client_nothing(
    tiny: ServiceProcess, channel: grpc.aio.Channel
) -> None:
    stub = stream_service_pb2_grpc.StreamServiceStub(channel)
    request = stream_service_pb2.Point(latitude=1, longitude=ENDINGS.index("crash"))
    call: Any = stub.ListFeatures(request)
    assert (await call.read()).name == "0"
    text, rich = await status(call)
    assert "secret" not in text + str(rich)
    info = error_details_pb2.ErrorInfo()
    assert rich.details[0].Unpack(info)
    assert info.reason == "INTERNAL"
    assert "a secret of the house" in tiny.logs()


async def test_a_method_that_is_not_there_yet_says_so_with_a_reason(channel: grpc.aio.Channel) -> None:
    stub = notification_pb2_grpc.NotificationServiceStub(channel)
    calls: list[grpc.aio.Call] = [
        stub.ListTopics(notification_pb2.ListTopicsRequest()),
        stub.Subscribe(notification_pb2.SubscribeRequest(filter="a")),
        stub.Connect(iter(())),
    ]
    for call in calls:
        assert await call.code() is grpc.StatusCode.UNIMPLEMENTED
        info = error_details_pb2.ErrorInfo()
        assert (await status(call))[1].details[0].Unpack(info)
        assert info.reason == "UNIMPLEMENTED"


def raw_publish(channel: grpc.aio.Channel) -> Callable[[bytes], grpc.aio.UnaryUnaryCall[bytes, bytes]]:
    """The method without protobuf: bytes in, bytes out."""
    return channel.unary_unary("/notification.v1.NotificationService/Publish", bytes, bytes)


async def test_a_malformed_message_is_an_invalid_argument(tiny: ServiceProcess, channel: grpc.aio.Channel) -> None:
    call = raw_publish(channel)(b"\xff\xff\xff")
    assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT
    info = error_details_pb2.ErrorInfo()
    assert (await status(call))[1].details[0].Unpack(info)
    assert info.reason == "MALFORMED_MESSAGE"


async def test_fault_19_a_message_over_the_limit_is_told_the_limit(channel: grpc.aio.Channel) -> None:
    call = raw_publish(channel)(bytes(4 * 1024 * 1024 + 1))
    assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    info = error_details_pb2.ErrorInfo()
    assert (await status(call))[1].details[0].Unpack(info)
    assert info.reason == "TOO_LARGE"
    assert info.metadata["limitBytes"] == str(4 * 1024 * 1024)
