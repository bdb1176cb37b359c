"""Any interleaving of publish, subscribe, read, ack, disconnect, restart and compaction keeps the promises.

The model is what was published, in order. Ordered, unique and contiguous are checked by every reader on
every delivery; resumable by what each has at the end, over all its disconnects and all restarts.
"""

import asyncio
import random
import tempfile
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from notification_service.cursors import Cursor, cursor_key
from notification_service.hub import Hub, HubSettings
from notification_service.starting import find_place
from signpost.log import LogSettings, Retention, open_store
from signpost.log.base import Log, Store
from signpost.log.jetstream.settings import JetStreamSettings
from signpost.log.subjects import matcher

from protos.notification.v1 import notification_pb2 as pb
from tests.support.nats import NatsServer
from tests.unit.notification.conftest import publication
from tests.unit.notification.reader import Reader

FILTERS = ("a.b", "a.*", "a.>", ">")
TOPICS = ("a", "a.b", "a.c", "a.b.c", "c", "c.d")
KEPT = 60
MANY = 5
SMALL = HubSettings(tail_bytes=3_000, buffer_bytes=600, pause_factor=0.0, max_pause_s=0.0, reads=2)


class Client:
    """A subscriber over all its streams: filter, durable cursor, what it got, from where on."""

    def __init__(self, number: int, pattern: str, durable: bool) -> None:
        self.name, self.pattern, self.durable = f"c{number}", pattern, durable
        self.reader: Reader | None = None
        self.cursor: Cursor | None = None
        self.begun: int | None = None
        self.position = b""
        self.got: dict[int, bytes] = {}
        self.acknowledged = 0
        self.missed: list[tuple[int, int]] = []


class Interleavings(RuleBasedStateMachine):
    """One hub after another on one log; clients come and go."""

    url = "memory:"
    compacts = True

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.directory = tempfile.TemporaryDirectory()
        self.published: dict[int, tuple[str, bytes]] = {}
        self.clients: list[Client] = []
        self.log: Log
        self.hub: Hub
        self.store: Store
        self.running: asyncio.Task[None]

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30):
                await work

        self.runner.run(bounded())

    @initialize()
    def begin(self) -> None:
        self.run(self.open())

    @rule(count=st.integers(1, 40), size=st.sampled_from([0, 10, 200]), chance=st.randoms())
    def publish(self, count: int, size: int, chance: random.Random) -> None:
        self.run(self.append(chance.choices(TOPICS, k=count), size))

    @rule(count=st.integers(1, 10), chance=st.randoms())
    def publish_one_by_one_while_all_read(self, count: int, chance: random.Random) -> None:
        async def work() -> None:
            for _ in range(count):
                await self.append([chance.choice(TOPICS)], 10)
                for client in self.clients:
                    if client.reader is not None and chance.random() < 0.7:
                        self.take(client)

        self.run(work())

    @precondition(lambda self: len(self.clients) < MANY)
    @rule(pattern=st.sampled_from(FILTERS), durable=st.booleans(), earliest=st.booleans())
    def subscribe(self, pattern: str, durable: bool, earliest: bool) -> None:
        client = Client(len(self.clients), pattern, durable)
        self.clients.append(client)
        start = pb.Start(earliest=pb.StartEarliest()) if earliest else pb.Start(new=pb.StartNew())
        self.run(self.connect(client, start))

    @precondition(lambda self: any(c.reader is None for c in self.clients))
    @rule(data=st.data())
    def reconnect(self, data: st.DataObject) -> None:
        away = [client for client in self.clients if client.reader is None]
        client = data.draw(st.sampled_from(away), label="client")
        self.run(self.connect(client, pb.Start(after=pb.Position(token=client.position))))

    @precondition(lambda self: any(c.reader is None and c.durable for c in self.clients))
    @rule(data=st.data())
    def come_back_from_the_cursor(self, data: st.DataObject) -> None:
        away = [client for client in self.clients if client.reader is None and client.durable]
        client = data.draw(st.sampled_from(away), label="client")
        # A program that was started anew: it knows only what it has acknowledged.
        client.got = {s: p for s, p in client.got.items() if s <= client.acknowledged}
        self.run(self.connect(client, pb.Start(cursor=pb.StartCursor())))

    @precondition(lambda self: any(c.reader is not None for c in self.clients))
    @rule(data=st.data(), frames=st.integers(1, 10))
    def read(self, data: st.DataObject, frames: int) -> None:
        here = [client for client in self.clients if client.reader is not None]
        client = data.draw(st.sampled_from(here), label="client")

        async def work() -> None:
            for _ in range(frames):
                self.take(client)
                await asyncio.sleep(0)

        self.run(work())

    @precondition(lambda self: any(c.cursor is not None for c in self.clients))
    @rule(data=st.data())
    def ack(self, data: st.DataObject) -> None:
        here = [client for client in self.clients if client.cursor is not None]
        client = data.draw(st.sampled_from(here), label="client")

        async def work() -> None:
            assert client.cursor is not None
            client.cursor.ack(pb.Position(token=client.position))
            await client.cursor.close()
            client.acknowledged = max(client.acknowledged, client.cursor.sequence)

        self.run(work())

    @precondition(lambda self: any(c.reader is not None for c in self.clients))
    @rule(data=st.data())
    def disconnect(self, data: st.DataObject) -> None:
        here = [client for client in self.clients if client.reader is not None]
        self.run(self.leave(data.draw(st.sampled_from(here), label="client")))

    @rule()
    def restart(self) -> None:
        async def work() -> None:
            await self.shut()
            await self.open()

        self.run(work())

    @rule()
    def progress(self) -> None:
        async def work() -> None:
            self.hub.progress()

        self.run(work())

    @invariant()
    def nobody_gets_what_was_not_published(self) -> None:
        for client in self.clients:
            for sequence, payload in client.got.items():
                assert self.published[sequence][1] == payload

    def teardown(self) -> None:
        try:
            if self.clients:
                self.run(self.finish())
        finally:
            self.runner.run(self.shut())
            self.runner.close()
            self.directory.cleanup()

    async def append(self, topics: list[str], size: int) -> None:
        """Publish, and remember what stands where."""
        number = len(self.published)
        payloads = [b"%d." % (number + n) + bytes(size) for n in range(len(topics))]
        items = [publication(topic, payload) for topic, payload in zip(topics, payloads, strict=True)]
        for topic, payload, answer in zip(topics, payloads, await self.log.append_many(items), strict=True):
            assert not isinstance(answer, Exception)
            self.published[answer.sequence] = (topic, payload)

    async def finish(self) -> None:
        """Everybody comes back and reads to the end: all that matches since the start, but for what gaps told of."""
        last = max(self.published, default=0)
        for client in self.clients:
            if client.reader is None:
                await self.connect(client, pb.Start(after=pb.Position(token=client.position)))
            assert client.reader is not None
            while (client.reader.through or 0) < last:
                self.hub.progress()
                if not self.take(client):
                    await asyncio.sleep(0.001)
            match, begun = matcher(client.pattern), client.begun or 0
            expected = {s: payload for s, (topic, payload) in self.published.items() if s > begun and match(topic)}
            told = {s for s in expected if any(low < s < high for low, high in client.missed)}
            assert set(expected) - told <= set(client.got), "nothing is missed but what a gap told of"
            assert set(client.got) <= set(expected)
            assert not client.missed or self.compacts

    async def connect(self, client: Client, start: pb.Start) -> None:
        if client.durable:
            key = cursor_key(client.name, "s")
            client.cursor = await Cursor.open(self.store["state"], self.log, key, lambda error: None)
        place = await find_place(self.hub, start, client.cursor)
        if client.begun is None:
            client.begun = place.sequence
            client.acknowledged = place.sequence
        if client.cursor is not None:
            await client.cursor.begin(place.position, place.sequence)
        if place.lost is not None:
            requested = client.acknowledged if start.HasField("cursor") else max(client.got, default=client.begun)
            client.missed.append((min(requested, place.sequence), place.sequence + 1))
        client.reader = Reader(self.hub, client.pattern)
        client.reader.begin(place.sequence, place.position)
        client.position = place.position

    def take(self, client: Client) -> bool:
        reader = client.reader
        assert reader is not None
        before, gaps, through = len(reader.records), len(reader.gaps), reader.through or 0
        took = reader.take()
        for record in reader.records[before:]:
            assert record.sequence not in client.got, "each once"
            client.got[record.sequence] = record.payload
        for gap in reader.gaps[gaps:]:
            client.missed.append((through, gap.first_available))
        client.position = reader.position
        return took

    async def leave(self, client: Client) -> None:
        assert client.reader is not None
        client.reader.subscription.close()
        client.reader = None
        if client.cursor is not None:
            await client.cursor.close()
            client.cursor = None

    async def open(self) -> None:
        retention = Retention(max_records=KEPT) if self.compacts else Retention()
        logs = [
            LogSettings("notifications", retention, tail_bytes=2_000),
            LogSettings("state", Retention(max_age_s=3600, keep_last=True)),
        ]
        url = self.url.format(directory=self.directory.name, name=id(self))
        self.store = await self.stack.enter_async_context(open_store(url, logs, settings=self.engine()))
        self.log = self.store["notifications"]
        self.hub = Hub(self.log, SMALL)
        await self.hub.start()
        self.running = asyncio.create_task(self.hub.run())

    def engine(self) -> object:
        """Settings of the engine."""
        return None

    async def shut(self) -> None:
        if not hasattr(self, "running"):
            return
        for client in self.clients:
            if client.reader is not None:
                await self.leave(client)
        self.running.cancel()
        with suppress(asyncio.CancelledError):
            await self.running
        await self.stack.aclose()


class InMemory(Interleavings):
    url = "memory:{name}"


class OnSQLite(Interleavings):
    url = "sqlite:///{directory}/log.db"


FEW = settings(max_examples=15, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck))


def test_interleavings_in_memory() -> None:
    run_state_machine_as_test(InMemory, settings=settings(FEW, max_examples=40))


def test_interleavings_on_sqlite() -> None:
    run_state_machine_as_test(OnSQLite, settings=FEW)


@pytest.mark.long
def test_interleavings_on_jetstream(tmp_path: Path) -> None:
    server = NatsServer(tmp_path)
    server.start()
    try:

        class OnJetStream(Interleavings):
            compacts = False

            def engine(self) -> object:
                return JetStreamSettings(prefix=f"t{id(self)}")

        OnJetStream.url = server.url
        run_state_machine_as_test(OnJetStream, settings=settings(FEW, max_examples=5, stateful_step_count=25))
    finally:
        server.kill()
