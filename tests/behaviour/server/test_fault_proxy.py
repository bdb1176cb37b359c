"""The fault proxy does what it says: tests that rest on it must not pass for its faults."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.support.ports import free_port
from tests.support.proxy import Direction, FaultProxy


@asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A server that sends back what it gets; answers its port."""
    writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    port = free_port()
    server = await asyncio.start_server(serve, "127.0.0.1", port)
    try:
        yield port
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await server.wait_closed()


@asynccontextmanager
async def through(proxy: FaultProxy) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.fixture
async def proxy() -> AsyncIterator[FaultProxy]:
    async with echo() as port, FaultProxy(port) as made:
        yield made


async def test_passes_everything_unchanged(proxy: FaultProxy) -> None:
    data = bytes(range(256)) * 4096
    async with through(proxy) as (reader, writer):
        writer.write(data)
        writer.write_eof()
        assert await reader.read(-1) == data
    assert proxy.accepted == 1


@pytest.mark.parametrize("count", [0, 1, 9, 10_000, 65_536, 100_001])
async def test_cuts_after_exactly_so_many_bytes_of_answers(proxy: FaultProxy, count: int) -> None:
    proxy.cut_after(count, Direction.DOWN)
    for _ in range(2):  # each connection has a count of its own
        async with through(proxy) as (reader, writer):
            received = bytearray()
            with contextlib.suppress(ConnectionError):
                writer.write(b"x" * 150_000)
                while data := await reader.read(65_536):
                    received += data
            assert len(received) == count


async def test_cuts_upwards_after_so_many_bytes_of_requests(proxy: FaultProxy) -> None:
    proxy.cut_after(100, Direction.UP)
    async with through(proxy) as (reader, writer):
        writer.write(b"x" * 1000)
        with contextlib.suppress(ConnectionError):
            assert len(await reader.read(-1)) <= 100


async def test_cuts_each_connection_by_a_plan_and_then_leaves_them_alone(proxy: FaultProxy) -> None:
    proxy.cut_each([10, 20], Direction.DOWN)
    lengths = []
    for _ in range(3):
        async with through(proxy) as (reader, writer):
            writer.write(b"x" * 50)
            writer.write_eof()
            received = b""
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(100):
                    received += data
            lengths.append(len(received))
    assert lengths == [10, 20, 50]


async def test_cut_now_resets_every_open_connection(proxy: FaultProxy) -> None:
    async with through(proxy) as (reader, writer), through(proxy) as (other, _):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"
        while len(proxy.connections) < 2:  # noqa: ASYNC110 - the second connection's server side comes when it comes
            await asyncio.sleep(0.01)
        assert proxy.cut_now() == 2
        for one in (reader, other):
            with pytest.raises(ConnectionResetError):
                await one.readexactly(1)


async def test_a_stall_keeps_connections_open_and_loses_nothing(proxy: FaultProxy) -> None:
    async with through(proxy) as (reader, writer):
        proxy.stall(Direction.DOWN)
        writer.write(b"later")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await reader.readexactly(1)
        proxy.heal()
        assert await reader.readexactly(5) == b"later"


async def test_a_black_hole_swallows(proxy: FaultProxy) -> None:
    async with through(proxy) as (reader, writer):
        writer.write(b"x")
        assert await reader.readexactly(1) == b"x"  # both sides are connected
        proxy.drop(Direction.UP)
        writer.write(b"lost")
        await asyncio.sleep(0.1)
        proxy.heal()
        writer.write(b"found")
        assert await reader.readexactly(5) == b"found"


async def test_throttles_and_delays(proxy: FaultProxy) -> None:
    proxy.throttle(100_000, Direction.UP)
    proxy.delay(0.1, Direction.DOWN)
    async with through(proxy) as (reader, writer):
        began = time.monotonic()
        writer.write(b"x" * 20_000)
        await reader.readexactly(20_000)
        assert time.monotonic() - began >= 0.25


async def test_refuses_new_connections_and_keeps_the_old(proxy: FaultProxy) -> None:
    async with through(proxy) as (reader, writer):
        writer.write(b"a")
        assert await reader.readexactly(1) == b"a"
        proxy.refuse()
        async with through(proxy) as (refused, _):
            with contextlib.suppress(ConnectionResetError):
                assert await refused.read(1) == b""
        assert proxy.refused == 1
        writer.write(b"b")
        assert await reader.readexactly(1) == b"b"


async def test_a_dead_server_is_a_refusal() -> None:
    async with FaultProxy(free_port()) as proxy, through(proxy) as (reader, _):
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read(1) == b""
        assert proxy.refused == 1
