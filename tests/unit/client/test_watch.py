"""A watched set: whatever the server sends again after a cut, the caller hears each change once."""

from typing import Any

import grpc
from hypothesis import given
from hypothesis import strategies as st
from signpost.client import Circle, EventKind, FeatureClient, Filter, LeftReason, State
from signpost.client.methods import WATCH_FEATURES
from signpost.client.watch import WatchedSet

from protos.feature.v1 import feature_pb2 as fpb
from tests.unit.client.scripted import FAST, fail, serving

PRESENT, ENTERED = fpb.EVENT_KIND_PRESENT, fpb.EVENT_KIND_ENTERED
MOVED, LEFT = fpb.EVENT_KIND_MOVED, fpb.EVENT_KIND_LEFT
CODE = grpc.StatusCode


def frame(*events: tuple[Any, str, int], position: bytes = b"") -> fpb.WatchFeaturesResponse:
    message = fpb.WatchFeaturesResponse(
        events=fpb.FeatureEvents(
            kinds=[kind for kind, _, _ in events],
            features=[fpb.Feature(id=id) for _, id, _ in events],
            sequences=[sequence for _, _, sequence in events],
        )
    )
    if position:
        message.position.token = position
    return message


def caught_up(position: bytes) -> fpb.WatchFeaturesResponse:
    return fpb.WatchFeaturesResponse(caught_up=fpb.CaughtUp(), position=fpb.Position(token=position))


def told(watched: WatchedSet, *frames: fpb.WatchFeaturesResponse) -> list[tuple[str, str]]:
    return [
        (event.kind.value, event.feature.id if event.feature else "")
        for message in frames
        for event in watched.apply(message)
    ]


def test_a_resume_tells_only_what_happened_meanwhile() -> None:
    watched = WatchedSet()
    watched.snapshot_begins()
    assert told(watched, frame((PRESENT, "a", 1), (PRESENT, "b", 2)), caught_up(b"2")) == [
        ("entered", "a"),
        ("entered", "b"),
        ("caught_up", ""),
    ]
    resumed = frame((PRESENT, "a", 1), (PRESENT, "b", 5), (PRESENT, "c", 6), (LEFT, "x", 7), (LEFT, "a", 8))
    assert told(watched, resumed) == [("moved", "b"), ("entered", "c"), ("left", "a")]
    assert set(watched.features) == {"b", "c"}


def test_after_a_reset_what_is_gone_has_left() -> None:
    watched = WatchedSet()
    watched.snapshot_begins()
    told(watched, frame((PRESENT, "a", 1), (PRESENT, "b", 2), (PRESENT, "c", 3)), caught_up(b"3"))
    reset = fpb.WatchFeaturesResponse(reset=fpb.Reset(reason="POSITION_COMPACTED"))
    assert told(watched, reset, frame((PRESENT, "b", 2), (PRESENT, "d", 9), (LEFT, "c", 10)), caught_up(b"9")) == [
        ("entered", "d"),
        ("left", "c"),
        ("left", "a"),
        ("caught_up", ""),
    ]


def test_the_reasons_of_leaving_are_told() -> None:
    watched = WatchedSet()
    reasons = [fpb.LEFT_REASON_MOVED, fpb.LEFT_REASON_DELETED, fpb.LEFT_REASON_EXPIRED, fpb.LEFT_REASON_FILTER]
    told(watched, frame(*[(ENTERED, str(n), n + 1) for n in range(4)]))
    left = frame(*[(LEFT, str(n), n + 9) for n in range(4)])
    left.events.left_reasons.extend(reasons)
    assert [event.reason for event in watched.apply(left)] == [
        LeftReason.MOVED,
        LeftReason.DELETED,
        LeftReason.EXPIRED,
        LeftReason.FILTER,
    ]


_STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.sampled_from("abcd")),
        st.tuples(st.just("delete"), st.sampled_from("abcd")),
        st.tuples(st.sampled_from(["resume", "reset"]), st.just("")),
    ),
    max_size=40,
)


@given(_STEPS)
def test_the_set_rebuilt_from_events_is_the_servers_whatever_happens(steps: list[tuple[str, str]]) -> None:
    """A model of the server: its set, and the log of changes since the last cut that the client slept through."""
    watched, rebuilt = WatchedSet(), dict[str, int]()
    there: dict[str, int] = {}
    sequence = 0
    missed: dict[str, int] = {}
    asleep = False

    def hear(message: fpb.WatchFeaturesResponse) -> None:
        for event in watched.apply(message):
            if event.feature is None:
                continue
            if event.kind is EventKind.LEFT:
                del rebuilt[event.feature.id]
            else:
                assert (event.feature.id in rebuilt) == (event.kind is EventKind.MOVED)
                assert rebuilt.get(event.feature.id, 0) < event.sequence
                rebuilt[event.feature.id] = event.sequence

    for step, id in [*steps, ("resume", "")]:
        if step in ("put", "delete"):
            sequence += 1
            kind = MOVED if id in there else ENTERED
            if step == "put":
                there[id] = sequence
            elif there.pop(id, None) is None:
                continue
            if asleep:
                missed[id] = sequence
            else:
                hear(frame((LEFT if step == "delete" else kind, id, sequence)))
            continue
        if asleep and step == "resume":
            hear(frame(*[(PRESENT if i in there else LEFT, i, n) for i, n in missed.items()]))
            hear(caught_up(b"p"))
        elif asleep:
            hear(fpb.WatchFeaturesResponse(reset=fpb.Reset()))
            hear(frame(*[(PRESENT, i, n) for i, n in there.items()]))
            hear(caught_up(b"p"))
        if asleep:
            assert rebuilt == there
            assert set(watched.features) == set(there)
        missed.clear()
        asleep = not asleep


async def test_a_watch_resumes_from_its_position_and_starts_again_without_one() -> None:
    async def first(request: Any, context: Any) -> Any:
        yield frame((PRESENT, "a", 1), (PRESENT, "b", 1))  # cut within the snapshot: no position yet
        await fail(context, CODE.UNAVAILABLE)

    async def second(request: Any, context: Any) -> Any:
        yield frame((PRESENT, "a", 1), (PRESENT, "c", 2))  # b is gone meanwhile
        yield caught_up(b"2")
        yield frame((ENTERED, "d", 3), position=b"3")
        yield fpb.WatchFeaturesResponse(progress=fpb.Progress(), position=fpb.Position(token=b"9"))
        await fail(context, CODE.UNAVAILABLE)

    async def third(request: Any, context: Any) -> Any:
        yield frame((LEFT, "d", 10), (PRESENT, "c", 2), position=b"10")
        await fail(context, CODE.PERMISSION_DENIED)

    async with (
        serving({WATCH_FEATURES: [first, second, third]}) as server,
        FeatureClient(server.target, settings=FAST) as client,
    ):
        area, filters = Circle((1.0, 2.0), 500.0), [Filter("kind", "==", "bus")]
        async with client.watch(area, filters=filters, min_position=b"m") as watch:
            got = [(e.kind.value, e.feature.id if e.feature else "") for e in [await anext(watch) for _ in range(7)]]
            assert watch.status.state is State.CONNECTED
            assert watch.position == b"10"
            assert set(watch.features) == {"a", "c"}
    assert got == [
        ("entered", "a"),
        ("entered", "b"),
        ("entered", "c"),
        ("left", "b"),
        ("caught_up", ""),
        ("entered", "d"),
        ("left", "d"),
    ]
    assert [r.HasField("resume") for r in server.requests] == [False, False, True]
    assert server.requests[2].resume.token == b"9"
    assert server.requests[1].min_position.token == b"m"
    assert not server.requests[2].HasField("min_position")


async def test_batches_leave_out_frames_without_events() -> None:
    async def script(request: Any, context: Any) -> Any:
        yield fpb.WatchFeaturesResponse(progress=fpb.Progress())
        yield frame((PRESENT, "a", 1), (PRESENT, "b", 1))
        yield caught_up(b"1")

    async with serving({WATCH_FEATURES: [script]}) as server, FeatureClient(server.target, settings=FAST) as client:
        sizes = [len(events) async for events in client.watch().batches()]
    assert sizes == [2, 1]
