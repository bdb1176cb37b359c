"""The floor of a fan-out: what raw grpcio, and nats-server without a log, do in the fewest lines.

`python -m tests.bench.floor_fanout HOST:PORT` serves; the functions measure.
"""

import asyncio
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import uvloop

from tests.bench.harness import Stopwatch
from tests.bench.notification_load import channels
from tests.support.nats import NatsServer
from tests.support.ports import free_port

NOTE = b"\n\x40" + b"x" * 64
_PING = b"PING\r\n"


@asynccontextmanager
async def server() -> AsyncIterator[tuple[str, int]]:
    """A floor in a process; its address and process id."""
    address = f"127.0.0.1:{free_port()}"
    process = subprocess.Popen(  # noqa: ASYNC220 - takes a moment, before anything is measured
        [sys.executable, "-m", "tests.bench.floor_fanout", address]
    )
    try:
        async with grpc.aio.insecure_channel(address) as channel, asyncio.timeout(20):
            await channel.channel_ready()
        yield address, process.pid
    finally:
        process.terminate()
        process.wait()


async def fan_out(count: int, messages: int) -> tuple[float, float]:
    """Deliveries and bytes a second to so many subscribers, what waits for each joined."""
    async with server() as (address, _), channels(address, count) as made:
        calls = [made[n % len(made)].unary_stream("/floor/subscribe")(b"") for n in range(count)]
        await asyncio.gather(*(call.read() for call in calls))

        async def drain(call: Any) -> None:
            need = messages * len(NOTE)
            while need > 0:
                need -= len(await call.read())

        watch = Stopwatch()
        publish = made[0].unary_unary("/floor/publish")
        await asyncio.gather(publish(b"%d" % messages), *map(drain, calls))
        rate = watch.rate(count * messages)
        return rate, rate * len(NOTE)


async def ping_pong(rounds: int = 2_000) -> float:
    """Milliseconds of one round on one stream."""
    async with server() as (address, _), channels(address, 1) as made:
        call = made[0].stream_stream("/floor/echo")()
        watch = Stopwatch()
        for _ in range(rounds):
            await call.write(NOTE)
            await call.read()
        call.cancel()
        return watch.elapsed_s / rounds * 1e3


async def nats_fan_out(count: int, messages: int) -> float:
    """Bytes a second from nats-server to so many raw sockets: no client library's cost is counted against it."""
    with tempfile.TemporaryDirectory() as directory:
        nats = NatsServer(Path(directory), jetstream=False)
        nats.start()
        try:
            return await _nats_fan_out(nats.port, count, messages)
        finally:
            nats.kill()


class _Reader(asyncio.Protocol):
    """A subscriber that counts bytes."""

    def __init__(self, need: int) -> None:
        loop = asyncio.get_running_loop()
        self.need, self.got, self._head = need, 0, b""
        self.ready: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.transport.write(b'CONNECT {"verbose":false}\r\nSUB t 1\r\nPING\r\n')

    def connection_lost(self, error: Exception | None) -> None:
        for waiting in (self.ready, self.done):
            if not waiting.done():
                waiting.set_exception(ConnectionError("nats-server has cut a subscriber that it found too slow"))

    def data_received(self, data: bytes) -> None:
        if not self.ready.done():
            self._head += data
            if b"PONG" in self._head:
                self.ready.set_result(None)
        else:
            if data.startswith(_PING):  # what comes in the same piece counts
                self.transport.write(b"PONG\r\n")
                data = data[len(_PING) :]
            self.got += len(data)
            if self.got >= self.need and not self.done.done():
                self.done.set_result(None)


async def _nats_fan_out(port: int, count: int, messages: int) -> float:
    loop = asyncio.get_running_loop()
    size = len(b"MSG t 1 64\r\n\r\n") + 64
    readers = [
        (await loop.create_connection(lambda: _Reader(messages * size), "127.0.0.1", port))[1] for _ in range(count)
    ]
    await asyncio.gather(*(reader.ready for reader in readers))
    stream, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
    await stream.readline()
    block = (b"PUB t 64\r\n" + b"x" * 64 + b"\r\n") * 100
    watch = Stopwatch()
    for _ in range(0, messages, 100):
        writer.write(block)
        await writer.drain()
    await asyncio.gather(*(reader.done for reader in readers))
    rate = watch.rate(count * messages * size)
    writer.close()
    for reader in readers:
        reader.transport.close()
    return rate


def _handlers() -> dict[str, Any]:
    waiting: list[tuple[deque[bytes], asyncio.Event]] = []

    async def subscribe(request: bytes, context: Any) -> AsyncIterator[bytes]:
        queue: deque[bytes] = deque()
        ready = asyncio.Event()
        waiting.append((queue, ready))
        yield b""
        while True:
            if not queue:
                ready.clear()
                await ready.wait()
            message = b"".join(queue)
            queue.clear()
            yield message

    async def publish(request: bytes, context: Any) -> bytes:
        for number in range(int(request)):
            for queue, ready in waiting:
                queue.append(NOTE)
                ready.set()
            if number % 20 == 0:
                await asyncio.sleep(0)
        return b""

    async def echo(requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for message in requests:
            yield message

    return {
        "subscribe": grpc.unary_stream_rpc_method_handler(subscribe),
        "publish": grpc.unary_unary_rpc_method_handler(publish),
        "echo": grpc.stream_stream_rpc_method_handler(echo),
    }


async def _serve(address: str) -> None:
    options = [
        ("grpc.server.max_pending_requests", 100_000),
        ("grpc.server.max_pending_requests_hard_limit", 200_000),
        ("grpc.max_receive_message_length", -1),
    ]
    server = grpc.aio.server(options=options)
    server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("floor", _handlers())])
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1]))
