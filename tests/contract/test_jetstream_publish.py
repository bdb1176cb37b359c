"""Appends in flight on JetStream over what takes long: neither lost, nor stored twice, nor out of order."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from signpost.errors import LogUnavailable, SignpostError
from signpost.log import Append, Appended, Log, LogSettings, Store
from signpost.log.jetstream import JetStreamSettings, JetStreamStore
from signpost.log.jetstream.log import JetStreamLog

from tests.support.nats import NatsServer
from tests.support.proxy import Direction, FaultProxy

# So that a link is kept while nothing passes.
PATIENT = JetStreamSettings(heartbeat_s=10.0, request_timeout_s=20.0, publish_timeout_s=30.0, reconnect_max_s=0.2)
AGAIN_S = 3.3  # what is not answered has been sent again by then


@pytest.fixture
async def proxy(server: NatsServer) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(server.port) as made:
        yield made


async def opened(url: str, settings: LogSettings) -> Store:
    return await JetStreamStore.open(url, [settings], PATIENT)


def submit(log: Log, numbers: range) -> list["asyncio.Future[list[Appended | SignpostError]]"]:
    return [log.submit([Append("a", b"%d" % i)]) for i in numbers]


async def stored(log: Log) -> list[bytes]:
    return [record.payload for record in (await log.read(0)).records]


async def test_a_process_that_was_stopped_takes_in_the_answers_first(server: NatsServer) -> None:
    """Its deadlines are long past when it goes on; the server has been there all the time."""
    brief = JetStreamSettings(publish_timeout_s=2.5)
    async with await JetStreamStore.open(server.url, [LogSettings("notes")], brief) as store:
        log = store["notes"]
        await log.append(Append("a", b"before"))
        answers = submit(log, range(900))
        time.sleep(3.0)  # noqa: ASYNC251 - as SIGSTOP, and a machine that sleeps
        assert [await answer for answer in answers] == [[Appended(i + 2, False)] for i in range(900)]
        assert await stored(log) == [b"before", *(b"%d" % i for i in range(900))]


async def test_what_was_sent_again_and_what_was_not_keep_their_order_over_a_lost_link(proxy: FaultProxy) -> None:
    async with await opened(f"nats://{proxy.target}", LogSettings("notes")) as store:
        log = store["notes"]
        await log.append(Append("a", b"before"))
        proxy.drop(Direction.UP)
        answers = submit(log, range(200))
        await asyncio.sleep(AGAIN_S / 2)
        answers += submit(log, range(200, 400))
        await asyncio.sleep(AGAIN_S / 2)
        proxy.heal()
        proxy.cut_now()
        assert [await answer for answer in answers] == [[Appended(i + 2, False)] for i in range(400)]
        assert await stored(log) == [b"before", *(b"%d" % i for i in range(400))]


@pytest.mark.parametrize("cut", [True, False])
async def test_what_the_server_may_have_forgotten_is_not_sent_again(proxy: FaultProxy, cut: bool) -> None:
    """Its dedupe window is over: a second sending would be a second record."""
    async with await opened(f"nats://{proxy.target}", LogSettings("notes", dedupe_window_s=1.0)) as store:
        log = store["notes"]
        await log.append(Append("a", b"before"))
        proxy.stall(Direction.DOWN)
        answer = log.submit([Append("a", b"0")])
        await asyncio.sleep(AGAIN_S)
        if cut:
            proxy.cut_now()
        proxy.heal()
        (answered,) = await answer
        assert isinstance(answered, LogUnavailable) if cut else answered == Appended(2, False)
        assert (await log.append(Append("a", b"after"))).sequence == 3
        assert await stored(log) == [b"before", b"0", b"after"]


async def test_a_page_has_what_was_acknowledged_though_the_follower_lags(server: NatsServer) -> None:
    """A page that ended where the follower is would look as if it were all; with a filter it would be empty."""
    async with await JetStreamStore.open(server.url, [LogSettings("notes")], PATIENT) as store:
        log = store["notes"]
        assert isinstance(log, JetStreamLog)
        await log.append_many([Append("a", b"%d" % i) for i in range(10)])
        await log.wait_for(10)
        await log._follower.close()
        await log.append_many([Append("b", b"%d" % i) for i in range(10, 20)])
        assert await stored(log) == [b"%d" % i for i in range(20)]
        assert [record.sequence for record in (await log.read(0, subjects="b")).records] == list(range(11, 21))
