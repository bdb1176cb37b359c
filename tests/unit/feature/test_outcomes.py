"""What changes are to selections, beside each selection asked about each change alone."""

from collections.abc import Iterator, Sequence

from feature_service.cover import Cover
from feature_service.events import FRAME_BYTES, FRAME_EVENTS, Event, events_frame, left
from feature_service.filters import Filter, not_equal
from feature_service.geometry import WHOLE, unit_vector
from feature_service.items import to_feature, to_feature_bytes, to_item
from feature_service.lanes import Frames, Lane
from feature_service.outcomes import Outcomes, Part
from feature_service.projection import Applied, Version
from feature_service.records import Kind
from feature_service.selections import Selection
from feature_service.validation import Problems, area_of
from hypothesis import given
from hypothesis import strategies as st
from signpost.client import Box, Circle, Polygon
from signpost.client.geo import Area

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import feature
from tests.unit.feature.rebuilt import PLACES

AREAS: tuple[Area | None, ...] = (
    None,
    Box(-1e-6, 179.9999, 1e-6, 1e-6),
    Circle((0.0, 0.0), 1.0),
    Circle((0.0, 0.0), 1.1),
    Polygon([(-1e-6, -1e-6), (-1e-6, 1e-6), (1e-6, 1e-6), (1e-6, -1e-6)]),
)


def selection(area: Area | None, *, filtered: bool) -> Selection:
    """As a watch makes it."""
    request = pb.WatchFeaturesRequest()
    made = None
    if area is not None:
        request.area.CopyFrom(area.to_area())
        made = area_of(Problems(), "area", request.area)
    if filtered:
        request.filters.add(property="kind", operator=pb.FILTER_OPERATOR_NOT_EQUAL).value.string_value = "bus"
    return Selection("places", made, [Filter("kind", not_equal("bus"))] if filtered else [], request)


SELECTIONS = [selection(area, filtered=filtered) for area in AREAS for filtered in (False, True)]

Standing = tuple[tuple[int, int], str] | None
standings: st.SearchStrategy[Standing] = st.none() | st.tuples(
    st.sampled_from(PLACES), st.sampled_from(["bus", "tram"])
)


def version(key: str, standing: Standing, sequence: int) -> Version | None:
    if standing is None:
        return None
    (latitude, longitude), kind = standing
    item = to_item(feature(key, latitude, longitude, kind=kind).SerializeToString())
    return Version(item, latitude, longitude, unit_vector(latitude, longitude), sequence, sequence * 10)


def change(sequence: int, before: Standing, after: Standing, kind: Kind) -> Applied:
    kind = Kind.PUT if after is not None else kind
    key = f"f{sequence}"
    return Applied(
        "places", kind, key, version(key, before, 1), version(key, after, sequence), sequence, sequence * 10, 0
    )


changes = st.lists(
    st.tuples(standings, standings, st.sampled_from([Kind.DELETED, Kind.EXPIRED])), min_size=1, max_size=30
).map(lambda drawn: [change(sequence, *each) for sequence, each in enumerate(drawn, 100)])


def plainly(chosen: Selection, changes: Sequence[Applied]) -> Iterator[Event]:
    """The events, each feature looked at by itself."""

    def in_set(there: Version | None) -> bool:
        return there is not None and in_area(there) and chosen.in_filters(to_feature(there.item).properties)

    def in_area(there: Version | None) -> bool:
        return there is not None and chosen.in_area(there.latitude, there.longitude, there.vector)

    for each in changes:
        was, now = in_set(each.before), in_set(each.after)
        if now and each.after is not None:
            kind = pb.EVENT_KIND_MOVED if was else pb.EVENT_KIND_ENTERED
            yield Event(kind, each.after.item, each.sequence, each.time_ns)
        elif was:
            yield left(each.kind, each.id, in_area(each.after), each.sequence, each.time_ns)


def told(outcomes: Outcomes) -> dict[Selection, list[Part]]:
    """What each selection is told, by way of a cover."""
    cover: Cover[Selection] = Cover()
    for each in SELECTIONS:
        cover.add(each, (WHOLE,) if each.area is None else each.area.spans)
    points: dict[Selection, list[Sequence[int]]] = {each: [] for each in SELECTIONS}
    for keys, numbers in cover.among(outcomes.points()):
        for key in keys:
            points[key].append(numbers)

    def parts(chosen: Selection) -> list[Part]:
        asking = outcomes.codes(chosen, points[chosen])
        while True:
            try:
                next(asking)
            except StopIteration as end:
                codes: bytes = end.value
                return outcomes.parts(codes)

    return {each: parts(each) for each in SELECTIONS}


def events_of(part: Part) -> list[Event]:
    frame = pb.WatchFeaturesResponse.FromString(events_frame(part.content, part.position))
    assert frame.position.token == part.position
    events = frame.events
    items = [to_item(each.SerializeToString(deterministic=True)) for each in events.features]
    columns = events.kinds, items, events.sequences, events.change_times_ns, events.left_reasons
    return [Event(*row) for row in zip(*columns, strict=True)]


def plain(event: Event) -> Event:
    """With its feature encoded as `events_of` does."""
    each = pb.Feature.FromString(to_feature_bytes(event.item))
    return event._replace(item=to_item(each.SerializeToString(deterministic=True)))


@given(changes)
def test_each_selection_is_told_what_it_would_be_told_alone(changes: list[Applied]) -> None:
    found = told(Outcomes(changes, 1000, b"there"))
    for chosen, parts in found.items():
        expected = [plain(each) for each in plainly(chosen, changes)]
        assert [event for part in parts for event in events_of(part)] == expected
        assert [(part.through, part.position) for part in parts] == [(1000, b"there")][: len(parts)]
        assert sum(part.events for part in parts) == len(expected)


@given(changes)
def test_who_sees_the_same_is_told_the_same_bytes(changes: list[Applied]) -> None:
    found = told(Outcomes(changes, 1000, b"there"))
    by_events: dict[tuple[Event, ...], list[Part]] = {}
    for chosen, parts in found.items():
        known = by_events.setdefault(tuple(plainly(chosen, changes)), parts)
        assert parts == known
        assert all(mine is theirs for mine, theirs in zip(parts, known, strict=True))


def test_what_is_too_large_for_a_frame_is_several_parts() -> None:
    large = feature("large", 0, 0, text="x" * 60_000)
    made = Version(to_item(large.SerializeToString()), 0, 0, unit_vector(0, 0), 1, 10)
    rows = [Applied("places", Kind.PUT, "large", None, made, n, 10 * n, 0) for n in range(1, 41)]
    parts = told(Outcomes(rows, 50, b"there"))[SELECTIONS[0]]
    assert [(part.through, part.position) for part in parts] == [(17, b""), (34, b""), (50, b"there")]
    assert all(len(part.content) <= FRAME_BYTES + 1000 for part in parts)


def test_filters_are_asked_once_of_each_feature_whoever_has_them() -> None:
    asked = 0

    def holds(value: object) -> bool:
        nonlocal asked
        asked += 1
        return value != "bus"

    rows = [change(n, ((0, 0), "bus"), ((0, 0), "tram"), Kind.DELETED) for n in range(1, 6)]
    outcomes = Outcomes(rows, 10, b"there")
    for area in AREAS[2:]:
        plainly_made = selection(area, filtered=True)
        plainly_made.filters = (Filter("kind", holds),)
        for _ in outcomes.codes(plainly_made, [range(10)]):
            pass
    assert asked == 10


def part(n: int, events: int = 1, size: int = 10) -> Part:
    content = pb.FeatureEvents(sequences=[n] * events, features=[pb.Feature(id="x" * size)]).SerializeToString()
    return Part(content, events, n, b"p%d" % n)


def taken(frames: Frames) -> list[tuple[list[int], bytes]]:
    read = [pb.WatchFeaturesResponse.FromString(each) for each in frames.frames]
    return [(list(frame.events.sequences), frame.position.token) for frame in read]


def test_a_chain_joins_parts_into_frames_and_makes_them_once() -> None:
    lane = Lane(SELECTIONS[0])
    begin = lane.end
    for n in range(1, 4):
        lane.add(part(n))
    assert lane.shown is begin
    lane.show()
    frames = begin.frames(lane.shown)
    assert taken(frames) == [([1, 2, 3], b"p3")]
    assert (frames.events, frames.position) == (3, b"p3")
    assert begin.frames(lane.shown) is frames
    lane.add(part(4))
    lane.show()
    assert taken(begin.frames(lane.shown)) == [([1, 2, 3, 4], b"p4")]
    assert taken(begin.frames(begin.upto(2))) == [([1, 2], b"p2")]


def test_a_frame_has_a_bound_and_each_moves_the_position_as_far_as_it_goes() -> None:
    lane = Lane(SELECTIONS[0])
    begin = lane.end
    for n, (events, size) in enumerate([(600, 1), (400, 1), (1, 1), (1, FRAME_BYTES), (1, 1)], 1):
        lane.add(part(n, events, size))
    lane.add(part(6)._replace(position=b""))
    lane.show()
    frames = begin.frames(lane.shown)
    assert taken(frames) == [([1] * 600 + [2] * 400, b"p2"), ([3], b"p3"), ([4], b"p4"), ([5, 6], b"")]
    assert frames.events == 1004
    assert frames.position == b"p5"
    assert FRAME_EVENTS == 1000
