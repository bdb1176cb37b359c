"""What one legal request may cost the others: little of the event loop, and a bounded share of memory."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest
from feature_service import continuation, filters, lists, slices
from feature_service import nearest as nearest_module
from feature_service.areas import Polygon
from feature_service.fences.book import FenceBook
from feature_service.filters import Filter
from feature_service.geometry import Mask, unit_vector
from feature_service.index import Index, Rebuild, Snapshot
from feature_service.nearest import Nearest, NearestQuery, nearest_in_parts, nearest_quickly
from feature_service.nearest_stream import NearestAnswerer
from feature_service.parsing import LARGE_BYTES, parsed
from feature_service.rings import ring
from feature_service.search import Part, Question, search, search_in_parts, search_quickly
from feature_service.table import Slots
from feature_service.validation import Problems, area_of, encoded_feature
from signpost.errors import InvalidArgument
from signpost.log import LogSettings, Retention
from signpost.log.memory import MemoryStore
from signpost.server.errors import status_of
from signpost.wire import varint

from protos.feature.v1 import feature_pb2 as pb
from protos.storage.v1.storage_pb2 import ImportBatch
from tests.unit.feature.inprocess import NEVER, batch, feature, parts
from tests.unit.feature.oracle import Place
from tests.unit.feature.test_search import World


def test_many_features_in_one_place_are_put_in_order_off_the_loop() -> None:
    world = World()
    world.put([Place(f"f{n * 7919 % 3000:04}", 0, 0) for n in range(3000)])
    world.rebuild(everything=True)
    snapshot = world.index.snapshot()
    here = Question(unit_vector(0, 0), limit=10)
    assert search_quickly(snapshot, here) is None
    assert snapshot.columns.ids[search(snapshot, here).slots].tolist() == [f"f{n:04}" for n in range(10)]
    assert nearest_quickly(snapshot, NearestQuery.of(np.array([0]), np.array([0]), 10, 0, ())) is None


def test_an_area_of_many_edges_is_looked_into_off_the_loop() -> None:
    world = World()
    world.put([Place("in", 0, 0), Place("out", 900_000_000, 0)])
    snapshot = world.index.snapshot()
    corners = np.array([-10, -10, 10, 10]), np.array([-10, 10, 10, -10])
    quickly = search_quickly(snapshot, Question(None, Polygon(ring(*corners))))
    assert quickly is not None
    assert snapshot.columns.ids[quickly.slots].tolist() == ["in"]
    many = Polygon(ring(*(np.repeat(each, 30) for each in corners)))
    assert search_quickly(snapshot, Question(None, many)) is None


def test_a_long_look_is_one_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    slots, asked = np.arange(1000)[::-1], list[int]()

    def test(some: Slots) -> Mask:
        asked.append(len(some))
        passed: Mask = some % 3 == 0
        return passed

    # A millisecond for each slot.
    monkeypatch.setattr(slices, "time", SimpleNamespace(thread_time=lambda: sum(asked) / 1000))

    answer: list[Mask] = []

    def work() -> Iterator[None]:
        answer.append((yield from slices.tested(test, slots, 8)))

    assert len(list(work())) > 10, "others may go first"
    assert answer[0].tolist() == (slots % 3 == 0).tolist()
    assert sum(asked) == len(slots)


async def test_small_lists_and_long_ones_do_not_wait_for_the_whole_of_long_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    enough = threading.Event()

    def in_parts(snapshot: Snapshot, question: Question, size: int) -> Iterator[Part | None]:
        while question.filters and not enough.is_set():
            yield None
        yield from search_in_parts(snapshot, question, size)

    monkeypatch.setattr(lists, "search_in_parts", in_parts)
    monkeypatch.setattr(lists, "search_quickly", lambda snapshot, question: None)
    long = pb.ListFeaturesRequest(origin=pb.Point(), filters=[{"property": "x", "operator": pb.FILTER_OPERATOR_EXISTS}])
    async with parts() as replica:
        await replica.put(feature("f", 0, 0, x=1))
        waiting = [asyncio.create_task(replica.list(long)) for _ in range(3)]
        for _ in range(9):
            (small,) = await replica.list(pb.ListFeaturesRequest(origin=pb.Point()))
            assert [found.id for found in small.features] == ["f"]
        assert not any(task.done() for task in waiting)
        gone, *others = waiting
        gone.cancel()
        enough.set()
        for (answer,) in await asyncio.gather(*others):
            assert [found.id for found in answer.features] == ["f"]


@pytest.mark.parametrize("kind", ["", "common", "none"])
def test_nearest_in_parts_is_what_each_would_get_alone(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(nearest_module, "_AT_ONCE", 128)
    world = World()
    world.put([Place(f"f{n}", n * 7919 % 1000, n) for n in range(100)])
    snapshot = world.index.snapshot()
    wanted = {"": (), "common": (Filter("x", filters.not_equal(1.0)),), "none": (Filter("x", filters.equal(1.0)),)}
    query = NearestQuery.of(np.arange(40), np.arange(40), 4, 0, wanted[kind])
    found = list(nearest_in_parts(snapshot, query))
    assert len(found) > 1 or kind == "none"
    whole = Nearest(*map(np.concatenate, zip(*found, strict=True)))
    begin = 0
    for (x, y, z), count in zip(query.origins.tolist(), whole.counts.tolist(), strict=True):
        alone = search(snapshot, Question((x, y, z), None, query.filters, 4))
        assert whole.slots[begin : begin + count].tolist() == alone.slots.tolist()
        begin += count


async def test_an_answer_too_large_for_a_message_is_refused_before_it_is_complete(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nearest_module, "_AT_ONCE", 100)
    asked: list[int] = []
    answered = nearest_module._answered

    def counted(snapshot: Snapshot, query: NearestQuery, ask: nearest_module.Ask) -> Nearest:
        asked.append(len(query.origins))
        return answered(snapshot, query, ask)

    async def requests() -> AsyncIterator[pb.NearestFeaturesRequest]:
        for id_, count in ((1, 1000), (2, 25)):
            yield pb.NearestFeaturesRequest(id=id_, latitudes=range(count), longitudes=range(count), k=10)

    monkeypatch.setattr(nearest_module, "_answered", counted)
    async with parts() as replica:
        for n in range(10):
            await replica.put(feature(f"f{n}", n, n))
        with ThreadPoolExecutor(1) as executor:
            answerer = NearestAnswerer(replica.projection, executor, 1024 + 2500)
            answers = [pb.NearestFeaturesResponse.FromString(each) async for each in answerer.run(requests())]
    refused, answer = answers
    assert (refused.error.field, refused.error.reason) == ("latitudes", "TOO_LARGE")
    assert "2500 bytes" in refused.error.description
    assert sum(asked) < 100
    assert list(answer.counts) == [10] * 25
    assert len(answer.ids) == len(answer.distances_m) == 250


async def test_a_large_request_is_checked_in_a_thread() -> None:
    def thread_of(request: pb.ListFeaturesRequest) -> int:
        return threading.get_ident()

    assert await parsed(thread_of, pb.ListFeaturesRequest()) == threading.get_ident()
    large = pb.ListFeaturesRequest(collection="x" * LARGE_BYTES)
    assert await parsed(thread_of, large) != threading.get_ident()


async def test_a_list_is_recognised_by_its_request_once_however_many_batches_it_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hashed: list[int] = []
    request_hash = continuation.request_hash

    def counted(request: pb.ListFeaturesRequest) -> bytes:
        hashed.append(request.ByteSize())
        return request_hash(request)

    monkeypatch.setattr(continuation, "request_hash", counted)
    async with parts() as replica:
        for n in range(9):
            await replica.put(feature(f"f{n}", n, n))
        assert len(await replica.list(pb.ListFeaturesRequest(origin=pb.Point(), limit=9, batch_size=1))) == 9
    assert len(hashed) == 1


def test_what_is_wrong_with_a_request_fits_into_the_trailing_metadata() -> None:
    area = pb.Area()
    area.polygon.exterior.latitudes.extend([900_000_001] * 100)
    area.polygon.exterior.longitudes.extend([1_800_000_001] * 100)
    for _ in range(100):
        area.polygon.holes.append(area.polygon.exterior)
    problems = Problems()
    area_of(problems, "area", area)
    endless = feature("endless", 0, 0, **{letter * 15_000: float("nan") for letter in "abcd"})
    encoded_feature(problems, "feature.", endless)
    with pytest.raises(InvalidArgument) as refused:
        problems.check()
    assert "and 2020 more" in refused.value.message
    assert status_of(refused.value).ByteSize() < 4096
    alone = Problems()
    encoded_feature(alone, "feature.", endless)
    assert [violation.field[:20] for violation in alone.violations] == [f"feature.properties.{c}"[:20] for c in "abc"]
    assert max(len(violation.field) for violation in alone.violations) < 100


async def test_what_is_wrong_with_the_items_of_a_batch_fits_into_a_message() -> None:
    wrong = feature("", 900_000_001, 1_800_000_001, **{f"k{n}": float("nan") for n in range(10)})

    async def requests() -> AsyncIterator[ImportBatch]:
        yield batch(1, [wrong] * 100)

    async with parts() as replica:
        (answer,) = [each async for each in replica.importer.run(requests())]
    assert sorted({error.index for error in answer.errors}) == list(range(100))
    assert answer.ByteSize() * 100 < 4 << 20  # of 10,000 items


def test_a_feature_may_hold_fields_of_a_newer_release_but_not_any_number_of_them() -> None:
    for size, fields in ((500, []), (70_000, ["feature"])):
        unknown = b"\xfa\x3f" + varint(size) + b"x" * size
        problems = Problems()
        encoded_feature(problems, "feature.", pb.Feature.FromString(feature("f", 0, 0).SerializeToString() + unknown))
        assert [violation.field for violation in problems.violations] == fields


async def test_others_get_their_turn_between_the_large_items_of_a_batch() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async with parts() as replica:
        large = [feature(f"f{n}", 0, 0, text="x" * 60_000) for n in range(20)]
        taker = asyncio.create_task(take_turns())
        waiting = await replica.importer._submit(batch(1, large))
        assert turns >= 6
        taker.cancel()
        await waiting.stored


async def test_an_item_that_is_too_large_is_refused_unread_and_one_that_is_malformed_alone() -> None:
    async def requests() -> AsyncIterator[ImportBatch]:
        good = feature("f", 0, 0).SerializeToString()
        yield ImportBatch(id=1, features=[b"\xff" * (4 << 20), good, b"\xff", good])

    async with parts() as replica:
        (answer,) = [each async for each in replica.importer.run(requests())]
    assert answer.written == 2
    told = [(error.index, error.reason, error.description) for error in answer.errors]
    assert told == [
        (0, "TOO_LARGE", "has 4194304 bytes; the limit is 67584"),
        (2, "MALFORMED_MESSAGE", "is no feature: the bytes are malformed"),
    ]


def test_what_can_be_put_can_be_watched() -> None:
    refused = []
    for depth in range(1, 33):
        nested = feature("deep", 0, 0)
        value = nested.properties.fields["a"]
        for _ in range(depth):
            value = value.struct_value.fields["a"]
        value.number_value = 2.0
        pb.PutFeatureRequest.FromString(pb.PutFeatureRequest(feature=nested).SerializeToString())
        problems = Problems()
        encoded_feature(problems, "", nested)
        if problems.violations:
            assert [violation.field for violation in problems.violations] == ["properties"]
            refused.append(depth)
        else:
            events = pb.FeatureEvents(features=[nested])
            pb.WatchFeaturesResponse.FromString(pb.WatchFeaturesResponse(events=events).SerializeToString())
    assert refused == [32]


async def test_large_fences_are_listed_in_pages_that_fit_into_a_message() -> None:
    async with MemoryStore([NEVER, LogSettings("state", Retention(keep_last=True))]) as store:
        book = FenceBook(store["features"], store["state"])
        for n in range(12):
            fence = pb.Fence(id=f"f{n:02}", collection="places" if n % 2 else "others")
            fence.area.polygon.exterior.latitudes.extend([900_000_000 - n] * 40_000)
            await book.put(fence)
        for collection, expected in (("", range(12)), ("places", range(1, 12, 2))):
            listed, token = [], ""
            while True:
                page = await book.page(collection, 1000, token)
                assert sum(fence.ByteSize() for fence in page.fences) < 2 << 20
                listed += [fence.id for fence in page.fences]
                if not (token := page.next_token):
                    break
            assert listed == [f"f{n:02}" for n in expected]
        for foreign in ("*", "é", "AAAA", "Pg==", "aW5zaWRlLmE="):
            with pytest.raises(InvalidArgument) as refused:
                await book.page("", 10, foreign)
            assert refused.value.violations[0].field == "page_token"


def test_a_small_collection_takes_little_memory_before_and_after_a_rebuild() -> None:
    world = World()
    world.put([Place("alone", 0, 0)])
    assert world.index.columns.capacity < 100
    world.rebuild(everything=True)
    assert world.index.columns.capacity < 100
    world.put([Place(f"f{n}", n, n) for n in range(500)])
    world.rebuild(everything=True)
    assert 501 < world.index.columns.capacity < 10_000
    assert search(world.index.snapshot(), Question(unit_vector(0, 0), limit=1000)).slots.size == 501


async def test_a_change_is_not_paid_for_by_how_many_collections_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at: list[int] = []
    due = Index.due

    def counted(self: Index, *, quiet: bool = False) -> Rebuild | None:
        looked_at.append(len(self))
        return due(self, quiet=quiet)

    async with parts() as replica:
        for n in range(50):
            await replica.put(feature("f", 0, n), f"c{n}")
        monkeypatch.setattr(Index, "due", counted)
        await replica.put(feature("g", 0, 0), "c7")
        await replica.put(feature("h", 0, 0), "c7")
    assert len(looked_at) <= 3
