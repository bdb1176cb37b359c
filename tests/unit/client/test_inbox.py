"""The receiving side of a subscription: order, dedupe, gaps, windows."""

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signpost import errors
from signpost.client.inbox import Inbox
from signpost.client.instruments import NoInstruments
from signpost.client.notifications import Gap
from signpost.client.positions import Position
from signpost.client.session import parse_frame

from protos.notification.v1 import notification_pb2 as npb


class Frames:
    """A stream: what was sent on it."""

    def __init__(self) -> None:
        self.sent: list[npb.ConnectRequest] = []

    def send(self, frame: npb.ConnectRequest) -> None:
        self.sent.append(frame)


class Counting(NoInstruments):
    def __init__(self) -> None:
        self.dropped = 0
        self.gaps = 0

    def duplicates(self, stream: str, count: int) -> None:
        self.dropped += count

    def gap(self, stream: str) -> None:
        self.gaps += 1


def inbox_of(on_gap: object = "raise", window: int = 1000, group: str = "") -> Inbox:
    frame = npb.SubscribeFrame(subscription="s", filter=">", window_bytes=window, group=group)
    frame.start.new.SetInParent()
    return Inbox(frame, on_gap, Counting())  # type: ignore[arg-type]


def delivery(after: int, through: int, *sequences: int, size: int = 0) -> npb.Delivery:
    records = [npb.Notification(sequence=s, topic="t", payload=b"x" * size) for s in sequences]
    position = npb.Position(token=b"%d" % through)
    return npb.Delivery(subscription="s", after=after, through=through, position=position, notifications=records)


def give(inbox: Inbox, message: npb.Delivery, stream: Frames) -> None:
    inbox.delivered(message, message.ByteSize(), stream)


def taken(inbox: Inbox) -> list[int]:
    got = [n.sequence for batch in inbox.waiting for n in batch]
    inbox.waiting.clear()
    return got


async def test_fault_2_before_the_first_delivery_it_resumes_from_subscribed() -> None:
    inbox = inbox_of()
    assert inbox.subscribe_frame().subscribe.start.HasField("new")
    inbox.subscribed(npb.Subscribed(position=npb.Position(token=b"here")))
    assert inbox.started.is_set()
    assert inbox.subscribe_frame().subscribe.start.after.token == b"here"
    inbox.subscribed(npb.Subscribed(position=npb.Position(token=b"elsewhere")))
    assert inbox.subscribe_frame().subscribe.start.after.token == b"here"


async def test_overlapping_streams_are_taken_once_and_progress_moves_the_position() -> None:
    inbox, old, new = inbox_of(), Frames(), Frames()
    inbox.session = old
    give(inbox, delivery(0, 3, 1, 3), old)
    give(inbox, delivery(0, 5, 1, 3, 5), new)
    give(inbox, delivery(3, 5, 5), old)
    give(inbox, delivery(5, 9), new)
    assert taken(inbox) == [1, 3, 5]
    assert inbox.subscribe_frame().subscribe.start.after.token == b"9"
    assert inbox._instruments.dropped == 3  # type: ignore[attr-defined]


async def test_a_missing_delivery_is_noticed() -> None:
    inbox = inbox_of()
    give(inbox, delivery(0, 3, 1), Frames())
    with pytest.raises(errors.Internal) as caught:
        give(inbox, delivery(4, 6, 5), Frames())
    assert caught.value.reason == "NOT_CONTIGUOUS"


async def test_positions_inside_a_batch_are_exact() -> None:
    inbox = inbox_of()
    inbox.subscribed(npb.Subscribed(position=npb.Position(token=b"0")))
    give(inbox, delivery(0, 9, 3, 5, 7), Frames())
    batch = await inbox.take()
    assert [n.position for n in batch] == [Position(b"0", 3), Position(b"0", 5), Position(b"9", 9)]
    resumed = inbox_of()
    resumed.token, resumed.covered = b"0", 3  # handed in after a restart
    assert resumed.subscribe_frame().subscribe.start.after.token == b"0"
    give(resumed, delivery(0, 9, 3, 5, 7), Frames())
    batch = await resumed.take()
    assert [n.sequence for n in batch] == [5, 7]
    assert batch[-1].sequence == 7
    assert [n.sequence for n in batch[:1]] == [5]
    assert len(batch.payloads) == 2
    with pytest.raises(IndexError):
        batch[2]


async def test_the_window_bounds_what_is_buffered_and_is_given_back() -> None:
    inbox, stream = inbox_of(window=1000), Frames()
    inbox.session = stream
    for n in range(4):
        give(inbox, delivery(n + 1, n + 2, n + 2, size=200), stream)
    size = delivery(1, 2, 2, size=200).ByteSize()
    assert inbox.buffered_bytes == 4 * size
    assert inbox.subscribe_frame().subscribe.window_bytes == 1000 - 4 * size
    for _ in range(2):
        inbox.handled(await inbox.take())
    assert [f.credit.bytes for f in stream.sent] == [2 * size]
    inbox.session = Frames()  # the next stream was asked for what is free
    give(inbox, delivery(0, 1, 1, size=200), stream)
    inbox.handled(await inbox.take())
    inbox.handled(await inbox.take())
    assert len(stream.sent) == 1
    assert inbox.buffered_bytes == 0


async def test_a_duplicate_gives_its_window_back_at_once() -> None:
    inbox, stream = inbox_of(window=100), Frames()
    inbox.session = stream
    inbox.covered = 5
    give(inbox, delivery(0, 3, 1, size=50), stream)
    assert stream.sent[0].credit.bytes == delivery(0, 3, 1, size=50).ByteSize()
    assert not inbox.waiting


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (npb.GAP_REASON_RETENTION, errors.PositionCompacted),
        (npb.GAP_REASON_EPOCH_CHANGED, errors.EpochChanged),
        (npb.GAP_REASON_LOG_REWOUND, errors.LogRewound),
    ],
)
async def test_fault_13_a_gap_raises_after_what_came_before_it(
    reason: npb.GapReason, kind: type[errors.PositionError]
) -> None:
    inbox = inbox_of()
    give(inbox, delivery(0, 3, 1), Frames())
    inbox.gap(npb.Gap(subscription="s", first_available=7, reason=reason))
    give(inbox, delivery(6, 8, 7), Frames())  # it is there before the caller asks, and must not hide the gap
    assert [n.sequence for n in await inbox.take()] == [1]
    with pytest.raises(kind) as caught:
        await inbox.take()
    assert caught.value.first_available == 7
    inbox.fail(errors.Internal("later"))
    with pytest.raises(kind):
        await inbox.take()


async def test_fault_12_after_a_gap_it_goes_on_where_the_caller_wants_that(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Gap] = []
    inbox = inbox_of(seen.append)
    give(inbox, delivery(100, 103, 101), Frames())
    inbox.subscribe_frame()
    inbox.subscribed(npb.Subscribed(position=npb.Position(token=b"new")))
    with caplog.at_level(logging.WARNING, "signpost.client"):
        inbox.gap(npb.Gap(subscription="s", first_available=1, reason=npb.GAP_REASON_EPOCH_CHANGED))
    assert inbox.subscribe_frame().subscribe.start.after.token == b"new"  # cut before the first delivery
    give(inbox, delivery(0, 2, 1, 2), Frames())  # the numbers begin anew
    assert taken(inbox) == [101, 1, 2]
    assert seen == [inbox.last_gap]
    assert seen[0].first_available == 1
    assert inbox._instruments.gaps == 1  # type: ignore[attr-defined]
    assert "s has a gap" in caplog.text


async def test_a_gap_callback_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def callback(gap: Gap) -> None:
        raise RuntimeError("a bug of the caller's")

    inbox = inbox_of(callback)
    inbox.gap(npb.Gap(subscription="s", first_available=1))
    give(inbox, delivery(0, 2, 1), Frames())
    assert taken(inbox) == [1]
    assert "a gap callback raised" in caplog.text


async def test_a_group_takes_everything_in_any_order() -> None:
    inbox = inbox_of(group="g")
    stream = inbox.session = Frames()
    give(inbox, delivery(5, 9, 9, 7), stream)
    again = delivery(2, 3, 3)
    again.redeliveries.append(2)
    give(inbox, again, stream)
    assert [(n.sequence, n.redeliveries) for b in inbox.waiting for n in b] == [(9, 0), (7, 0), (3, 2)]
    assert inbox.subscribe_frame().subscribe.start.HasField("new")


async def test_what_waits_of_a_group_goes_with_its_stream() -> None:
    inbox = inbox_of(group="g")
    old = inbox.session = Frames()
    give(inbox, delivery(0, 2, 1, 2, size=300), old)
    assert inbox.buffered_bytes > 600
    new = inbox.session = Frames()
    assert inbox.subscribe_frame().subscribe.window_bytes == inbox.window
    give(inbox, delivery(0, 3, 3), old)  # draining, and not over yet
    give(inbox, delivery(0, 2, 2), new)
    inbox.left(old)
    assert taken(inbox) == [2]
    give(inbox, delivery(0, 4, 4), new)
    inbox.left(new)
    assert taken(inbox) == []


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 12)), max_size=30))
def test_fault_1_any_overlap_is_contiguous_or_noticed(steps: list[tuple[int, int]]) -> None:
    """Deliveries that begin at or before what is covered, as a server that resumes sends them."""
    inbox = inbox_of()
    inbox.covered = 0
    got: list[int] = []
    for back, length in steps:
        after = max(0, (inbox.covered or 0) - back)
        matching = range(after + 1, after + length + 1)
        give(inbox, delivery(after, after + length, *matching), Frames())
        got += taken(inbox)
    assert got == list(range(1, (inbox.covered or 0) + 1))


@given(st.integers(0, 300_000))
def test_the_size_of_a_delivery_is_read_off_its_frame(size: int) -> None:
    message = delivery(1, 2, 2, size=size)
    frame = npb.ConnectResponse(delivery=message)
    assert parse_frame(frame.SerializeToString()) == (frame, message.ByteSize())
