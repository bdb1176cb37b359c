"""FAULTS 26 and 12 on JetStream: the server goes, comes back, forgets, or is another one.

The first four are faults that were measured on a client library's own consumer and publish; here each
must come out as the log promises.
"""

import asyncio
import contextlib
import dataclasses
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from pathlib import Path

import pytest
from signpost.errors import EpochChanged, LogRewound, LogUnavailable, PositionCompacted, StorageFull
from signpost.log import Append, Appended, Log, LogSettings, LogState, Page, Retention, Store
from signpost.log.jetstream import JetStreamSettings, JetStreamStore
from signpost.log.jetstream.cursors import _PULL_BYTES
from signpost.log.jetstream.log import JetStreamLog

from tests.support.nats import NatsServer, administrator

QUICK = JetStreamSettings(heartbeat_s=0.2, request_timeout_s=1.0, publish_timeout_s=30.0, reconnect_max_s=0.2)
STREAM = "signpost-notes"


@pytest.fixture
async def store(server: NatsServer) -> AsyncIterator[Store]:
    async with await JetStreamStore.open(server.url, [LogSettings("notes")], QUICK) as opened:
        yield opened


@contextlib.contextmanager
def elsewhere(server: NatsServer) -> Iterator[NatsServer]:
    """The stopped server's store, served on another port, where the test's own process cannot see it."""
    other = NatsServer(server.directory)
    other.start()
    try:
        yield other
    finally:
        other.stop()
        server.write_config()


async def until(log: Log, state: LogState, within_s: float = 30.0) -> None:
    deadline = time.monotonic() + within_s
    while log.state is not state:
        assert time.monotonic() < deadline, f"not {state} within {within_s} s, but {log.state}"
        await asyncio.sleep(0.02)


async def fill(log: Log, count: int, start: int = 0) -> None:
    answers = await log.append_many([Append(f"s.{i % 3}", b"%d" % i) for i in range(start, start + count)])
    assert all(isinstance(answer, Appended) for answer in answers)


async def take(pages: AsyncGenerator[Page, None], until_sequence: int, within_s: float = 30.0) -> list[int]:
    found: list[int] = []
    async with asyncio.timeout(within_s):
        while not found or found[-1] < until_sequence:
            found += [record.sequence for record in (await anext(pages)).records]
    return found


async def test_fault_26_an_idle_follower_is_not_sent_everything_again(server: NatsServer, store: Store) -> None:
    log = store["notes"]
    await fill(log, 100)
    pages = log.follow(0)
    assert await take(pages, 100) == list(range(1, 101))
    for turn in range(3):
        server.restart()
        await asyncio.sleep(0.5)
        await fill(log, 10, 100 + 10 * turn)
        first = 101 + 10 * turn
        assert await take(pages, first + 9) == list(range(first, first + 10))


async def test_fault_26_a_recreated_stream_is_told_never_skipped_into(server: NatsServer, store: Store) -> None:
    log = store["notes"]
    await fill(log, 20)
    pages = log.follow(0)
    await take(pages, 20)
    epoch, token = log.epoch, await log.position(5)
    async with administrator(server) as js:
        config = (await js.stream_info(STREAM)).config
        await js.delete_stream(STREAM)
        await js.add_stream(config)
        for i in range(30):
            await js.publish("signpost.notes.other", b"%d" % i)
    with pytest.raises(EpochChanged):
        await take(pages, 50)
    await until(log, LogState.WRITABLE)
    assert log.epoch != epoch
    with pytest.raises(EpochChanged):
        await log.resolve(token)
    assert [record.sequence for record in (await log.read(0)).records] == list(range(1, 31))


async def test_fault_26_a_reader_in_the_middle_is_told_too(server: NatsServer) -> None:
    settings = LogSettings("notes", tail_bytes=1)
    async with await JetStreamStore.open(server.url, [settings], QUICK) as store:
        log = store["notes"]
        await fill(log, 3000)
        pages = log.follow(0)
        seen = (await anext(pages)).through
        assert 0 < seen < 3000
        async with administrator(server) as js:
            config = (await js.stream_info(STREAM)).config
            await js.delete_stream(STREAM)
            await js.add_stream(config)
            await asyncio.gather(*[js.publish("signpost.notes.other", b"%d" % i) for i in range(1500)])
        with pytest.raises(EpochChanged):
            await take(pages, 3000)


async def test_fault_26_a_deleted_stream_is_made_anew_with_a_new_epoch(server: NatsServer, store: Store) -> None:
    log = store["notes"]
    await fill(log, 20)
    pages = log.follow(0)
    await take(pages, 20)
    async with administrator(server) as js:
        await js.delete_stream(STREAM)
    with pytest.raises(EpochChanged):
        await take(pages, 21)
    assert await log.append(Append("a", b"first")) == Appended(1, False)


async def test_fault_17_a_slow_follower_loses_nothing(server: NatsServer) -> None:
    settings = LogSettings("notes", tail_bytes=100_000)
    async with await JetStreamStore.open(server.url, [settings], QUICK) as store:
        log = store["notes"]
        slow, quick = log.follow(0), log.follow(0)
        assert (await anext(slow)).through == 0
        for turn in range(20):
            await fill(log, 1000, turn * 1000)
        assert await take(quick, 20_000) == list(range(1, 20_001))
        assert await take(slow, 20_000) == list(range(1, 20_001))


async def test_fault_17_a_slow_reader_of_large_records_holds_few_of_them(server: NatsServer) -> None:
    """What is asked for ahead of it is bounded in bytes, too, over all its pages."""
    async with await JetStreamStore.open(server.url, [LogSettings("notes", tail_bytes=1)], QUICK) as store:
        log = store["notes"]
        for _ in range(10):
            await log.append_many([Append("a", b"x" * 200_000) for _ in range(20)])
        after, held = 0, 0
        while after < 200:
            after = (await log.read(after)).through
            await asyncio.sleep(0.02)  # for what was asked for to come
            held = max(held, *[sum(len(r.payload) for r in each._received) for each in log._cursors._idle], 0)
        assert 0 < held <= 2 * _PULL_BYTES


async def test_fault_26_every_publish_is_answered_though_the_server_stays_away(server: NatsServer) -> None:
    settings = dataclasses.replace(QUICK, publish_timeout_s=5.0)
    async with await JetStreamStore.open(server.url, [LogSettings("notes")], settings) as store:
        log = store["notes"]
        futures = [log.submit([Append("a", b"%d" % i)]) for i in range(500)]
        server.kill()
        futures += [log.submit([Append("a", b"%d" % i)]) for i in range(500)]
        answers = [(await future)[0] for future in futures]
        assert all(isinstance(answer, Appended | LogUnavailable) for answer in answers)
        assert isinstance(answers[-1], LogUnavailable)
        assert log.state is LogState.RECONNECTING
        with pytest.raises(LogUnavailable):
            await log.bounds()
        server.start()
        await until(log, LogState.WRITABLE)
        assert not (await log.append(Append("a", b"again"))).duplicate


async def test_fault_26_publishes_in_flight_over_a_restart_are_stored_once(server: NatsServer, store: Store) -> None:
    log = store["notes"]
    for turn in range(3):
        futures = [log.submit([Append("a", b"%d %d" % (turn, i))]) for i in range(3000)]
        await asyncio.sleep(0.02)
        await asyncio.to_thread(server.restart)
        answers = [(await future)[0] for future in futures]
        assert all(isinstance(answer, Appended) for answer in answers)
    stored = [record async for record in records_of(log)]
    assert sorted(stored) == sorted(b"%d %d" % (turn, i) for turn in range(3) for i in range(3000))


async def records_of(log: Log) -> AsyncIterator[bytes]:
    after, last = 0, (await log.bounds()).last
    while after < last:
        page = await log.read(after)
        for record in page.records:
            yield record.payload
        after = page.through


async def test_fault_26_a_frozen_server_is_noticed(server: NatsServer, store: Store) -> None:
    log = store["notes"]
    await fill(log, 10)
    pages = log.follow(0)
    await take(pages, 10)
    server.freeze()
    answer = log.submit([Append("a", b"late")])
    await until(log, LogState.RECONNECTING)
    server.thaw()
    await until(log, LogState.WRITABLE)
    assert await answer == [Appended(11, False)]
    assert await take(pages, 11) == [11]


async def test_fault_26_a_purged_stream(server: NatsServer) -> None:
    async with await JetStreamStore.open(server.url, [LogSettings("notes", tail_bytes=1)], QUICK) as store:
        log = store["notes"]
        await fill(log, 20)
        behind, at_head = log.follow(0), log.follow(20)
        assert (await anext(behind)).through == 20
        assert (await anext(at_head)).through == 20
        await fill(log, 20, 20)
        await log.wait_for(40)
        late = log.follow(20)
        async with administrator(server) as js:
            await js.purge_stream(STREAM)
        with pytest.raises(PositionCompacted) as raised:
            await anext(late)
        assert raised.value.first_available == 41
        assert await log.bounds() == (41, 40, 40)
        await fill(log, 5, 40)
        assert await take(log.follow(40), 45) == list(range(41, 46))


async def test_a_record_deleted_by_hand_does_not_stop_the_tail(server: NatsServer, store: Store) -> None:
    log = store["notes"]
    pages = log.follow(0)
    assert (await anext(pages)).through == 0
    server.kill()
    with elsewhere(server) as other:
        async with administrator(other) as js:
            for i in range(5):
                await js.publish("signpost.notes.a", b"%d" % i)
            await js.delete_msg(STREAM, 2)
            await js.delete_msg(STREAM, 3)
    server.start()
    assert await take(pages, 5) == [1, 4, 5]


async def test_fault_12_a_stream_rewound_by_a_power_loss_is_told(server: NatsServer, tmp_path: Path) -> None:
    """The store of a moment ago is put back, as when a machine's page cache is lost."""
    async with await JetStreamStore.open(server.url, [LogSettings("notes")], QUICK) as store:
        log = store["notes"]
        await fill(log, 10)
        server.stop()
        shutil.copytree(server.directory, tmp_path / "kept")
        server.start()
        await until(log, LogState.WRITABLE)
        await fill(log, 10, 10)
        pages = log.follow(0)
        await take(pages, 20)
        token = await log.position(15)
        server.kill()
        shutil.rmtree(server.directory)
        shutil.copytree(tmp_path / "kept", server.directory)
        server.start()
        async with administrator(server) as js:
            for i in range(15):
                await js.publish("signpost.notes.other", b"other %d" % i)
        with pytest.raises(LogRewound):
            await take(pages, 21)
        await until(log, LogState.WRITABLE)
        with pytest.raises(LogRewound):
            await log.resolve(token)
        assert (await log.read(24)).through == 25


async def test_fault_12_what_was_acknowledged_and_not_yet_followed_is_missed_too(
    server: NatsServer, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A follower that is a moment behind when the power goes: the log is as long as it knew, not as was promised."""
    log = store["notes"]
    assert isinstance(log, JetStreamLog)
    await fill(log, 10)
    pages = log.follow(0)
    await take(pages, 10)
    server.stop()
    shutil.copytree(server.directory, tmp_path / "kept")
    server.start()
    await until(log, LogState.WRITABLE)
    with monkeypatch.context() as patch:
        patch.setattr(log._tail, "extend", lambda records, through: None)
        await fill(log, 10, 10)
        server.kill()
        shutil.rmtree(server.directory)
        shutil.copytree(tmp_path / "kept", server.directory)
    assert log.head == 20
    server.start()
    with pytest.raises(LogRewound):
        await take(pages, 11)
    assert log.head == (await log.bounds()).last == 10
    await fill(log, 5, 10)
    assert await take(log.follow(10), 15) == list(range(11, 16))


async def test_retention_overtakes_a_process_that_was_cut_off(server: NatsServer) -> None:
    settings = LogSettings("notes", Retention(max_records=10))
    async with await JetStreamStore.open(server.url, [settings], QUICK) as store:
        log = store["notes"]
        await fill(log, 5)
        pages = log.follow(0)
        await take(pages, 5)
        server.kill()
        with elsewhere(server) as other:
            async with administrator(other) as js:
                for i in range(40):
                    await js.publish("signpost.notes.a", b"%d" % i)
        server.start()
        with pytest.raises(PositionCompacted) as raised:
            await take(pages, 45)
        assert raised.value.first_available == 36
        assert await take(log.follow(35), 45) == list(range(36, 46))


async def test_fault_23_a_full_store_refuses_appends_and_serves_readers(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", store_mb=2)
    server.start()
    try:
        async with await JetStreamStore.open(server.url, [LogSettings("notes")], QUICK) as store:
            log = store["notes"]
            pages = log.follow(0)
            assert (await anext(pages)).through == 0
            answers = await log.append_many([Append("a", b"x" * 20_000) for _ in range(200)])
            stored = [answer.sequence for answer in answers if isinstance(answer, Appended)]
            assert stored
            assert all(isinstance(answer, StorageFull) for answer in answers[len(stored) :])
            assert len(stored) < 200
            await until(log, LogState.FULL)
            assert await take(pages, stored[-1]) == stored
            async with administrator(server) as js:
                await js.purge_stream(STREAM)
            assert await log.append(Append("a", b"room")) == Appended(stored[-1] + 1, False)
            await until(log, LogState.WRITABLE)
    finally:
        server.kill()


async def test_a_stream_that_was_made_anew_otherwise_is_waited_for(server: NatsServer, store: Store) -> None:
    """Somebody's other stream on our subjects: nothing is touched, and we go on once ours can be made."""
    log = store["notes"]
    await fill(log, 5)
    async with administrator(server) as js:
        await js.delete_stream(STREAM)
        await js.add_stream(name="theirs", subjects=["signpost.notes.>"])
        await until(log, LogState.RECONNECTING)
        waiting = log.submit([Append("a", b"first")])
        await asyncio.sleep(1.5)
        assert log.state is LogState.RECONNECTING
        assert not waiting.done()
        await js.delete_stream("theirs")
    assert await waiting == [Appended(1, False)]
    await until(log, LogState.WRITABLE)
