"""The wrapper around handlers, on a real server in this process: what the processes' tests cannot reach."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import prometheus_client
import pytest
from signpost import errors
from signpost.server.calls import Calls
from signpost.server.context import EOF
from signpost.server.methods import Kind, Method
from signpost.server.metrics import ServerMetrics
from signpost.server.tracing import Tracing

from tests.support.metrics_text import Samples

MAKERS: dict[Kind, Callable[..., Any]] = {
    Kind.UNARY: grpc.unary_unary_rpc_method_handler,
    Kind.SERVER_STREAM: grpc.unary_stream_rpc_method_handler,
    Kind.CLIENT_STREAM: grpc.stream_unary_rpc_method_handler,
    Kind.BIDI_STREAM: grpc.stream_stream_rpc_method_handler,
}


class Served:
    """One method, served and measured."""

    def __init__(self, kind: Kind, behaviour: Any, *, made_as: Kind | None = None) -> None:
        self.method = Method("test.Service", "Do", kind)
        self.registry = prometheus_client.CollectorRegistry()
        handler = MAKERS[made_as or kind](behaviour)
        self.calls = Calls(
            [self.method],
            [grpc.method_handlers_generic_handler("test.Service", {"Do": handler})],
            metrics=ServerMetrics([self.method], self.registry),
            tracing=Tracing(),
            max_message_bytes=1000,
        )

    @asynccontextmanager
    async def channel(self) -> AsyncIterator[grpc.aio.Channel]:
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((self.calls,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                yield channel
        finally:
            await server.stop(0)

    async def ended(self) -> dict[str, float]:
        """Handled calls by code once none is open, with the messages."""
        labels = {"grpc_type": self.method.kind.value, "grpc_service": "test.Service", "grpc_method": "Do"}
        async with asyncio.timeout(20):
            while True:
                samples = Samples(prometheus_client.generate_latest(self.registry).decode())
                if samples.value("signpost_calls_open", **labels) == 0:
                    break
                await asyncio.sleep(0.01)
        handled = samples.matching("grpc_server_handled_total", **labels)
        figures = {dict(found)["grpc_code"]: value for found, value in handled.items() if value}
        return figures | {
            "received": samples.value("grpc_server_msg_received_total", **labels),
            "sent": samples.value("grpc_server_msg_sent_total", **labels),
        }


async def test_a_client_stream_is_counted_too() -> None:
    async def total(requests: Any, context: Any) -> bytes:
        lengths = [len(request) async for request in requests]
        if sum(lengths) > 5:
            raise errors.TooLarge("all of it", sum(lengths), 5)
        return str(sum(lengths)).encode()

    served = Served(Kind.CLIENT_STREAM, total)
    async with served.channel() as channel:
        stub: Any = channel.stream_unary("/test.Service/Do", bytes, bytes)
        assert await stub(iter([b"ab", b"c"])) == b"3"
        call = stub(iter([b"abc", b"def"]))
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await served.ended() == {"OK": 1, "ResourceExhausted": 1, "received": 4, "sent": 1}


async def test_a_handler_may_read_and_write_by_hand() -> None:
    async def echo(requests: Any, context: Any) -> None:
        while (request := await context.read()) is not EOF:
            await context.write(request)

    served = Served(Kind.BIDI_STREAM, echo)
    async with served.channel() as channel:
        call: Any = channel.stream_stream("/test.Service/Do", bytes, bytes)(iter([b"a", b"b"]))
        assert [answer async for answer in call] == [b"a", b"b"]
        assert await served.ended() == {"OK": 1, "received": 2, "sent": 2}


async def test_a_cancelled_generator_is_closed_before_its_call_ends() -> None:
    order: list[str] = []

    async def endless(request: bytes, context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"x" * 900
        finally:
            await asyncio.sleep(0.05)
            order.append("closed")

    served = Served(Kind.SERVER_STREAM, endless)
    async with served.channel() as channel:
        call: Any = channel.unary_stream("/test.Service/Do", bytes, bytes)(b"")
        for _ in range(10):
            await call.read()
        call.cancel()
        ended = await served.ended()
        order.append("ended")
    assert order == ["closed", "ended"]
    assert ended["Canceled"] == 1


async def test_a_handler_that_swallows_its_cancellation_is_cancelled_all_the_same() -> None:
    begun = asyncio.Event()

    async def stubborn(request: bytes, context: Any) -> bytes:
        begun.set()
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        return b""

    served = Served(Kind.UNARY, stubborn)
    async with served.channel() as channel:
        call: Any = channel.unary_unary("/test.Service/Do", bytes, bytes)(b"")
        await begun.wait()
        call.cancel()
        assert (await served.ended())["Canceled"] == 1


async def test_a_handler_that_fails_while_it_is_cancelled_is_cancelled() -> None:
    begun = asyncio.Event()

    async def clumsy(request: bytes, context: Any) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            raise errors.Internal("on the way out")

    served = Served(Kind.UNARY, clumsy)
    async with served.channel() as channel:
        call: Any = channel.unary_unary("/test.Service/Do", bytes, bytes)(b"")
        await begun.wait()
        call.cancel()
        assert (await served.ended())["Canceled"] == 1


async def test_while_draining_new_calls_are_refused() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return request

    served = Served(Kind.UNARY, answer)
    async with served.channel() as channel:
        stub: Any = channel.unary_unary("/test.Service/Do", bytes, bytes)
        assert await stub(b"a") == b"a"
        served.calls.draining = True
        assert await stub(b"a").code() is grpc.StatusCode.UNAVAILABLE


def test_a_synchronous_handler_is_refused() -> None:
    def synchronous(request: bytes, context: Any) -> bytes:
        return request

    with pytest.raises(TypeError, match="not asynchronous"):
        Served(Kind.UNARY, synchronous)


def test_a_handler_of_another_kind_is_refused() -> None:
    async def answer(request: bytes, context: Any) -> bytes:
        return request

    with pytest.raises(TypeError, match="not unary"):
        Served(Kind.UNARY, answer, made_as=Kind.SERVER_STREAM)
