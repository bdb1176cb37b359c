"""Fences against brute force: whatever moves, the events tell every fence's set, and nothing else."""

import time
from collections.abc import Sequence

import numpy as np
from feature_service.areas import Area, Box, Circle
from feature_service.fences.engine import FenceEngine, Outcome
from feature_service.fences.index import FenceIndex
from feature_service.fences.model import Change, Dwell, Event, Fence, Gone, Key
from feature_service.filters import Filter, exists
from feature_service.geometry import unit_vector
from hypothesis import given
from hypothesis import strategies as st

from protos.feature.v1.feature_pb2 import Feature, FenceEvent, LeftReason
from protos.feature.v1.feature_pb2 import Fence as FenceMessage

ENTERED, LEFT = FenceEvent.FENCE_EVENT_ENTERED, FenceEvent.FENCE_EVENT_LEFT
INSIDE, DWELLED = FenceEvent.FENCE_EVENT_INSIDE, FenceEvent.FENCE_EVENT_DWELLED
DEGREE = 10_000_000

latitudes = st.integers(-90, 90).map(lambda d: d * DEGREE)
longitudes = st.one_of(st.integers(-180, 180), st.sampled_from([-180, 179, 180])).map(lambda d: d * DEGREE)
circles = st.builds(Circle, latitudes, longitudes, st.floats(1.0, 3e6))


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    south, north = sorted((draw(latitudes), draw(latitudes)))
    return Box(south, draw(longitudes), north, draw(longitudes))


def fence(
    uid: str, area: Area, *, start: int = 0, events: Sequence[FenceEvent] = (ENTERED, LEFT, INSIDE), dwell_ms: int = 0
) -> Fence:
    message = FenceMessage(id=uid, uid=uid, revision=1, collection="c", events=events, dwell_time_ms=dwell_ms)
    return Fence(message, area, (), start)


def put(sequence: int, feature_id: str, latitude: int, longitude: int) -> Change:
    feature = Feature(id=feature_id)
    feature.location.latitude, feature.location.longitude = latitude, longitude
    encoded = feature.SerializeToString()
    return Change(Key("c", feature_id), sequence, sequence * 1_000_000_000, encoded, latitude, longitude)


def gone(sequence: int, feature_id: str) -> Change:
    return Change(Key("c", feature_id), sequence, sequence, None, gone=LeftReason.LEFT_REASON_DELETED)


moves = st.lists(
    st.tuples(st.sampled_from("abcd"), st.one_of(st.none(), st.tuples(latitudes, longitudes))), min_size=1, max_size=40
)


def in_area(area: Area, at: tuple[int, int]) -> bool:
    return area.contains_point(*at, unit_vector(*at))


@given(st.lists(st.one_of(circles, boxes()), min_size=1, max_size=80), moves, st.integers(1, 7))
def test_the_events_rebuild_every_fences_set(
    areas: list[Area], moved: list[tuple[str, tuple[int, int] | None]], page: int
) -> None:
    engine = FenceEngine()
    for number, area in enumerate(areas):
        engine.put(fence(f"f{number}", area))
    changes = [
        gone(at, name) if where is None else put(at, name, *where) for at, (name, where) in enumerate(moved, start=1)
    ]
    told: dict[str, set[str]] = {uid: set() for uid in engine.fences}
    events: list[Event] = []
    for begin in range(0, len(changes), page):
        events += engine.apply(changes[begin : begin + page]).events
    for event in events:
        inside = told[event.fence.uid]
        assert (event.key.id in inside) == (event.kind != ENTERED)
        (inside.discard if event.kind == LEFT else inside.add)(event.key.id)
    last = dict(moved)
    for number, area in enumerate(areas):
        expected = {name for name, where in last.items() if where is not None and in_area(area, where)}
        assert told[f"f{number}"] == expected
        assert {m.key.id for m in engine.members(f"f{number}")} == expected
    assert len({e.message_id + e.key.id for e in events}) == len(events)


@given(st.lists(circles, min_size=1, max_size=5), moves, st.data())
def test_a_replay_from_a_kept_state_tells_nothing_new(
    areas: list[Area], moved: list[tuple[str, tuple[int, int] | None]], data: st.DataObject
) -> None:
    changes = [
        gone(at, name) if where is None else put(at, name, *where) for at, (name, where) in enumerate(moved, start=1)
    ]
    fences = [fence(f"f{number}", area) for number, area in enumerate(areas)]

    def all_events(engine: FenceEngine, some: Sequence[Change]) -> set[str]:
        return {f"{e.message_id} {e.key.id} {e.reason}" for e in engine.apply(some).events}

    whole = FenceEngine()
    for each in fences:
        whole.put(each)
    expected = all_events(whole, changes)
    crash, back = sorted((data.draw(st.integers(0, len(changes))), data.draw(st.integers(0, len(changes)))))[::-1]
    first, second = FenceEngine(), FenceEngine()
    for each in fences:
        first.put(each)
        second.put(each)
    told: set[str] = set()
    for change in changes[:crash]:
        outcome = first.apply([change])
        told |= {f"{e.message_id} {e.key.id} {e.reason}" for e in outcome.events}
        for (uid, key), member in outcome.members.items():
            if isinstance(member, Gone):
                second.restore_left(uid, key, member)
    for each in fences:
        for member in first.members(each.uid):
            second.restore(each.uid, member)
    again = all_events(second, changes[back:])
    assert not again & told
    assert told | again == expected


def test_fault_30_a_move_over_the_antimeridian_crosses_no_fence_at_longitude_0() -> None:
    engine = FenceEngine()
    engine.put(fence("meridian", Box(-90 * DEGREE, -DEGREE, 90 * DEGREE, DEGREE)))
    events = engine.apply([put(1, "a", 0, 1_799_000_000), put(2, "a", 0, -1_799_000_000)]).events
    assert events == []


def test_a_fence_that_is_removed_tells_who_was_inside() -> None:
    engine = FenceEngine()
    engine.put(fence("f", Circle(0, 0, 1000)))
    engine.apply([put(1, "a", 0, 0), put(2, "b", 0, 100)])
    outcome = engine.remove("f", notify=True)
    assert {(e.key.id, e.reason) for e in outcome.events} == {
        ("a", LeftReason.LEFT_REASON_FENCE_REMOVED),
        ("b", LeftReason.LEFT_REASON_FENCE_REMOVED),
    }
    assert len({e.message_id for e in outcome.events}) == 2
    # A replay passes over what was known when it was removed.
    assert set(outcome.members.values()) == {Gone(1), Gone(2)}
    assert engine.apply([put(3, "a", 0, 5)]).events == []


def test_a_new_revision_tells_the_difference() -> None:
    engine = FenceEngine()
    engine.begin(fence("f", Circle(0, 0, 1000)), [put(1, "a", 0, 0), put(2, "b", 0, 10)], notify=False)
    outcome = engine.begin(
        fence("f", Circle(0, 0, 1000), start=9), [put(2, "b", 0, 10), put(4, "c", 0, 20)], notify=True
    )
    assert [(e.kind, e.key.id) for e in outcome.events] == [(LEFT, "a"), (ENTERED, "c")]


def test_a_filter_that_becomes_false_is_why_it_left() -> None:
    engine = FenceEngine()
    engine.put(Fence(fence("f", Circle(0, 0, 1000)).message, Circle(0, 0, 1000), (Filter("on", exists),), 0))
    here = put(1, "a", 0, 0)
    on = Feature.FromString(here.feature or b"")
    on.properties["on"] = True
    events = engine.apply([here._replace(feature=on.SerializeToString()), here._replace(sequence=2)]).events
    assert [(e.kind, e.reason) for e in events] == [
        (ENTERED, LeftReason.LEFT_REASON_UNSPECIFIED),
        (LEFT, LeftReason.LEFT_REASON_FILTER),
    ]


def test_a_stay_is_told_once() -> None:
    engine = FenceEngine()
    engine.put(fence("f", Circle(0, 0, 1000), events=[DWELLED], dwell_ms=5000))
    engine.apply([put(1, "a", 0, 0), put(2, "a", 0, 5)])
    assert list(engine.due_dwells(5_999_999_999)) == []
    ((due, member),) = engine.due_dwells(6_000_000_000)
    dwell = Dwell(member.key, 3, 6_000_000_000, due.uid, member.entered_sequence)
    outcome: Outcome = engine.apply([dwell, dwell._replace(sequence=4)])
    assert [(e.kind, e.sequence) for e in outcome.events] == [(DWELLED, 3)]
    engine.apply([gone(5, "a"), put(6, "a", 0, 0)])
    assert [m.entered_sequence for _, m in engine.due_dwells(2**62)] == [6]


def test_a_stay_that_was_long_enough_is_told_though_nobody_recorded_it() -> None:
    engine = FenceEngine()
    engine.put(fence("f", Circle(0, 0, 1000), events=[LEFT, DWELLED], dwell_ms=5000))
    engine.apply([put(1, "long", 0, 0), put(2, "short", 0, 0)])
    outcome = engine.apply([put(6, "long", 9 * DEGREE, 0), put(6, "short", 9 * DEGREE, 0)])
    told = [(e.kind, e.key.id, e.sequence, Feature.FromString(e.feature).location.latitude) for e in outcome.events]
    assert told == [(DWELLED, "long", 6, 0), (LEFT, "long", 6, 9 * DEGREE), (LEFT, "short", 6, 9 * DEGREE)]
    # Recorded too late by a relay that stood still.
    assert not engine.apply([Dwell(Key("c", "long"), 7, 7_000_000_000, "f", 1)]).events


def test_a_revision_with_another_dwell_time_tells_a_stay_then_and_no_sooner() -> None:
    for dwell_ms, due in ((60_000, [61_000_000_000]), (0, [])):
        engine = FenceEngine()
        engine.put(fence("f", Circle(0, 0, 1000), events=[DWELLED], dwell_ms=5000))
        engine.apply([put(1, "a", 0, 0)])
        engine.put(fence("f", Circle(0, 0, 1000), events=[DWELLED] if dwell_ms else [ENTERED], dwell_ms=dwell_ms))
        times = [now for now in (6_000_000_000, 61_000_000_000) for _ in engine.due_dwells(now)]
        assert times == due


def test_fences_that_lie_over_each_other_cost_a_point_no_more_than_their_number() -> None:
    index = FenceIndex()
    for n in range(3000):
        index.put(fence(f"f{n}", Circle(0, 0, 1000)))
    origin = np.zeros(1, np.int32)
    index.candidates(origin, origin)
    begin = time.thread_time()
    found = index.candidates(origin, origin)[0]
    assert time.thread_time() - begin < 0.2
    assert sorted(each.uid for each in found) == sorted(f"f{n}" for n in range(3000))


def test_stays_that_end_and_fences_that_are_put_again_leave_nothing_to_wait_for() -> None:
    engine = FenceEngine()
    week = fence("f", Circle(0, 0, 1000), events=[DWELLED], dwell_ms=604_800_000)
    for n in range(1, 4000):
        engine.put(week)
        engine.apply(
            [put(4 * n, "stays", 0, 0), put(4 * n + 1, "comes and goes", 0, 0), gone(4 * n + 2, "comes and goes")]
        )
    assert len(engine._dwells) < 2000
    assert [member.key.id for _, member in engine.due_dwells(2**62)] == ["stays"]
