"""The floor: what raw grpcio does on this machine, in the fewest lines, in a process of its own.

    async with Floor() as floor:
        rate = await floor.stream(1_000_000, 1000)

Its server knows nothing but bytes: `stream` sends copies of one small feature, `fixed` whatever it was
told to keep.
"""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import uvloop

from tests.bench.harness import Stopwatch
from tests.support.ports import free_port

FEATURE = b"\n\x08Feature1\x12\x0c\x08\x80\xab\xd1\xf4\x01\x10\x80\xab\xd1\xf4\x01"


class Floor:
    """A floor's server, and a channel to it."""

    async def __aenter__(self) -> "Floor":
        address = f"127.0.0.1:{free_port()}"
        self._process = subprocess.Popen(  # noqa: ASYNC220 - takes a moment, before anything is measured
            [sys.executable, "-m", "tests.bench.floor", address]
        )
        self.channel: Any = grpc.aio.insecure_channel(address)
        async with asyncio.timeout(20):
            await self.channel.channel_ready()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        self._process.terminate()
        self._process.wait()

    async def stream(self, count: int, per_message: int) -> float:
        """Features a second on one stream, so many a message; the client looks at no more than the length."""
        call = self.channel.unary_stream("/floor/stream")
        watch, total = Stopwatch(), 0
        async for message in call(b"%d %d" % (count, per_message)):
            total += len(message) // len(FEATURE)
        return watch.rate(total)

    async def keep(self, messages: "list[bytes]") -> None:
        """What `fixed` is to send from now on."""
        await self.channel.unary_unary("/floor/forget")(b"")
        for message in messages:
            await self.channel.unary_unary("/floor/keep")(message)

    async def fixed(self, request: bytes) -> int:
        """Ask for the kept messages on a stream; answers how many bytes came."""
        total = 0
        async for message in self.channel.unary_stream("/floor/fixed")(request):
            total += len(message)
        return total


def _handlers() -> dict[str, Any]:
    kept: list[bytes] = []

    async def stream(request: bytes, context: Any) -> AsyncIterator[bytes]:
        count, per_message = map(int, request.split())
        message = FEATURE * per_message
        for _ in range(count // per_message):
            yield message

    async def forget(request: bytes, context: Any) -> bytes:
        kept.clear()
        return b""

    async def keep(request: bytes, context: Any) -> bytes:
        kept.append(request)
        return b""

    async def fixed(request: bytes, context: Any) -> AsyncIterator[bytes]:
        for message in kept:
            yield message

    return {
        "stream": grpc.unary_stream_rpc_method_handler(stream),
        "forget": grpc.unary_unary_rpc_method_handler(forget),
        "keep": grpc.unary_unary_rpc_method_handler(keep),
        "fixed": grpc.unary_stream_rpc_method_handler(fixed),
    }


async def _serve(address: str) -> None:
    server = grpc.aio.server(options=[("grpc.max_receive_message_length", -1)])
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("floor", _handlers())])
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
