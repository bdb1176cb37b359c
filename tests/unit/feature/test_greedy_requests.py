"""What one legal request may cost the others: little of the event loop, and a bounded share of memory."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from feature_service import filters
from feature_service import nearest as nearest_module
from feature_service.areas import Polygon
from feature_service.filters import Filter
from feature_service.geometry import unit_vector
from feature_service.index import Snapshot
from feature_service.nearest import Nearest, NearestQuery, nearest_in_parts, nearest_quickly
from feature_service.nearest_stream import NearestAnswerer
from feature_service.rings import ring
from feature_service.search import Question, search, search_quickly

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import feature, parts
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
