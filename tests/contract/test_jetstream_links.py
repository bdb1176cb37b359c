"""The connection to NATS: links that end, handlers that fail, queues that fill."""

import asyncio
import gc
import socket
import struct
from collections.abc import AsyncIterator, Mapping
from typing import Any

import pytest
from nats.aio.client import Client
from signpost.errors import LogUnavailable, ResourceExhausted
from signpost.log import Append, Appended, LogSettings
from signpost.log.group import GroupSettings
from signpost.log.jetstream import JetStreamSettings, JetStreamStore, tasks
from signpost.log.jetstream.connection import Connection

from tests.support.nats import NatsServer

QUICK = JetStreamSettings(heartbeat_s=0.2, request_timeout_s=2.0, publish_timeout_s=3.0, reconnect_max_s=0.2)


@pytest.fixture
async def connection(server: NatsServer) -> AsyncIterator[Connection]:
    made = Connection(server.url, QUICK)
    await made.open()
    yield made
    await made.close()


async def received(queue: "asyncio.Queue[bytes]", count: int) -> list[bytes]:
    async with asyncio.timeout(20):
        return [await queue.get() for _ in range(count)]


async def answer_pings(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """As a NATS server does, until the client goes."""
    while line := await reader.readline():
        if line.startswith(b"PING"):
            writer.write(b"PONG\r\n")
    writer.close()


@pytest.mark.parametrize("tapped", [True, False])
async def test_messages_come_in_order_with_and_without_the_short_way(connection: Connection, tapped: bool) -> None:
    link = connection.link()
    queue: asyncio.Queue[bytes] = asyncio.Queue()

    def on_message(subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        assert (subject, reply) == ("there", "back")
        queue.put_nowait(data)

    await link.subscribe("there", on_message)
    if not tapped:
        link.client.taps.clear()
    for i in range(2000):
        await link.publish("there", b"%d" % i, reply="back")
    assert await received(queue, 2000) == [b"%d" % i for i in range(2000)]


async def test_a_handler_that_fails_costs_the_link_not_the_log(
    connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    link = connection.link()

    def on_message(subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        raise ValueError("as a bug of ours would")

    await link.subscribe("there", on_message)
    asking = asyncio.create_task(link.request("nobody.answers.this"))
    await link.publish("there", b"x")
    async with asyncio.timeout(20):
        await link.lost.wait()
        assert await connection.wait_link() is not link
    with pytest.raises(LogUnavailable):
        await asking
    assert "as a bug of ours would" in caplog.text


GREETING = b'INFO {"server_id":"a","version":"2.9.10","proto":1,"headers":true,"max_payload":1048576}\r\n'


async def test_a_greeting_that_nobody_foresaw_is_not_the_end() -> None:
    """From something between us and the server, say, while that is away."""
    greetings = iter([GREETING, b"INFO []\r\n", b"INFO null\r\n", b"HTTP/1.1 502 Bad Gateway\r\n"])

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(greetings, GREETING))
        await answer_pings(reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        made = Connection(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", QUICK)
        await made.open()
        made.link().drop("as one that is lost")
        async with asyncio.timeout(60):
            await made.wait_link()
        assert next(greetings, None) is None
        await made.close()


async def test_nodes_that_are_gone_are_not_tried_for_ever() -> None:
    """Each greeting names the cluster's nodes as they are: over the weeks there are many that were."""
    turns = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal turns
        turns += 1
        nodes = f'{{"connect_urls":["127.0.0.{turns}:1","{own}"],'
        writer.write(GREETING.replace(b"{", nodes.encode()))
        await answer_pings(reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        own = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        made = Connection(f"nats://user:word@{own}", QUICK)
        await made.open()
        async with asyncio.timeout(60):
            for _ in range(4):
                (await made.wait_link()).drop("as a node that goes")
            await made.wait_link()
        assert sorted(made._servers) == [f"nats://user:word@{own}", f"nats://user:word@127.0.0.{turns}:1"]
        await made.close()


async def test_a_server_that_resets_while_there_is_more_to_send_costs_the_link_and_no_error() -> None:
    """Sending the rest then fails in a task of nats-py's own, before it tells that it has closed."""
    unowned: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unowned.append(context))
    greeted: list[asyncio.StreamWriter] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        greeted.append(writer)
        writer.write(GREETING)
        await answer_pings(reader, writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        made = Connection(f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}", QUICK)
        await made.open()
        async with asyncio.timeout(60):
            for _ in range(3):
                link = await made.wait_link()
                at_once = struct.pack("ii", 1, 0)
                greeted[-1].get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
                greeted[-1].transport.abort()
                while not link.client.is_closed:
                    link.client._pending.append(b"PUB a 1\r\na\r\n")
                    link.client._pending_data_size += 12
                    await asyncio.sleep(0)
                await link.lost.wait()
            await made.wait_link()
        await made.close()
    gc.collect()
    await asyncio.sleep(0)
    assert unowned == []


async def test_a_reader_that_fails_costs_the_link(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """nats-py would stop reading, stay connected, and tell nobody."""

    async def fail(_: bytes) -> None:
        raise KeyError("as a bug of the parser would")

    link = connection.link()
    monkeypatch.setattr(link.client._ps, "parse", fail)
    asking = asyncio.create_task(link.request("nobody.answers.this"))
    async with asyncio.timeout(20):
        await link.lost.wait()
        assert await connection.wait_link() is not link
    with pytest.raises(LogUnavailable):
        await asking


async def test_a_request_that_nobody_serves_fails_at_once(connection: Connection) -> None:
    with pytest.raises(LogUnavailable, match="JetStream"):  # who waits for it in vain is told "does not answer"
        async with asyncio.timeout(20):
            await connection.link().request("nobody.answers.this")


async def test_the_queue_of_appends_is_bounded(server: NatsServer) -> None:
    settings = JetStreamSettings(publish_timeout_s=20.0, max_queue_records=100, max_queue_bytes=10_000)
    async with await JetStreamStore.open(server.url, [LogSettings("notes")], settings) as store:
        log = store["notes"]
        server.freeze()
        waiting = log.submit([Append("a", b"%d" % i) for i in range(100)])
        with pytest.raises(ResourceExhausted) as raised:
            log.submit([Append("a", b"one more")])
        assert raised.value.reason == "LOG_BUSY"
        more = asyncio.create_task(log.append_many([Append("a", b"x" * 20_000)]))
        await asyncio.sleep(0.1)
        assert not more.done()
        server.thaw()
        assert await waiting == [Appended(i + 1, False) for i in range(100)]
        assert await more == [Appended(101, False)]
        large = log.submit([Append("a", b"x" * 9000)])
        with pytest.raises(ResourceExhausted):
            log.submit([Append("a", b"x" * 9000)])
        assert await large == [Appended(102, False)]


@pytest.mark.parametrize(
    "answer",
    [
        b'{"stream":"signpost-notes", "seq":0, "duplicate": true}',
        b'{"error":{"code":409,"err_code":10158,"description":"duplicate message id is in process"},'
        b'"stream":"signpost-notes","seq":0}',
    ],
)
async def test_an_append_whose_like_is_on_its_way_in_a_cluster_waits_for_its_sequence(
    server: NatsServer, answer: bytes
) -> None:
    """So a cluster's leader answers the second of two with one message id, before it has stored the first."""
    async with await JetStreamStore.open(server.url, [LogSettings("notes")]) as store:
        log = store["notes"]
        server.freeze()
        appending = log.submit([Append("a", b"", "id")])
        publisher = log._publisher
        while not publisher._in_flight:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0)
        (number,) = publisher._in_flight
        publisher._on_answer(number, answer)
        assert not appending.done()
        server.thaw()
        (appended,) = await appending
        assert isinstance(appended, Appended)
        assert appended.sequence == 1


async def test_closing_answers_what_waits(server: NatsServer) -> None:
    async with await JetStreamStore.open(server.url, [LogSettings("notes")]) as store:
        futures = [store["notes"].submit([Append("a", b"%d" % i)]) for i in range(1000)]
    answers = [future.result()[0] for future in futures]
    assert answers == [Appended(i + 1, False) for i in range(1000)]
    with pytest.raises(LogUnavailable):
        await store["notes"].bounds()
    assert isinstance((await store["notes"].append_many([Append("a", b"late")]))[0], LogUnavailable)


async def test_a_task_is_stopped_though_its_first_cancellation_is_swallowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As nats-py does with one that meets it while it flushes: a close would wait for ever."""
    monkeypatch.setattr(tasks, "_AGAIN_S", 0.05)
    swallowed = asyncio.Event()

    async def stubborn() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            swallowed.set()
        await asyncio.sleep(60)

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        await tasks.stop(task)
    assert swallowed.is_set()
    assert task.cancelled()


async def test_a_client_that_cannot_be_closed_leaves_no_subscription_running(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(self: Client, *_: object) -> None:
        self._status = Client.CLOSED
        raise ConnectionResetError("unsent data, and nobody to take it")

    def running() -> list[str]:
        names = [task.get_coro().__qualname__ for task in asyncio.all_tasks()]  # type: ignore[union-attr]
        return [name for name in names if name.startswith("Subscription.")]

    assert running()
    monkeypatch.setattr(Client, "_close", fail)
    await connection.close()
    await asyncio.sleep(0)
    assert not running()


@pytest.mark.long
async def test_a_log_is_closed_while_its_server_is_frozen_and_much_is_on_its_way(server: NatsServer) -> None:
    store = await JetStreamStore.open(server.url, [LogSettings("notes")], QUICK)
    server.freeze()
    try:
        waiting = [store["notes"].submit([Append("a", b"x" * 100_000)]) for _ in range(100)]
        await asyncio.sleep(0.2)
        async with asyncio.timeout(QUICK.publish_timeout_s + 5):
            await store.close()
        answers = await asyncio.gather(*waiting)
        assert all(isinstance(answer, LogUnavailable) for (answer,) in answers)
    finally:
        server.thaw()


async def test_a_link_remembers_nobody_who_is_done_with_it(server: NatsServer) -> None:
    """It may last for weeks, and each read of the history has a consumer of its own."""
    async with await JetStreamStore.open(server.url, [LogSettings("notes", tail_bytes=1)], QUICK) as store:
        log = store["notes"]
        await log.append_many([Append("a", b"%d" % i) for i in range(20)])
        await log.wait_for(20)

        async def use() -> int:
            await log.read(0)
            group = await log.open_group(GroupSettings("g", "a", start_after=0), log)
            await group.fetch("member", 1)
            await group.close()
            return len(log._connection.link()._when_lost)

        before = await use()
        for _ in range(5):
            after = await use()
        assert after == before
