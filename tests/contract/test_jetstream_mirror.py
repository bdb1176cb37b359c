"""A stream and the mirror that keeps its last records are one log: what becomes of it when either is lost alone."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import nats
import pytest
from nats.js.api import StreamSource
from nats.js.errors import NotFoundError
from signpost.errors import EpochChanged, LogRefused, LogUnavailable
from signpost.log import Append, Appended, Log, LogSettings, LogState, Retention, Store
from signpost.log.jetstream import JetStreamSettings, JetStreamStore, streams
from signpost.log.jetstream.connection import Link
from signpost.log.jetstream.log import JetStreamLog
from signpost.log.jetstream.streams import StreamState

from tests.contract.engines import eventually
from tests.support.nats import NatsServer, administrator

QUICK = JetStreamSettings(heartbeat_s=0.2, request_timeout_s=5.0, publish_timeout_s=30.0, reconnect_max_s=0.2)
STREAM, MIRROR = "signpost-notes", "signpost-notes-last"
DAY = LogSettings("notes", Retention(max_age_s=86_400.0, keep_last=True))
BRIEF = LogSettings("notes", Retention(max_age_s=1.0, keep_last=True))
SOME_SECONDS = LogSettings("notes", Retention(max_age_s=4.0, keep_last=True))  # eight sweeps


async def opened(server: NatsServer, settings: LogSettings) -> JetStreamStore:
    return await JetStreamStore.open(server.url, [settings], QUICK)


async def fill(log: Log, count: int, what: str = "s") -> None:
    answers = await log.append_many([Append(f"{what}.{i % 3}", b"%d" % i) for i in range(count)])
    assert all(isinstance(answer, Appended) for answer in answers)


async def until_aged_out(log: Log, through: int) -> None:
    async def holds() -> bool:
        return (await log.bounds()).horizon >= through

    await eventually(holds, f"nothing up to {through} is in the stream")


async def until_writable(store: Store) -> None:
    async def holds() -> bool:
        return store.state is LogState.WRITABLE

    await eventually(holds, "the log is followed")


async def kept(log: Log) -> list[int]:
    return [record.sequence for record in (await log.read(0, allow_gaps=True)).records]


@pytest.mark.parametrize("reads", [True, False])
async def test_fault_12_a_lost_mirror_is_another_log(
    server: NatsServer, reads: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """What had aged out is lost with it: every reader is told, in each process, whether it reads that or not."""
    async with await opened(server, BRIEF) as one, await opened(server, BRIEF) as other:
        log, seconds = one["notes"], other["notes"]
        await fill(log, 20)
        await until_aged_out(log, 20)
        assert await kept(log) == await kept(seconds) == [18, 19, 20]
        epoch, token = log.epoch, await log.position(19)
        pages = [each.follow(20, allow_gaps=True) for each in (log, seconds)]
        assert [(await anext(each)).through for each in pages] == [20, 20]
        async with administrator(server) as js:
            await js.delete_stream(MIRROR)
        if reads:
            with pytest.raises(EpochChanged):
                await log.read(0, allow_gaps=True)
        async with asyncio.timeout(60):
            for each in pages:
                with pytest.raises(EpochChanged, match=f"{MIRROR} was made anew"):
                    await anext(each)
        await until_writable(one)
        await until_writable(other)
        assert log.epoch == seconds.epoch != epoch
        with pytest.raises(EpochChanged):
            await log.resolve(token)
        assert "what had aged out of signpost-notes, up to 20, is lost" in caplog.text
        assert (await log.append(Append("s.0", b"", expected_sequence=0))).sequence == 21
        async with asyncio.timeout(60):
            await seconds.wait_for(21)
        assert await kept(log) == await kept(seconds) == [21]
        epoch = log.epoch
    async with await opened(server, BRIEF) as again:
        assert again["notes"].epoch == epoch


async def test_fault_12_a_mirror_that_is_lost_while_no_service_runs(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with await opened(server, BRIEF) as store:
        await fill(store["notes"], 20)
        await until_aged_out(store["notes"], 20)
        token = await store["notes"].position(20)
    async with administrator(server) as js:
        await js.delete_stream(MIRROR)
    async with await opened(server, BRIEF) as store:
        with pytest.raises(EpochChanged):
            await store["notes"].resolve(token)
        assert await kept(store["notes"]) == []
    assert "what had aged out of signpost-notes, up to 20, is lost" in caplog.text


async def test_a_reader_of_a_mirror_that_is_made_anew_under_it_is_told(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, and filled again only in part: a page of that would miss records without a word."""
    async with await opened(server, BRIEF) as store:
        log = store["notes"]
        assert isinstance(log, JetStreamLog)
        await fill(log, 20)
        await until_aged_out(log, 20)
        assert await kept(log) == [18, 19, 20]
        fetch = log._cursors.fetch

        async def in_the_meantime(*args: Any, **kwargs: Any) -> Any:
            monkeypatch.setattr(log._cursors, "fetch", fetch)
            async with administrator(server) as js:
                config = (await js.stream_info(MIRROR)).config
                await js.delete_stream(MIRROR)
                await js.add_stream(config)
            return await fetch(*args, **kwargs)

        monkeypatch.setattr(log._cursors, "fetch", in_the_meantime)
        with pytest.raises(EpochChanged):
            await log.read(0, allow_gaps=True)


@pytest.mark.parametrize("what", ["last_of_each", "subjects", "last"])
async def test_that_there_is_nothing_is_not_said_of_a_mirror_that_is_another_one(server: NatsServer, what: str) -> None:
    """Made anew by another process, which nobody has noticed here yet."""
    async with await opened(server, BRIEF) as store:
        log = store["notes"]
        await fill(log, 20)
        await until_aged_out(log, 20)
        epoch = log.epoch
        asked: dict[str, Callable[[], Awaitable[object]]] = {
            "last_of_each": log.last_of_each,
            "subjects": log.subjects,
            "last": lambda: log.last("s.0"),
        }
        assert await asked[what]()
        async with administrator(server) as js:
            config = (await js.stream_info(MIRROR)).config
            await js.delete_stream(MIRROR)
            await js.add_stream(config)
            with contextlib.suppress(LogUnavailable, EpochChanged):
                assert not await asked[what]()
                assert log.epoch != epoch
        await until_writable(store)


async def test_a_stream_that_is_lost_alone_takes_its_mirror_with_it(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The mirror went on after its own last record: it kept what the new stream never had, and lost what that had."""
    async with await opened(server, BRIEF) as store:
        log = store["notes"]
        await fill(log, 20, "old")
        await until_aged_out(log, 20)
        pages = log.follow(20, allow_gaps=True)
        await anext(pages)
        async with administrator(server) as js:
            await js.delete_stream(STREAM)
        async with asyncio.timeout(60):
            with pytest.raises(EpochChanged, match=f"{STREAM} was made anew"):
                await anext(pages)
        await fill(log, 6, "new")
        await until_aged_out(log, 6)
        records = (await log.read(0, allow_gaps=True)).records
        assert [(record.sequence, record.subject) for record in records] == [(4, "new.0"), (5, "new.1"), (6, "new.2")]
        assert await log.last("old.0") is None
        assert "its mirror's 3 records of the one before are lost too" in caplog.text


async def test_a_mirror_of_another_stream_is_refused_and_not_touched(server: NatsServer) -> None:
    async with await opened(server, DAY) as store:
        await fill(store["notes"], 5)
    async with administrator(server) as js:
        config = (await js.stream_info(STREAM)).config
        await js.delete_stream(STREAM)
        await js.add_stream(config)
        with pytest.raises(LogRefused, match=f"{MIRROR} is not the mirror of {STREAM}"):
            await opened(server, DAY)
        assert (await js.stream_info(MIRROR)).state.messages == 3
        await js.delete_stream(MIRROR)
        async with await opened(server, DAY) as store:
            assert await store["notes"].append(Append("a", b"first")) == Appended(1, False)


async def test_a_mirror_of_another_stream_that_comes_while_a_service_runs_is_waited_for(server: NatsServer) -> None:
    async with await opened(server, DAY) as store:
        log = store["notes"]
        await fill(log, 5)
        async with administrator(server) as js:
            streams = [(await js.stream_info(name)).config for name in (STREAM, MIRROR)]
            await js.delete_stream(MIRROR)
            await js.delete_stream(STREAM)
            with contextlib.suppress(NotFoundError):  # the service may have been quicker
                await js.delete_stream(MIRROR)
            for config in streams:
                await js.add_stream(config)
            await eventually(lambda: is_not(store, LogState.WRITABLE), "the log is not followed")
            with pytest.raises(LogUnavailable):
                await log.bounds()
            await js.delete_stream(MIRROR)
        await until_writable(store)
        assert await log.append(Append("a", b"first")) == Appended(1, False)


async def is_not(store: Store, state: LogState) -> bool:
    await asyncio.sleep(0)
    return store.state is not state


@pytest.mark.parametrize("catches_up", [True, False])
async def test_a_mirror_that_retention_has_overtaken_is_told(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, catches_up: bool
) -> None:
    """One that cannot reach its stream for longer than the history, whether anybody looks before it goes on after what
    it has missed, or not; here it is only made to look so."""
    state = streams.state

    async def behind(link: Link, name: str) -> StreamState | None:
        found = await state(link, name)
        if name != MIRROR or found is None:
            return found
        stream = await state(link, STREAM)
        return found if catches_up and stream is not None and stream.first > 1 else found._replace(last=2)

    async with await opened(server, SOME_SECONDS) as store:
        await fill(store["notes"], 20)
        await until_aged_out(store["notes"], 20)
        assert "may be lost" not in caplog.text
    async with administrator(server) as js:
        for name in (MIRROR, STREAM):
            await js.delete_stream(name)
    async with await opened(server, SOME_SECONDS) as store:
        monkeypatch.setattr(streams, "state", behind)
        await fill(store["notes"], 20)

        async def told() -> bool:
            text = f"{STREAM} has let go of records up to 20, of which its mirror was seen with those up to 2:"
            return text in caplog.text

        await eventually(told, "the log says so")


async def test_a_log_is_open_once_its_mirror_copies(server: NatsServer) -> None:
    """Until then records could age out that the mirror never had. Here it was there before its stream, and looks for
    that again after two seconds; on a busy server the first look alone may take as long."""
    async with administrator(server) as js:
        await js.add_stream(
            name=MIRROR,
            description="Signpost log, format 1",
            mirror=StreamSource(name=STREAM),
            max_msgs_per_subject=1,
            storage="file",
            num_replicas=1,
            max_age=0,
        )
        async with await opened(server, BRIEF) as store:
            log = store["notes"]
            await fill(log, 20)
            await until_aged_out(log, 20)
            assert await kept(log) == [18, 19, 20]
            assert [record.subject for record in await log.last_of_each()] == ["s.0", "s.1", "s.2"]


async def test_a_mirror_is_not_purged_by_mistake(server: NatsServer) -> None:
    """It would not copy again what the stream still has, and lose it as it ages out."""
    async with await opened(server, DAY) as store:
        await fill(store["notes"], 5)
        async with administrator(server) as js:
            with pytest.raises(nats.js.errors.APIError, match="purge"):
                await js.purge_stream(MIRROR)


@pytest.mark.parametrize("emptied", [False, True])
async def test_a_mirror_of_an_earlier_release_is_taken_as_it_is(server: NatsServer, emptied: bool) -> None:
    """It does not say whose it is; that it is another stream's shows where it is ahead of this one."""
    async with await opened(server, DAY) as store:
        await fill(store["notes"], 5)
    async with administrator(server) as js:
        configs = [(await js.stream_info(name)).config for name in (STREAM, MIRROR)]
        configs[1].description = "Signpost log, format 1"
        configs[1].deny_purge = False
        await js.delete_stream(MIRROR)
        await js.add_stream(configs[1])

        async def copied() -> bool:
            return bool((await js.stream_info(MIRROR)).state.messages == 3)

        await eventually(copied, "the mirror has all")
        if emptied:
            await js.delete_stream(STREAM)
            await js.add_stream(configs[0])
            with pytest.raises(LogRefused, match=f"{MIRROR} is not the mirror"):
                await opened(server, DAY)
            return
    async with await opened(server, DAY) as store:
        assert await kept(store["notes"]) == [1, 2, 3, 4, 5]
