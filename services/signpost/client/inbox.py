"""The receiving side of a subscription: in order, each record once, bounded by its window."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal, Protocol

from protos.notification.v1 import notification_pb2 as npb
from signpost.client.errors import CLOSED
from signpost.client.features import to_timestamp
from signpost.client.instruments import Instruments
from signpost.client.notifications import Gap, NotificationBatch, Start
from signpost.client.positions import Position
from signpost.errors import (
    EpochChanged,
    Internal,
    LogRewound,
    PositionCompacted,
    PositionError,
    SignpostError,
    Unavailable,
)

_log = logging.getLogger("signpost.client")

OnGap = Literal["raise", "continue"] | Callable[[Gap], None]
"""What to do where records may have been lost: raise PositionCompacted, EpochChanged or LogRewound; go on (with a log
line); go on and call this."""

_GAPS: dict[int, type[PositionError]] = {
    npb.GAP_REASON_EPOCH_CHANGED: EpochChanged,
    npb.GAP_REASON_LOG_REWOUND: LogRewound,
}


class Session(Protocol):
    """What a subscription needs of the stream that carries it."""

    def send(self, frame: npb.ConnectRequest) -> None:
        """Queue a frame; does not wait."""


class Inbox:
    """The library's side of a subscription: takes deliveries, drops what came already, hands on.

    `covered`: the sequence up to which everything was taken in (None: not known yet), `token` the
    server's mark for it. Streams may overlap: whichever brings a record first has it taken.
    A group's are its stream's alone: with that the server gives what was not acknowledged to others.
    """

    def __init__(self, frame: npb.SubscribeFrame, on_gap: OnGap, instruments: Instruments, label: str = "") -> None:
        """`label`: whose the measurements are; default: the name's, which must then be one of few."""
        self.frame = frame  # as the caller asked; built anew from the position when it is resumed
        self.name = frame.subscription
        self._label = label or self.name
        self.window = frame.window_bytes
        self.session: Session | None = None
        self.started = asyncio.Event()
        self.held = False  # not to be started yet
        self.failure: SignpostError | None = None
        self.last_gap: Gap | None = None
        self.gaps = 0
        self.turn = 0  # group: counts the streams that it was a member on
        self.covered: int | None = None
        self.token = b""
        self.waiting: deque[NotificationBatch] = deque()
        self.buffered_bytes = 0  # handed over and not handled ones too
        self.buffered_records = 0
        self.ready = asyncio.Event()
        self._on_gap = on_gap
        self._instruments = instruments
        self._owed = 0  # window to give back
        self._started_at = b""  # the position of this stream's `subscribed`

    @property
    def is_group(self) -> bool:
        return bool(self.frame.group)

    def subscribe_frame(self) -> npb.ConnectRequest:
        """The first frame of the subscription on a stream, from where it is now."""
        frame = npb.SubscribeFrame()
        frame.CopyFrom(self.frame)
        if not self.is_group and (self.token or self.covered is not None):
            frame.start.CopyFrom(npb.Start(after=Position(self.token, self.covered or 0).to_proto()))
        self._started_at = b""
        self._let_go()
        frame.window_bytes = max(1, self.window - self.buffered_bytes)
        self._owed = 0
        return npb.ConnectRequest(subscribe=frame)

    def left(self, session: Session) -> None:
        """A stream that carried it is over."""
        if session is self.session:
            self._let_go()

    def _let_go(self) -> None:
        """Of a group: what waits is another member's by now, or comes again."""
        if self.is_group:
            self.turn += 1
            self.buffered_bytes -= sum(batch.size for batch in self.waiting)
            self.buffered_records = 0
            self.waiting.clear()

    def subscribed(self, frame: npb.Subscribed) -> None:
        """The server has started it."""
        self._started_at = frame.position.token
        self.token = self.token or self._started_at
        self.started.set()

    def delivered(self, delivery: npb.Delivery, size: int, session: Session) -> None:
        """Take a delivery in; `size` is that of its encoded message.

        Raises Internal / NOT_CONTIGUOUS where one is missing before it: the stream is no good.
        """
        if self.failure is not None:
            return  # what comes after a gap would hide it from the caller
        if self.is_group and session is not self.session:
            return  # of a stream that is left
        first = 0
        # Presence events have no sequence: they are not of the log, move nothing, and are never repeats.
        is_event = bool(delivery.notifications) and not delivery.notifications[0].sequence
        if not self.is_group and not is_event:
            if self.covered is not None:
                if delivery.after > self.covered:
                    raise Internal(
                        f"{self.name}: ({self.covered}, {delivery.after}] is missing", reason="NOT_CONTIGUOUS"
                    )
                if delivery.through <= self.covered:
                    first = len(delivery.notifications)
                elif delivery.after < self.covered:
                    first = sum(1 for n in delivery.notifications if n.sequence <= self.covered)
                if first:
                    self._instruments.duplicates(self._label, first)
            before = Position(self.token, self.covered if self.covered is not None else delivery.after)
            if self.covered is None or delivery.through > self.covered:
                self.covered, self.token = delivery.through, delivery.position.token
        else:
            before = Position(b"", delivery.after)
        if not delivery.notifications:
            return
        if first == len(delivery.notifications):
            self._give_back(size, session)
            return
        self.buffered_bytes += size
        batch = NotificationBatch(delivery, size, before, first, gaps=self.gaps, turn=self.turn)
        self.waiting.append(batch)
        self.buffered_records += len(batch)
        self.ready.set()

    def gap(self, frame: npb.Gap) -> None:
        """Records may have been lost."""
        kind = _GAPS.get(frame.reason, PositionCompacted)
        error = kind(
            f"{self.name}: what was asked for is not there any more; it goes on with {frame.first_available}",
            first_available=frame.first_available,
        )
        self.last_gap = Gap(self.name, frame.first_available, error)
        self.gaps += 1
        self._instruments.gap(self._label)
        # The numbers may begin anew: the next delivery says where, or `subscribed`, on either side of this frame.
        self.covered, self.token = None, self._started_at
        if self._on_gap == "raise":
            self.fail(error)
            return
        _log.warning("%s has a gap", self.name, extra={"stream": self.name, "reason": error.reason})
        if callable(self._on_gap):
            try:
                self._on_gap(self.last_gap)
            except Exception:
                _log.exception("a gap callback raised", extra={"stream": self.name})

    def fail(self, error: SignpostError) -> None:
        """The end: what is buffered is still handed over, then `error` is raised."""
        if self.failure is None:
            self.failure = error
        self.started.set()
        self.ready.set()

    def close(self) -> None:
        """The end that the caller wanted: nothing more is handed over."""
        self.session = None
        self.waiting.clear()
        self.fail(Unavailable("the subscription is closed", reason=CLOSED))

    async def take(self) -> NotificationBatch:
        """The next records; raises what ended the subscription."""
        while not self.waiting:
            if self.failure is not None:
                raise self.failure
            self.ready.clear()
            await self.ready.wait()
        batch = self.waiting.popleft()
        self.buffered_records -= len(batch)
        return batch

    def report_lag(self, batch: NotificationBatch) -> None:
        """Tell the instruments how far the caller is behind, with this batch in hand."""
        age_s = (time.time_ns() - batch.message.notifications[-1].time_ns) / 1e9
        self._instruments.lag(self._label, len(batch) + self.buffered_records, max(0.0, age_s))

    def handled(self, batch: NotificationBatch) -> None:
        """The caller is through with a batch: its room in the window is given back."""
        self.buffered_bytes -= batch.size
        self._give_back(batch.size, self.session)

    def _give_back(self, size: int, session: Session | None) -> None:
        if session is None or session is not self.session:
            return  # the next `subscribe` asks for the room that there is
        self._owed += size
        # A quarter at a time: the window never runs dry, and credit frames stay few.
        if self._owed * 4 >= self.window:
            session.send(npb.ConnectRequest(credit=npb.CreditFrame(subscription=self.name, bytes=self._owed)))
            self._owed = 0


def start_at(inbox: Inbox, start: Start | None) -> None:
    """Where a subscription that has not begun starts. ValueError for what is no such place."""
    frame = inbox.frame
    if isinstance(start, Position):
        inbox.token, inbox.covered = start.token, start.sequence
    elif isinstance(start, int):
        inbox.covered = start
    elif isinstance(start, datetime):
        frame.start.time_ns = to_timestamp(start).ToNanoseconds()
    elif isinstance(start, timedelta):
        frame.start.time_ns = to_timestamp(datetime.now().astimezone() - start).ToNanoseconds()
    elif start == "earliest":
        frame.start.earliest.SetInParent()
    elif start == "last_of_each":
        frame.start.last_of_each.SetInParent()
    elif start == "cursor" or (start is None and frame.durable):
        frame.start.cursor.SetInParent()
    elif start in ("new", None):
        frame.start.new.SetInParent()
    else:
        raise ValueError(f"not a place to start: {start!r}")
