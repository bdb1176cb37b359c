"""A TCP proxy that breaks connections on purpose, deterministically, changed while it runs.

    async with FaultProxy(service.port) as proxy:
        channel = grpc.aio.insecure_channel(proxy.target, ...)
        proxy.cut_after(1_000, Direction.DOWN)   # each new connection dies after 1,000 bytes of answers
        proxy.cut_now()                          # all connections, now
        proxy.stall(Direction.UP)                # nothing passes any more; connections stay open
        proxy.refuse()                           # new connections are reset
        proxy.heal()                             # everything passes again

`UP` is client to server, `DOWN` server to client. Faults apply to the connections that are open and to
those that come, `cut_after` to those that come, each with a count of its own.
"""

import asyncio
import contextlib
import enum
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.support.ports import free_port

_CHUNK = 64 * 1024


class Direction(enum.Enum):
    """Which way bytes go."""

    UP = "client to server"
    DOWN = "server to client"


BOTH = (Direction.UP, Direction.DOWN)


@dataclass(slots=True)
class _Faults:
    """What is wrong in one direction."""

    flowing: asyncio.Event = field(default_factory=asyncio.Event)
    dropping: bool = False
    bytes_per_s: float | None = None
    delay_s: float = 0.0


@dataclass(slots=True, eq=False)
class Connection:
    """One proxied connection: both sockets, and how many bytes have been passed on each way."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    limits: dict[Direction, int | None]
    passed: dict[Direction, int] = field(default_factory=lambda: dict.fromkeys(BOTH, 0))

    def reset(self) -> None:
        """End both sides with a TCP reset, dropping what is buffered."""
        for writer in (self.client, self.server):
            with contextlib.suppress(OSError):
                raw = writer.get_extra_info("socket")
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()


class FaultProxy:
    """Listens on a free loopback port and passes bytes on to `port`. An async context manager."""

    def __init__(self, port: int, host: str = "127.0.0.1", *, listen_port: int | None = None) -> None:
        self.upstream = (host, port)
        self.port = listen_port or free_port()
        self.target = f"127.0.0.1:{self.port}"
        self.connections: set[Connection] = set()
        self.accepted = 0
        self.refused = 0
        self._cuts: dict[Direction, list[int]] = {direction: [] for direction in BOTH}
        self._every: dict[Direction, int | None] = dict.fromkeys(BOTH)
        self._refusing = False
        self._faults = {direction: _Faults() for direction in BOTH}
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: asyncio.Server | None = None
        self.heal()

    # Faults

    def cut_after(self, count: int, *directions: Direction) -> None:
        """End each connection that comes from now on once exactly `count` bytes have passed in a direction:
        the receiver gets those bytes and the end, the sender a reset."""
        for direction in directions or BOTH:
            self._every[direction] = count

    def cut_each(self, counts: Sequence[int], *directions: Direction) -> None:
        """As `cut_after`, but the next connection with the first count, the one after with the second, ...;
        those after the last count are left alone."""
        for direction in directions or BOTH:
            self._cuts[direction] = list(counts)

    def cut_now(self) -> int:
        """Reset every open connection; answers how many."""
        connections = tuple(self.connections)
        for connection in connections:
            connection.reset()
        return len(connections)

    def stall(self, *directions: Direction) -> None:
        """Pass nothing on: the sender's window fills, connections stay open (a frozen peer)."""
        for direction in directions or BOTH:
            self._faults[direction].flowing.clear()

    def drop(self, *directions: Direction) -> None:
        """Read and throw away (a black hole). What was dropped is lost: such connections cannot be healed, cut them."""
        for direction in directions or BOTH:
            self._faults[direction].dropping = True

    def throttle(self, bytes_per_s: float, *directions: Direction) -> None:
        """Pass at most this much on, in bytes a second, on each connection."""
        for direction in directions or BOTH:
            self._faults[direction].bytes_per_s = bytes_per_s

    def delay(self, seconds: float, *directions: Direction) -> None:
        """Hold each chunk (at most 64 KiB) back for so long, one after the other; their order stays."""
        for direction in directions or BOTH:
            self._faults[direction].delay_s = seconds

    def refuse(self) -> None:
        """Reset new connections; those that are open go on."""
        self._refusing = True

    def heal(self) -> None:
        """Take every fault back, planned cuts of connections to come included."""
        self._refusing = False
        for direction in BOTH:
            faults = self._faults[direction]
            faults.flowing.set()
            faults.dropping, faults.bytes_per_s, faults.delay_s = False, None, 0.0
            self._cuts[direction], self._every[direction] = [], None

    # Life

    async def __aenter__(self) -> "FaultProxy":
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        assert self._listener is not None
        self._listener.close()
        self.cut_now()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._listener.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._serve(reader, writer)
        except asyncio.CancelledError:
            pass  # by our own end, the only canceller; asyncio would report it as an unhandled error
        finally:
            self._tasks.discard(task)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refusing:
                raise ConnectionRefusedError
            upstream, server = await asyncio.open_connection(*self.upstream)
        except OSError:
            self.refused += 1
            writer.transport.abort()
            return
        self.accepted += 1
        connection = Connection(writer, server, {direction: self._next_limit(direction) for direction in BOTH})
        self.connections.add(connection)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass(reader, server, connection, Direction.UP))
                group.create_task(self._pass(upstream, writer, connection, Direction.DOWN))
        except* OSError:
            pass  # one side is gone: so shall the other be
        finally:
            self.connections.discard(connection)
            connection.reset()

    def _next_limit(self, direction: Direction) -> int | None:
        planned = self._cuts[direction]
        return planned.pop(0) if planned else self._every[direction]

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, connection: Connection, direction: Direction
    ) -> None:
        """Pass bytes on in one direction until its sender ends or the connection is cut."""
        faults, limit = self._faults[direction], connection.limits[direction]
        while True:
            left = _CHUNK if limit is None else limit - connection.passed[direction]
            if left <= 0:
                # What has been passed on must arrive: a reset would drop it, so end the receiver's side in order.
                await _flush(writer)
                raise ConnectionAbortedError
            await faults.flowing.wait()
            data = await reader.read(min(left, _CHUNK))
            if not data:
                writer.write_eof()
                return
            if faults.delay_s:
                await asyncio.sleep(faults.delay_s)
            await faults.flowing.wait()
            if faults.dropping:
                continue
            if faults.bytes_per_s:
                await asyncio.sleep(len(data) / faults.bytes_per_s)
            connection.passed[direction] += len(data)
            writer.write(data)
            await writer.drain()


async def _flush(writer: asyncio.StreamWriter) -> None:
    """Wait until everything written is with the kernel, then let the peer read it before the end comes."""
    writer.transport.set_write_buffer_limits(0)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
