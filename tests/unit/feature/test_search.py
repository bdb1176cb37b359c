"""Every answer of the index equals comparing all features, while changes and rebuilds go on."""

import dataclasses
import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from feature_service import filters
from feature_service import nearest as nearest_module
from feature_service.areas import Area, Box, Circle, Polygon
from feature_service.filters import Filter
from feature_service.geometry import bound, unit_vector
from feature_service.index import TAIL, UNASKED_TAIL, Index, Snapshot
from feature_service.items import to_item
from feature_service.nearest import NearestQuery, nearest
from feature_service.records import Change, Kind
from feature_service.rings import ring
from feature_service.search import After, Found, Question, search, search_in_parts
from feature_service.table import Properties
from hypothesis import given, settings
from hypothesis import strategies as st

from protos.feature.v1.feature_pb2 import Feature
from tests.unit.feature import oracle
from tests.unit.feature.oracle import DATE_LINE, POLE, Place, Point


def item_of(place: Place, **properties: float | str | bool | None) -> bytes:
    feature = Feature(id=place.id)
    feature.location.latitude, feature.location.longitude = place.latitude, place.longitude
    feature.properties.update(properties)
    return to_item(feature.SerializeToString(deterministic=True))


class World:
    """An index, and the same features in a dictionary."""

    def __init__(self) -> None:
        self.index = Index()
        self.places: dict[str, Place] = {}
        self.sequence = 0

    def put(self, places: Sequence[Place]) -> None:
        changes = []
        for place in places:
            self.sequence += 1
            self.places[place.id] = place
            change = Change(
                Kind.PUT, place.id, self.sequence, self.sequence, item_of(place), place.latitude, place.longitude
            )
            changes.append(change)
        self.index.apply(changes, self.sequence)

    def delete(self, ids: Sequence[str]) -> None:
        changes = []
        for each in ids:
            self.sequence += 1
            self.places.pop(each, None)
            changes.append(Change(Kind.DELETED, each, self.sequence, self.sequence))
        self.index.apply(changes, self.sequence)

    def rebuild(self, *, everything: bool) -> None:
        rebuild = self.index.begin(everything=everything)
        rebuild.run()
        self.index.install(rebuild)


def ids_of(snapshot: Snapshot, found: Found) -> list[str]:
    ids: list[str] = snapshot.columns.ids[found.slots].tolist()
    return ids


def check_nearest(snapshot: Snapshot, found: Found, origin: Point, places: Sequence[Place], limit: int | None) -> None:
    """The answer is in order, of right distances, without repeats, and nothing nearer is left out."""
    got = ids_of(snapshot, found)
    by_id = {place.id: place for place in places}
    distances = found.distances.tolist()
    assert len(set(got)) == len(got) == min(len(places), len(places) if limit is None else limit)
    assert list(zip(distances, got, strict=True)) == sorted(zip(distances, got, strict=True))
    for key, distance in zip(got, distances, strict=True):
        right = oracle.distance_m(origin, by_id[key][1:])
        assert abs(right - distance) <= oracle.tolerance_m(right)
    if got:
        last_place, last = by_id[got[-1]], distances[-1]
        for place in set(places) - {by_id[key] for key in got}:
            right = oracle.distance_m(origin, place[1:])
            assert right >= last - 2 * oracle.tolerance_m(right)
            if place[1:] == last_place[1:]:
                assert place.id > last_place.id


ids = st.sampled_from([f"f{n}" for n in range(60)] + ["ä", "Z", "f", "𝄞", "f1 "])
places = st.builds(
    lambda key, point: Place(key, *point), ids, st.one_of(oracle.points, oracle.near_points, oracle.near_points)
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(places, max_size=60)),
        st.tuples(st.just("delete"), st.lists(ids, max_size=10)),
        st.tuples(st.just("middle"), st.none()),
        st.tuples(st.just("everything"), st.none()),
    ),
    min_size=1,
    max_size=8,
)


def build(todo: Sequence[tuple[str, object]]) -> World:
    world = World()
    for what, with_what in todo:
        match what, with_what:
            case "put", list():
                world.put(with_what)
            case "delete", list():
                world.delete(with_what)
            case _:
                world.rebuild(everything=what == "everything")
    return world


@given(steps, st.one_of(oracle.points, oracle.near_points), st.integers(1, 70))
def test_fault_29_nearest_equals_brute_force(todo: list[tuple[str, object]], origin: Point, limit: int) -> None:
    world = build(todo)
    snapshot = world.index.snapshot()
    assert len(world.index) == len(world.places)
    found = search(snapshot, Question(unit_vector(*origin), limit=limit))
    check_nearest(snapshot, found, origin, list(world.places.values()), limit)


@given(steps, st.lists(st.one_of(oracle.points, oracle.near_points), min_size=1, max_size=8), st.integers(1, 12))
def test_nearest_of_a_batch_is_what_each_would_get_alone(
    todo: list[tuple[str, object]], origins: list[Point], k: int
) -> None:
    snapshot = build(todo).index.snapshot()
    for max_distance_m in (0.0, 0.5, 5e6):
        latitudes, longitudes = np.array([p[0] for p in origins]), np.array([p[1] for p in origins])
        answer = nearest(snapshot, NearestQuery.of(latitudes, longitudes, k, max_distance_m, ()))
        reach = bound(max_distance_m) if max_distance_m else math.inf
        begin = 0
        for origin, count in zip(origins, answer.counts.tolist(), strict=True):
            alone = search(snapshot, Question(unit_vector(*origin), limit=k, reach=reach))
            assert answer.slots[begin : begin + count].tolist() == alone.slots.tolist()
            assert answer.distances[begin : begin + count].tolist() == alone.distances.tolist()
            begin += count


def area_of(kind: str, points: list[Point], radius_m: float) -> tuple[Area, object]:
    """An area, and the oracle's opinion of a place."""
    a, b = points[0], points[1]
    match kind:
        case "circle":
            return Circle(*a, radius_m), None
        case "box":
            box = (min(a[0], b[0]), a[1], max(a[0], b[0]), b[1])
            return Box(*box), lambda p: oracle.in_box(p, *box)
        case _:
            exterior = ring(np.array([p[0] for p in points]), np.array([p[1] for p in points]))
            return Polygon(exterior), lambda p: oracle.in_ring(p, points, edge=True)


corners = st.one_of(
    st.lists(oracle.near_points, min_size=3, max_size=5), st.lists(oracle.points, min_size=3, max_size=3)
)


@dataclasses.dataclass
class Asked:
    """A question about an area."""

    kind: str
    points: list[Point]
    radius_m: float
    origin: Point | None
    limit: int | None


asked = st.builds(
    Asked,
    st.sampled_from(["circle", "box", "polygon"]),
    corners,
    st.floats(0.01, 2.5e7),
    st.one_of(st.none(), oracle.points),
    st.one_of(st.none(), st.integers(1, 20)),
)


@given(steps, asked)
def test_fault_28_lists_of_an_area_equal_brute_force(todo: list[tuple[str, object]], asked: Asked) -> None:
    world = build(todo)
    snapshot = world.index.snapshot()
    area, opinion = area_of(asked.kind, asked.points, asked.radius_m)
    if callable(opinion):
        inside = [place for place in world.places.values() if opinion(place[1:])]
    else:
        inside = [p for p in world.places.values() if area.contains_point(p[1], p[2], unit_vector(p[1], p[2]))]
    if asked.origin is None:
        found = search(snapshot, Question(None, area, limit=asked.limit))
        assert ids_of(snapshot, found) == sorted(place.id for place in inside)[: asked.limit]
    else:
        found = search(snapshot, Question(unit_vector(*asked.origin), area, limit=asked.limit))
        check_nearest(snapshot, found, asked.origin, inside, asked.limit)


@given(steps, asked, st.integers(1, 9))
def test_the_parts_of_an_answer_are_the_answer(todo: list[tuple[str, object]], asked: Asked, size: int) -> None:
    snapshot = build(todo).index.snapshot()
    area, _ = area_of(asked.kind, asked.points, asked.radius_m)
    origin = None if asked.origin is None else unit_vector(*asked.origin)
    for question in (Question(origin, area, limit=asked.limit), Question(origin or (0.0, 0.0, 1.0), limit=asked.limit)):
        parts = [part for part in search_in_parts(snapshot, question, size) if part is not None]
        whole = search(snapshot, question)
        assert [slot for part in parts for slot in part.found.slots.tolist()] == whole.slots.tolist()
        assert [d for part in parts for d in part.found.distances.tolist()] == whole.distances.tolist()
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]


@given(steps, steps, oracle.near_points, st.integers(1, 9), st.booleans())
def test_fault_31_a_continuation_gives_each_unchanged_feature_once(
    before: list[tuple[str, object]],
    meanwhile: list[tuple[str, object]],
    origin: Point,
    page: int,
    by_id: bool,
) -> None:
    world = build(before)
    then = dict(world.places)
    question = Question(None if by_id else unit_vector(*origin), Box(-POLE, -DATE_LINE, POLE, DATE_LINE), limit=page)
    snapshot = world.index.snapshot()
    at = snapshot.sequence
    found = search(snapshot, question)
    seen = ids_of(snapshot, found)
    changed: set[str] = set()
    for what, with_what in meanwhile:
        match what, with_what:
            case "put", list():
                changed |= {place.id for place in with_what}
                world.put(with_what)
            case "delete", list():
                changed |= set(with_what)
                world.delete(with_what)
            case _:
                world.rebuild(everything=what == "everything")
    while len(found) == page:
        last = None if by_id else float(found.distances[-1])
        snapshot = world.index.snapshot()
        found = search(snapshot, question._replace(after=After(at, last, seen[-1])))
        seen += ids_of(snapshot, found)
    assert len(set(seen)) == len(seen)
    assert set(then) - changed <= set(seen) <= set(then)
    if by_id:
        assert seen == sorted(seen)


@given(steps, steps, oracle.near_points)
def test_a_snapshot_shows_the_same_for_as_long_as_it_is_held(
    before: list[tuple[str, object]], meanwhile: list[tuple[str, object]], origin: Point
) -> None:
    world = build(before)
    snapshot, then = world.index.snapshot(), list(world.places.values())
    under_way = world.index.begin(everything=True)
    for what, with_what in meanwhile:
        match what, with_what:
            case "put", list():
                world.put(with_what)
            case "delete", list():
                world.delete(with_what)
            case _:
                pass
    under_way.run()
    world.index.install(under_way)
    for limit in (3, None):
        found = search(snapshot, Question(unit_vector(*origin), limit=limit))
        check_nearest(snapshot, found, origin, then, limit)
    after = world.index.snapshot()
    found = search(after, Question(unit_vector(*origin)))
    check_nearest(after, found, origin, list(world.places.values()), None)
    for key, place in world.places.items():
        slot = world.index.slot(key)
        assert slot is not None
        assert world.index.columns.items[slot] == item_of(place)


@dataclasses.dataclass
class Large:
    """Enough features that trees answer, not comparisons: some on one spot, some on the poles, some on the line."""

    world: World
    generator: np.random.Generator

    @classmethod
    def make(cls) -> "Large":
        generator = np.random.default_rng(7)
        large = cls(World(), generator)
        large.world.put([large.place(f"p{n}") for n in range(6000)])
        large.world.rebuild(everything=True)
        for _ in range(3):
            large.move(700)
            large.world.rebuild(everything=False)
        large.world.delete([f"p{n}" for n in range(0, 6000, 17)])
        large.move(500)
        return large

    def place(self, key: str) -> Place:
        draw = self.generator
        match int(draw.integers(0, 8)):
            case 0:
                return Place(key, 500_000_000, 100_000_000)
            case 1:
                return Place(key, POLE - int(draw.integers(0, 3)), int(draw.integers(-DATE_LINE, DATE_LINE)))
            case 2:
                return Place(key, int(draw.integers(-9, 9)), DATE_LINE * int(draw.choice([-1, 1])))
            case _:
                return Place(key, int(draw.integers(-POLE, POLE)), int(draw.integers(-DATE_LINE, DATE_LINE)))

    def move(self, count: int) -> None:
        self.world.put([self.place(f"p{n}") for n in self.generator.integers(0, 6000, count)])


LARGE = Large.make()


@settings(max_examples=40)
@given(
    st.one_of(
        oracle.points, st.sampled_from([(500_000_000, 100_000_000), (POLE, 0), (-POLE, 7), (0, DATE_LINE), (0, 0)])
    ),
    st.sampled_from([1, 2, 10, 100, 700, 1000]),
)
def test_fault_29_trees_equal_brute_force_with_duplicates_and_the_dead(origin: Point, limit: int) -> None:
    world = LARGE.world
    snapshot = world.index.snapshot()
    assert len(snapshot.segments) == 2
    assert snapshot.tail < snapshot.end
    found = search(snapshot, Question(unit_vector(*origin), limit=limit))
    check_nearest(snapshot, found, origin, list(world.places.values()), limit)


@settings(max_examples=40)
@given(oracle.points, st.floats(1e3, 3e6), st.integers(1, 500))
def test_fault_27_circles_by_trees_equal_brute_force(center: Point, radius_m: float, limit: int) -> None:
    world = LARGE.world
    snapshot, circle, vector = world.index.snapshot(), Circle(*center, radius_m), unit_vector(*center)
    inside = [p for p in world.places.values() if circle.contains_point(p[1], p[2], unit_vector(p[1], p[2]))]
    by_reach = search(snapshot, Question(vector, limit=limit, reach=circle.bound))
    by_area = search(snapshot, Question(vector, circle, limit=limit))
    check_nearest(snapshot, by_reach, center, inside, limit)
    assert by_area.slots.tolist() == by_reach.slots.tolist()
    listed = search(snapshot, Question(None, circle))
    assert ids_of(snapshot, listed) == sorted(place.id for place in inside)


def test_nearest_of_a_large_batch_is_what_each_would_get_alone() -> None:
    snapshot, draw = LARGE.world.index.snapshot(), np.random.default_rng(3)
    latitudes = np.concatenate([draw.integers(-POLE, POLE, 150), [500_000_000, POLE, 0]])
    longitudes = np.concatenate([draw.integers(-DATE_LINE, DATE_LINE, 150), [100_000_000, 5, DATE_LINE]])
    for k in (1, 10, 120):
        answer = nearest(snapshot, NearestQuery.of(latitudes, longitudes, k, 0, ()))
        assert answer.counts.tolist() == [k] * len(latitudes)
        for n, origin in enumerate(zip(latitudes.tolist(), longitudes.tolist(), strict=True)):
            alone = search(snapshot, Question(unit_vector(*origin), limit=k))
            assert answer.slots[n * k : (n + 1) * k].tolist() == alone.slots.tolist()
            assert answer.distances[n * k : (n + 1) * k].tolist() == alone.distances.tolist()


def test_fault_32_filters_find_what_a_loop_finds_in_trees_and_rebuilds() -> None:
    index, draw = Index(), np.random.default_rng(5)
    rows: dict[str, tuple[Place, dict[str, float]]] = {}
    changes = []
    for n in range(3000):
        place = Place(f"r{n}", int(draw.integers(-POLE, POLE)), int(draw.integers(-DATE_LINE, DATE_LINE)))
        properties: dict[str, float] = {"size": float(n % 50)} if n % 3 else {}
        rows[place.id] = place, properties
        item = item_of(place, **properties)
        changes.append(Change(Kind.PUT, place.id, n + 1, 0, item, place.latitude, place.longitude))
    index.apply(changes, 3000)
    small, missing = Filter("size", filters.less(3.0)), Filter("size", filters.equal(None))
    origin = (123, 456)
    for everything in (None, True, False):
        if everything is not None:
            rebuild = index.begin(everything=everything)
            rebuild.run()
            index.install(rebuild)
        snapshot = index.snapshot()
        for chosen, opinion in (
            (small, lambda p: p.get("size", 99.0) < 3.0),
            (missing, lambda p: "size" not in p),
        ):
            right = [place for place, properties in rows.values() if opinion(properties)]
            found = search(snapshot, Question(unit_vector(*origin), filters=[chosen], limit=20))
            check_nearest(snapshot, found, origin, right, 20)
            listed = search(snapshot, Question(None, Box(-POLE, -DATE_LINE, POLE, DATE_LINE), [chosen]))
            assert ids_of(snapshot, listed) == sorted(place.id for place in right)


def test_an_index_is_rebuilt_sooner_where_somebody_asks() -> None:
    def puts(begin: int, end: int) -> list[Change]:
        return [Change(Kind.PUT, f"f{n}", n, 0, b"", n, n) for n in range(begin, end)]

    index = Index()
    index.apply(puts(1, 2 * TAIL), 2 * TAIL)
    assert index.due() is None
    found = search(index.snapshot(), Question(unit_vector(0, 0), limit=3))
    assert ids_of(index.snapshot(), found) == ["f1", "f2", "f3"]
    rebuild = index.due()
    assert rebuild is not None
    rebuild.run()
    index.install(rebuild)
    index.apply(puts(2 * TAIL, UNASKED_TAIL), UNASKED_TAIL)
    assert index.due() is None
    index.apply(puts(UNASKED_TAIL, UNASKED_TAIL + 4 * TAIL), UNASKED_TAIL + 4 * TAIL)
    assert index.due() is not None


def test_a_property_that_is_parsed_while_an_index_is_rebuilt_is_not_lost() -> None:
    index = Index()
    item = item_of(Place("a", 0, 0), kind="cafe")
    index.apply([Change(Kind.PUT, "a", 1, 0, item, 0, 0)], 1)
    snapshot, slots = index.snapshot(), np.arange(1)
    column = snapshot.properties.column("kind")

    class Copied(np.ndarray[Any, Any]):
        """Values that another thread parses as soon as they have been copied."""

        def __getitem__(self, part: Any) -> Any:
            copied = super().__getitem__(part).view(np.ndarray)
            column._kept = base.view(np.ndarray), column._kept[1]
            column.values(snapshot.columns, slots)
            return copied

    column.values(snapshot.columns, np.arange(0))
    base, known = column._kept
    column._kept = base.view(Copied), known
    assert column.moved(slots, 10).values(snapshot.columns, slots) == ["cafe"]


def test_filters_of_many_properties_may_be_asked_in_threads() -> None:
    properties, interval = Properties(), sys.getswitchinterval()

    def ask(first: int) -> None:
        for n in range(first, first + 20_000):
            properties.column(f"p{n * 7 % 40}")

    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(ask, range(3))) == [None] * 3
    finally:
        sys.setswitchinterval(interval)


def test_a_rare_property_is_looked_for_once_however_many_origins_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    places = [Place(f"f{n}", n * 7_919 % POLE, n * 104_729 % DATE_LINE) for n in range(3000)]
    index = Index()
    kinds = ["common" if n % 1000 else "rare" for n in range(len(places))]
    again = [(places[0], "common"), (places[5], "rare")]
    changes = [
        Change(Kind.PUT, place.id, n, 0, item_of(place, kind=kind), place.latitude, place.longitude)
        for n, (place, kind) in enumerate([*zip(places, kinds, strict=True), *again], 1)
    ]
    index.apply(changes, len(changes))
    snapshot, asked = index.snapshot(), []

    def counted(of: Snapshot, question: Question) -> Found:
        asked.append(of.end)
        return search(of, question)

    monkeypatch.setattr(nearest_module, "search", counted)
    origins = np.arange(-50, 50) * 10_000_000
    for kind in ("rare", "common", "none"):
        for k, reach in ((1, 0.0), (4, 0.0), (4, 5e6)):
            query = NearestQuery.of(origins, origins, k, reach, [Filter("kind", filters.equal(kind))])
            found = nearest(snapshot, query)
            if kind != "common":
                assert asked.count(snapshot.end) == 0
            begin = 0
            for origin, count in zip(query.origins.tolist(), found.counts.tolist(), strict=True):
                alone = search(snapshot, Question(tuple(origin), None, query.filters, k, query.reach))
                assert found.slots[begin : begin + count].tolist() == alone.slots.tolist()
                assert found.distances[begin : begin + count].tolist() == alone.distances.tolist()
                begin += count
            asked.clear()


def test_a_path_is_found_whichever_of_its_dots_are_in_the_keys() -> None:
    properties = Feature().properties
    properties.update({"a": {"x": 1.0, "b.c": {"d": "in a"}}, "a.b": {"f": 2.0, "c.e": True}, "a.b.y": "whole"})
    paths = {"a.x": 1.0, "a.b.f": 2.0, "a.b.c.d": "in a", "a.b.c.e": True, "a.b.y": "whole", "a.y": None, "x": None}
    assert {path: filters.property_of(properties, path) for path in paths} == paths
