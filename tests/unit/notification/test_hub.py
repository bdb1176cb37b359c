"""From the log to the subscriptions: live, behind in memory, behind in the log, and over every seam."""

import asyncio
import random

import pytest
from notification_service.hub import Hub, HubSettings
from notification_service.settings import NotificationSettings
from notification_service.tail import Block, Tail
from signpost.errors import EpochChanged, Internal, LogUnavailable, SignpostError
from signpost.log import LogSettings, Retention, open_store
from signpost.log.base import Append, Bounds, Log
from signpost.log.memory import MemoryStore
from signpost.server.settings import load_settings

from tests.unit.notification.conftest import eventually, following, publication, publish
from tests.unit.notification.reader import Reader

SMALL = HubSettings(tail_bytes=20_000, buffer_bytes=5_000, pause_factor=0.0, max_pause_s=0.0)


def live(hub: Hub, pattern: str, *, window: int | None = None) -> Reader:
    return Reader(hub, pattern, window=window).begin(hub.through, hub.position)


async def test_each_gets_what_its_filter_matches_and_no_more(log: Log) -> None:
    async with following(log) as hub:
        readers = {pattern: live(hub, pattern) for pattern in ("a.b", "a.*", "a.>", ">", "c", "_sys")}
        last = await publish(log, [publication(topic) for topic in ("a.b", "a.c", "a.b.d", "c", "_sys", "e")])
        await eventually(lambda: hub.through == last)
        hub.progress()
        for reader in readers.values():
            await reader.take_to(last)
        got = {pattern: [n.topic for n in reader.records] for pattern, reader in readers.items()}
    assert got == {
        "a.b": ["a.b"],
        "a.*": ["a.b", "a.c"],
        "a.>": ["a.b", "a.c", "a.b.d"],
        ">": ["a.b", "a.c", "a.b.d", "c", "e"],
        "c": ["c"],
        "_sys": ["_sys"],
    }


async def test_who_waits_for_the_same_shares_the_same_bytes(log: Log) -> None:
    async with following(log) as hub:
        readers = [live(hub, "a") for _ in range(3)]
        last = await publish(log, [publication("a", b"x" * 1000)])
        await eventually(lambda: hub.through == last)
        frames = [reader.subscription.take() for reader in readers]
        assert frames[0] is not None
        assert frames[0] is frames[1] is frames[2]


async def test_a_lone_record_on_a_quiet_stream_goes_at_once(log: Log) -> None:
    async with following(log, HubSettings(pause_factor=1e9, max_pause_s=60.0)) as hub:
        readers = [live(hub, "a") for _ in range(10)]
        last = await publish(log, [publication("a")])
        for reader in readers:
            await reader.take_to(last)
        # The next one comes within the pause that this round has earned: it waits for the next round.
        await publish(log, [publication("a")])
        await eventually(lambda: hub.through == last + 1)
        assert not readers[0].take()


async def test_fault_15_replay_hands_over_to_live_with_no_gap_and_no_repeat(log: Log) -> None:
    async with following(log, SMALL) as hub:
        await publish(log, [publication("a", bytes(100)) for _ in range(500)])
        position = await log.position(0)
        readers: list[Reader] = []
        for turn in range(60):  # they start and read while records keep coming
            readers.append(Reader(hub, "a").begin(0, position))
            await publish(log, [publication("a", bytes(100)) for _ in range(turn % 7)] + [publication("b")])
            for reader in random.sample(readers, min(10, len(readers))):
                reader.take()
            await asyncio.sleep(0)
        last = await publish(log, [publication("a")])
        everything = [r.sequence for r in (await log.read(0, subjects="a", limit=10_000)).records]
        for reader in readers:
            await reader.take_to(last)
            assert reader.sequences == everything
            assert not reader.take()
            assert reader.subscription.lane is not None, "live again by itself"


async def test_fault_17_one_that_stops_reading_holds_nothing_and_comes_back(log: Log) -> None:
    async with following(log, SMALL) as hub:
        stopped, steady = live(hub, "a"), live(hub, "a")
        last = 0
        for _ in range(300):
            last = await publish(log, [publication("a", bytes(200)) for _ in range(10)])
            await steady.take_to(last)
        assert stopped.subscription.lane is None, "it fell behind: no segment is kept for it"
        assert steady.subscription.lane is not None
        assert len(hub._lanes["a"].members) == 1
        await stopped.take_to(last)
        assert stopped.sequences == steady.sequences == list(range(1, 3001))
        assert not stopped.take()
        last = await publish(log, [publication("a")])
        await stopped.take_to(last)
        assert stopped.subscription.lane is not None


async def test_fault_17_a_window_used_up_to_the_byte_holds_nothing_either(log: Log) -> None:
    async with following(log, SMALL) as hub:
        windows = []
        probe = live(hub, "a", window=1 << 20)
        for _ in range(2):
            await probe.take_to(await publish(log, [publication("a")]))
            windows.append(probe.subscription.window or 0)
        stopped = live(hub, "a", window=windows[0] - windows[1])
        last = 0
        for _ in range(300):
            last = await publish(log, [publication("a")])
            await probe.take_to(last)
            stopped.take()
        assert stopped.sequences == [3]
        assert stopped.subscription.window == 0
        assert stopped.subscription.lane is None, "it fell behind: no segment is kept for it"
        stopped.subscription.credit(1 << 20)
        await stopped.take_to(last)
        assert stopped.sequences == list(range(3, 303))


async def test_fault_17_one_that_stops_on_a_quiet_topic_keeps_no_marks_of_progress(log: Log) -> None:
    async with following(log, SMALL) as hub:
        stopped, steady = live(hub, "a"), live(hub, "b")
        last = 0
        for _ in range(100):
            last = await publish(log, [publication("b")])
            await steady.take_to(last)
            hub.progress()
        assert stopped.subscription.lane is None
        await stopped.take_to(last)
        assert not stopped.records


@pytest.mark.parametrize("window", [1, 500, 5_000, 100_000])
async def test_a_window_is_not_exceeded_but_by_one_record(log: Log, window: int) -> None:
    async with following(log, SMALL) as hub:
        reader = live(hub, "a", window=window)
        last = await publish(log, [publication("a", bytes(100)) for _ in range(2_000)])
        left = window
        async with asyncio.timeout(20):
            while reader.through != last:
                before = len(reader.deliveries)
                if not reader.take():
                    await asyncio.sleep(0)
                for delivery in reader.deliveries[before:]:
                    assert left > 0
                    size = delivery.ByteSize()
                    assert size <= left + 250 or len(delivery.notifications) == 1
                    left -= size
                if left <= 0:
                    reader.subscription.credit(window - left)
                    left = window
    assert reader.sequences == list(range(1, 2_001))


async def test_the_largest_deliveries_fit_the_smallest_message_limit(log: Log) -> None:
    with pytest.raises(SystemExit):
        load_settings(NotificationSettings, ["--max-message-bytes=1048576"], program="test")
    settings = load_settings(NotificationSettings, ["--max-message-bytes=2097152"], program="test")
    sizes = []
    async with following(log, HubSettings(pause_factor=1e9, max_pause_s=10.0, buffer_bytes=1 << 26)) as hub:
        live_one, other = live(hub, "a"), live(hub, "a")
        last = await publish(log, [publication("a")])  # a round, after which they wait for the next
        await eventually(lambda: hub.through == last)
        for _ in range(4):
            last = await publish(log, [publication("a", bytes(255 * 1024)), publication("a", bytes(511 * 1024))])
            await eventually(lambda through=last: hub.through == through)  # type: ignore[misc]
        behind = Reader(hub, "a").begin(0, await log.position(0))
        for reader in (live_one, other, behind):
            await reader.take_to(last)
            sizes += [delivery.ByteSize() for delivery in reader.deliveries]
    assert 512 * 1024 < max(sizes) < settings.max_message_bytes


def test_the_tail_holds_no_more_than_its_bound() -> None:
    tail = Tail(10_000, 0)
    for sequence in range(1, 1001):
        record = (sequence, "a", bytes(1000), 0)
        tail.extend(Block(sequence - 1, sequence, b"", [record], 1000))
        held = [data for block in tail._blocks for _, _, data, _ in block.records]
        assert sum(map(len, held)) <= 10_000
    assert tail.floor == 1000 - len(held)
    assert len(tail.collect(tail.floor, lambda _: True, 1 << 20, 0).parts) == len(held)


async def test_an_expired_record_is_not_delivered_but_its_sequence_moves(log: Log) -> None:
    async with following(log) as hub:
        hub.clock = lambda: 2_000_000  # between the two expiries: publications here are made at time 0
        reader = live(hub, "a")
        items = [publication("a", ttl_ms=1), publication("a", ttl_ms=3), publication("a"), publication("a", ttl_ms=2)]
        last = await publish(log, items)
        await reader.take_to(last)
        replayed = await Reader(hub, "a").begin(0, await log.position(0)).take_to(last)
        hub.tail.reset(hub.through)
        read = await Reader(hub, "a").begin(0, await log.position(0)).take_to(last)
    assert reader.sequences == replayed.sequences == read.sequences == [2, 3]
    assert reader.through == replayed.through == read.through == 4


async def test_a_start_ahead_of_the_hub_gets_only_what_comes_after_it(log: Log) -> None:
    hub = Hub(log)
    await hub.start()
    await publish(log, [publication("a") for _ in range(3)])
    reader = Reader(hub, "a").begin(2, await log.position(2))  # acknowledged already, not yet seen by the hub
    assert not reader.take()
    task = asyncio.create_task(hub.run())
    await reader.take_to(3)
    assert reader.sequences == [3]
    task.cancel()


async def test_quiet_subscriptions_move_with_the_log(log: Log) -> None:
    async with following(log) as hub:
        reader = live(hub, "quiet")
        last = await publish(log, [publication("loud") for _ in range(5)])
        await eventually(lambda: hub.through == last)
        hub.progress()
        await reader.take_to(last)
        assert not reader.records
        assert await log.resolve(reader.position) == last
        await publish(log, [publication("quiet")])
        await reader.take_to(last + 1)
        assert reader.sequences == [last + 1]


async def test_nothing_is_kept_for_who_has_gone(log: Log) -> None:
    async with following(log) as hub:
        readers = [live(hub, f"topic.{n}") for n in range(100)]
        readers += [Reader(hub, "x").begin(0, await log.position(0)) for _ in range(10)]
        for reader in readers:
            reader.subscription.close()
        assert hub.lanes == 0
        assert len(hub._trie) == 0
        assert not hub._early


async def test_fault_13_retention_overtakes_a_slow_reader() -> None:
    settings = [LogSettings("notifications", Retention(max_records=100))]
    async with open_store("memory:", settings) as store:
        log = store["notifications"]
        async with following(log, HubSettings(tail_bytes=1, buffer_bytes=1, pause_factor=0.0)) as hub:
            slow = live(hub, "a")
            position = slow.position
            last = 0
            for _ in range(500):
                last = await publish(log, [publication("a")])
                await asyncio.sleep(0)
            await slow.take_to(last)
        assert [(gap.requested.token, gap.first_available) for gap in slow.gaps] == [(position, 401)]
        assert slow.sequences == list(range(401, 501))


async def test_fault_12_a_replaced_log_is_noticed_by_live_and_slow_readers() -> None:
    settings = [LogSettings("notifications", Retention())]
    store, other = MemoryStore(settings), MemoryStore(settings)
    async with store, other:
        log = store["notifications"]
        for target, count in ((log, 50), (other["notifications"], 50)):
            await publish(target, [publication("a") for _ in range(count)])
        async with following(log) as hub:
            reader = live(hub, "a")
            behind = Reader(hub, "a").begin(10, await log.position(10))
            early = Reader(hub, "a").begin(50, await log.position(50))
            restored = other["notifications"]._contents
            log._contents = restored
            log._tail.reset(restored.last, EpochChanged("the log was restored", first_available=1))
            await eventually(lambda: hub.generation == 1)
            last = await publish(log, [publication("a")])
            for one in (reader, behind, early):
                await one.take_to(last)
                assert [gap.reason for gap in one.gaps] == [2], "GAP_REASON_EPOCH_CHANGED"
                assert one.sequences == list(range(1, 52))


async def test_fault_26_a_log_that_is_replaced_and_away_at_once_does_not_end_the_hub(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = [LogSettings("notifications", Retention())]
    async with MemoryStore(settings) as store, MemoryStore(settings) as other:
        log = store["notifications"]
        for target in (log, other["notifications"]):
            await publish(target, [publication("a") for _ in range(50)])
        async with following(log) as hub:
            reader, bounds = live(hub, "a"), log.bounds
            answers: list[SignpostError] = [LogUnavailable("away"), EpochChanged("again", first_available=1)]

            async def flaky() -> Bounds:
                if answers:
                    raise answers.pop()
                return await bounds()

            monkeypatch.setattr(log, "bounds", flaky)
            log._contents = other["notifications"]._contents
            log._tail.reset(50, EpochChanged("the log was restored", first_available=1))
            await eventually(lambda: hub.generation == 1)
            await reader.take_to(await publish(log, [publication("a")]))
            assert reader.sequences == list(range(1, 52))


async def test_a_record_of_a_later_release_stops_the_hub(log: Log) -> None:
    hub = Hub(log)
    await hub.start()
    await log.append(Append("a", b"\x08\x63"))
    with pytest.raises(Internal):
        async with asyncio.timeout(20):
            await hub.run()
