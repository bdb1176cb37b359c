"""Replay, other replicas, resets, records from the future, imports that overlap."""

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import pytest
from feature_service import nearest_stream, projection
from feature_service.items import to_item
from feature_service.lists import BATCH_BYTES
from feature_service.nearest_stream import NearestAnswerer
from feature_service.projection import Applied
from feature_service.records import Kind, put_payload
from signpost.errors import EpochChanged, LogUnavailable, PositionAhead, PositionError, Unavailable
from signpost.log import Append, LogSettings, Retention
from signpost.log.base import Page
from signpost.log.memory import MemoryLog, MemoryStore, _Contents

from protos.feature.v1 import feature_pb2 as pb
from protos.storage.v1.storage_pb2 import FeatureRecord, ImportBatch
from tests.unit.feature.inprocess import NEVER, Parts, batch, feature, features_of, parts

EVERYWHERE = pb.Area(circle=pb.Circle(center=pb.Point(), radius_m=3e7))


async def everything(replica: Parts) -> dict[str, pb.Feature]:
    return features_of(await replica.list(pb.ListFeaturesRequest(area=EVERYWHERE)))


async def test_a_replica_that_starts_from_compacted_history_shows_the_same() -> None:
    settings = LogSettings("features", Retention(max_records=5, keep_last=True))
    async with parts("compacted", settings) as first:
        for n in range(40):
            await first.put(feature(f"f{n % 7}", n, n))
        await first.writer.delete("places", "f3")
        await first.put(feature("f9", 1, 1))
        expected = await everything(first)
        assert sorted(expected) == ["f0", "f1", "f2", "f4", "f5", "f6", "f9"]
    async with parts("compacted", settings) as second:
        assert await everything(second) == expected


async def test_two_replicas_expire_a_feature_once() -> None:
    now = [1_000_000_000_000_000_000]
    async with MemoryStore([NEVER], "two") as store:
        log = store["features"]
        replicas = [Parts(log, lambda: now[0]) for _ in range(2)]
        brief = feature("brief", 0, 0)
        brief.expire_time.seconds = now[0] // 1_000_000_000 + 1
        await replicas[0].put(brief)
        renewed = feature("renewed", 0, 0)
        renewed.expire_time.CopyFrom(brief.expire_time)
        await replicas[0].put(renewed)
        renewed.ClearField("expire_time")
        await replicas[0].put(renewed)
        for replica in replicas:
            await replica.projection.wait_for(log.head)
        before = log.head
        await asyncio.gather(*[replica.expiry.expire_due() for replica in replicas])
        assert log.head == before, "not yet"
        now[0] += 2_000_000_000
        await asyncio.gather(*[replica.expiry.expire_due() for replica in replicas])
        assert log.head == before + 1
        for replica in replicas:
            assert sorted(await everything(replica)) == ["renewed"]
            await replica.expiry.expire_due()
        assert log.head == before + 1
        for replica in replicas:
            await replica.close()


def expiring(key: str, at_s: int) -> pb.Feature:
    made = feature(key, 0, 0)
    made.expire_time.FromSeconds(at_s)
    return made


async def test_what_expired_before_what_is_being_recorded_expires_too() -> None:
    async with parts(clock=lambda: 3_000_000_000) as replica:
        await replica.put(expiring("a", 2))
        expire = replica.writer.expire

        async def expire_slowly(versions: Sequence[tuple[str, str, int]]) -> None:
            if replica.log.head == 1:
                await replica.put(expiring("b", 1))
            await expire(versions)

        replica.writer.expire = expire_slowly  # type: ignore[method-assign]
        await replica.expiry.expire_due()
        await replica.projection.wait_for(replica.log.head)
        assert await everything(replica) == {}
        await replica.put(expiring("b", 4))
        assert sorted(await everything(replica)) == ["b"]
        await replica.put(expiring("the first second of 1970", 0))
        await replica.expiry.expire_due()
        await replica.projection.wait_for(replica.log.head)
        assert sorted(await everything(replica)) == ["b"]


async def test_fault_12_what_was_to_expire_in_another_log_lives_on_in_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_RETRY_S", 0.01)
    async with parts(clock=lambda: 3_000_000_000) as replica:
        await replica.put(expiring("a", 2))
        log = cast("MemoryLog", replica.log)
        log._contents = _Contents()
        log._tail.reset(0, EpochChanged("another log", first_available=1))
        async with asyncio.timeout(20):
            while replica.projection.version("places", "a") or not replica.projection.ready:  # noqa: ASYNC110 - no event
                await asyncio.sleep(0.01)
        assert await replica.put(feature("a", 0, 0)) == 1
        await replica.expiry.expire_due()
        await replica.projection.wait_for(log.head)
        assert sorted(await everything(replica)) == ["a"]


async def test_what_expired_long_ago_is_recorded_together() -> None:
    async with parts(clock=lambda: 1_000_000_000_000) as replica:
        for n in range(100):
            await replica.put(expiring(f"f{n}", n))
        at_once: list[int] = []
        expire = replica.writer.expire

        async def counted(versions: Sequence[tuple[str, str, int]]) -> None:
            at_once.append(len(versions))
            await expire(versions)

        replica.writer.expire = counted  # type: ignore[method-assign]
        await replica.expiry.expire_due()
        assert at_once == [100]


async def test_a_feature_that_is_put_with_a_later_time_again_and_again_takes_no_memory() -> None:
    async with parts() as replica:
        for n in range(4000):
            await replica.put(expiring("a", 1000 + n))
            await replica.put(expiring(f"f{n}", 1000))
            await replica.writer.delete("places", f"f{n}")
        await replica.projection.wait_for(replica.log.head)
        kept = replica.expiry
        assert len(kept._tick_of) == len(kept._due) == 1
        assert len(kept._ticks) < 2000


async def test_a_change_that_is_not_known_stops_the_projection() -> None:
    async with parts() as replica:
        await replica.put(feature("a", 0, 0))
        await replica.log.append(Append("places.b", FeatureRecord(format=9).SerializeToString()))
        with pytest.raises(Exception, match="format 9"):
            await replica.projection.wait_for(replica.log.head)
        assert not replica.projection.ready
        with pytest.raises(Unavailable):
            await replica.projection.until_ready()
        with pytest.raises(Unavailable):
            await asyncio.wait_for(replica.projection.wait_for(replica.log.head), 20)


class Told:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.changes: list[Applied] = []
        self.through: list[int] = []
        self.resets = 0

    def wants(self, collection: str) -> bool:
        return True

    def applied(self, changes: Sequence[Applied], through: int, position: bytes) -> None:
        self.changes += changes
        self.through.append(through)

    async def settle(self) -> None:
        pass

    def reset(self, error: PositionError) -> None:
        self.resets += 1


async def test_listeners_hear_each_change_with_what_was_before() -> None:
    async with parts() as replica:
        told = Told()
        replica.projection.listen(told)
        await replica.put(feature("a", 1, 2))
        await replica.put(feature("a", 3, 4))
        await replica.put(feature("a", 3, 4), "other")
        await replica.writer.delete("places", "a")
        await replica.projection.wait_for(replica.log.head)
        assert [(c.collection, c.kind, c.sequence) for c in told.changes] == [
            ("places", Kind.PUT, 1),
            ("places", Kind.PUT, 2),
            ("other", Kind.PUT, 3),
            ("places", Kind.DELETED, 4),
        ]
        places = [
            tuple(None if v is None else (v.latitude, v.longitude) for v in (c.before, c.after)) for c in told.changes
        ]
        assert places == [(None, (1, 2)), ((1, 2), (3, 4)), (None, (3, 4)), ((3, 4), None)]
        assert told.through[-1] == replica.log.head


async def test_a_read_of_a_position_that_never_comes_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("feature_service.projection.AHEAD_WAIT_S", 0.05)
    async with parts() as replica:
        with pytest.raises(PositionAhead):
            await replica.projection.wait_for(5)
        assert not replica.projection._waiting
        monkeypatch.setattr("feature_service.projection.AHEAD_WAIT_S", 60.0)
        late = asyncio.create_task(replica.projection.wait_for(1))
        await asyncio.sleep(0)
        await replica.put(feature("a", 0, 0))
        await late


async def test_an_import_appends_what_changes_and_nothing_else() -> None:
    async with parts() as replica:

        async def requests(*batches: list[pb.Feature]) -> AsyncIterator[ImportBatch]:
            for number, features in enumerate(batches, 1):
                yield batch(number, features)

        async def run(*batches: list[pb.Feature]) -> list[tuple[int, int]]:
            answers = [answer async for answer in replica.importer.run(requests(*batches))]
            await replica.projection.wait_for(replica.log.head)
            return [(answer.written, answer.unchanged) for answer in answers]

        one, two = feature("a", 1, 1, x=1.0, y="z"), feature("a", 2, 2)
        first, again, changed, back = await run([one], [one], [two], [one])
        assert first == changed == back == (1, 0)
        assert again in ((0, 1), (1, 0)), "appended if the first one is still on its way"
        assert (await everything(replica))["a"] == one
        head = replica.log.head
        assert await run([one] * 3) == [(0, 3)]
        assert replica.log.head == head
        assert await run([two, one, two, two]) in ([(4, 0)], [(3, 1)])
        assert (await everything(replica))["a"] == two


async def test_an_import_that_is_cut_leaves_nothing_on_its_way() -> None:
    features = [feature(f"f{n}", n, n) for n in range(600)]

    async def requests() -> AsyncIterator[ImportBatch]:
        yield batch(1, features)

    async def run() -> list[tuple[int, int]]:
        return [(answer.written, answer.unchanged) async for answer in replica.importer.run(requests())]

    async with parts() as replica:
        cut = asyncio.create_task(run())
        while not replica.importer._on_their_way.get("places"):  # noqa: ASYNC110
            await asyncio.sleep(0)
        cut.cancel()
        await asyncio.gather(cut, return_exceptions=True)
        assert (replica.log.head, replica.importer._on_their_way) == (0, {"places": {}})
        for each in features:
            await replica.put(each)
        assert await run() == [(0, 600)]


async def test_a_rebuild_that_an_outage_ends_keeps_no_other_from_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projection, "_RETRY_S", 0.01)
    async with parts() as replica:
        await replica.put(feature("a", 0, 0))
        index, follow = replica.projection.index("places"), replica.log.follow
        assert index is not None
        outages = 0

        async def interrupted(after: int) -> AsyncGenerator[Page, None]:
            nonlocal outages
            async for page in follow(after):
                yield page
                if index.rebuilding and not outages:
                    outages += 1
                    raise LogUnavailable("away")

        monkeypatch.setattr(replica.log, "follow", interrupted)
        replica._run.cancel()
        await asyncio.gather(replica._run, return_exceptions=True)
        replica._run = asyncio.create_task(replica.projection.run())
        await asyncio.sleep(0.02)
        for begin in range(0, 9000, 3000):
            index.snapshot()
            made = [feature(f"f{n}", n, n) for n in range(begin, begin + 3000)]
            await replica.log.append_many(
                [Append(f"places.{each.id}", put_payload(to_item(each.SerializeToString()))) for each in made]
            )
            await replica.projection.wait_for(replica.log.head)
        async with asyncio.timeout(30):
            while index.snapshot().tail < 9000:  # noqa: ASYNC110 - a rebuild tells nobody
                await asyncio.sleep(0.05)
        assert outages == 1
        assert not index.rebuilding


async def test_large_pages_are_applied_in_slices_and_rebuilt_behind() -> None:
    async with parts() as replica:
        features = [feature(f"f{n}", n * 1000, n * 1000) for n in range(6000)]
        payloads = [(each.id, each.SerializeToString(deterministic=True)) for each in features]
        for begin in range(0, 6000, 2000):
            entries = [
                Append(f"places.{key}", put_payload(bytes([len(encoded)]) + encoded))
                for key, encoded in payloads[begin : begin + 2000]
            ]
            await replica.log.append_many(entries)
        assert await everything(replica) == {each.id: each for each in features}
        async with asyncio.timeout(30):
            while not (snapshot := replica.projection.snapshot("places")) or not snapshot.segments:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        assert await everything(replica) == {each.id: each for each in features}


async def test_when_nothing_changes_an_index_becomes_one_part() -> None:
    async def requests() -> AsyncIterator[ImportBatch]:
        yield batch(1, [feature(f"f{n}", n, n) for n in range(300)])

    async with parts("quiet", NEVER) as replica:
        assert [answer.written async for answer in replica.importer.run(requests())] == [300]
        await replica.projection.wait_for(replica.log.head)
        async with asyncio.timeout(30):
            while (snapshot := replica.projection.snapshot("places")) is None or snapshot.tail < snapshot.end:  # noqa: ASYNC110 - a rebuild tells nobody
                await asyncio.sleep(0.05)
        (base,) = snapshot.segments
        assert (base.size, snapshot.end) == (300, 300)
        assert len(await everything(replica)) == 300


async def test_while_an_import_waits_for_no_tree_nearest_builds_one_in_a_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def requests() -> AsyncIterator[pb.NearestFeaturesRequest]:
        yield pb.NearestFeaturesRequest(id=1, latitudes=[0], longitudes=[0], k=1)

    async def threads_used() -> int:
        used = threading.active_count()
        with ThreadPoolExecutor(1) as executor:
            answerer = NearestAnswerer(replica.projection, executor, 1 << 20)
            (answer,) = [pb.NearestFeaturesResponse.FromString(each) async for each in answerer.run(requests())]
            assert answer.ids == ["f0"]
            return threading.active_count() - used

    async with parts() as replica:
        for n in range(9):
            await replica.put(feature(f"f{n}", n, n))
        assert await threads_used() == 0
        monkeypatch.setattr(nearest_stream, "TAIL", 8)
        assert await threads_used() == 1


async def test_a_mask_re_encodes_no_more_at_a_time_than_a_batch_holds() -> None:
    async with parts() as replica:
        for n in range(50):
            await replica.put(feature(f"f{n:02}", 0, n, text="x" * 60_000))
        batches = await replica.list(pb.ListFeaturesRequest(area=EVERYWHERE, read_mask=["id"]))
        assert sorted(features_of(batches)) == [f"f{n:02}" for n in range(50)]
        assert max(len(batch.features) for batch in batches) * 60_000 <= BATCH_BYTES
