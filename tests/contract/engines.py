"""The engines of the contract suite behind one small face: open, open again, let time pass."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from uuid import uuid4

from signpost.log import LogSettings, Store, open_store
from signpost.log.jetstream import JetStreamSettings
from signpost.log.memory import MemoryStore, discard
from signpost.log.sqlite import SQLiteStore

from tests.support.nats import NatsServer

EVENTUALLY_S = 30.0
# On a loaded machine a nats-server may answer nothing for longer than an append usually waits.
PATIENT = JetStreamSettings(publish_timeout_s=60.0)


class Engine(ABC):
    """One engine with storage of its own for one test."""

    name: str

    @abstractmethod
    def open(self, *logs: LogSettings) -> AbstractAsyncContextManager[Store]:
        """The store on this test's storage; may be opened again once it is closed."""

    @abstractmethod
    async def wipe(self) -> None:
        """Take the storage away, as an operator does who deletes a log; nothing may have it open."""

    @abstractmethod
    async def advance(self, store: Store, seconds: float) -> None:
        """Let time pass for retention and dedupe windows."""

    @abstractmethod
    async def stop(self) -> None:
        """Let go of what the engine needs."""


class FakeClock:
    """Unix nanoseconds that move when told, and a microsecond at each look."""

    def __init__(self) -> None:
        self.now_ns = time.time_ns()

    def __call__(self) -> int:
        self.now_ns += 1_000
        return self.now_ns


class Memory(Engine):
    name = "memory"

    def __init__(self) -> None:
        self._url = f"memory:{uuid4()}"
        self._clock = FakeClock()

    def open(self, *logs: LogSettings) -> AbstractAsyncContextManager[Store]:
        return open_store(self._url, logs, clock=self._clock)

    async def wipe(self) -> None:
        discard(self._url)

    async def advance(self, store: Store, seconds: float) -> None:
        assert isinstance(store, MemoryStore)
        self._clock.now_ns += int(seconds * 1e9)

    async def stop(self) -> None:
        discard(self._url)


class SQLite(Engine):
    name = "sqlite"

    def __init__(self, directory: Path) -> None:
        self._path = directory / "log.db"
        self.url = f"sqlite:///{self._path}"
        self._clock = FakeClock()

    def open(self, *logs: LogSettings) -> AbstractAsyncContextManager[Store]:
        return open_store(self.url, logs, clock=self._clock)

    async def wipe(self) -> None:
        for path in self._path.parent.glob("log.db*"):
            path.unlink()

    async def advance(self, store: Store, seconds: float) -> None:
        assert isinstance(store, SQLiteStore)
        self._clock.now_ns += int(seconds * 1e9)
        await store.maintain()

    async def stop(self) -> None:
        await self.wipe()


class JetStream(Engine):
    name = "jetstream"

    def __init__(self, directory: Path) -> None:
        self.server = NatsServer(directory / "nats")
        self.server.start()
        self.url = self.server.url

    @asynccontextmanager
    async def open(self, *logs: LogSettings) -> AsyncIterator[Store]:
        async with open_store(self.server.url, logs, settings=PATIENT) as store:
            yield store

    async def wipe(self) -> None:
        import nats

        client = await nats.connect(self.server.url)
        try:
            context = client.jetstream()
            for stream in await context.streams_info():
                await context.delete_stream(stream.config.name or "")
        finally:
            await client.close()

    async def advance(self, store: Store, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def stop(self) -> None:
        self.server.kill()


async def eventually(holds: Callable[[], Awaitable[bool]], what: str) -> None:
    """Return once it holds; engines that expire by themselves do it within moments, not at once."""
    deadline = time.monotonic() + EVENTUALLY_S
    while not await holds():
        assert time.monotonic() < deadline, f"not within {EVENTUALLY_S} s: {what}"
        await asyncio.sleep(0.05)
