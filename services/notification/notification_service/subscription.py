"""A subscription: a place in the log, and the way from there to the live tail and along it.

Promises, whatever the reader's speed: each record that matches its filter is handed out once, in log
order, and the intervals (after, through] of its deliveries touch. It is in one of three states, and
changes between them by itself:

- **live**: a pointer into a lane; costs nothing but that;
- **behind**, in memory: between the tail's floor and the head; served from the tail, without I/O;
- **behind**, in the log: a page or two ahead of the writer, read by a task that ends when they wait.

A live one that has not taken `buffer_bytes` falls behind: no copy is kept for it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from signpost.errors import EpochChanged, LogRewound, PositionAhead, PositionError, SignpostError, Unavailable
from signpost.log.subjects import matcher

from notification_service import metrics
from notification_service.codec import Encoded, delivery_frame, encode_records, field, footer
from notification_service.lane import BATCH_BYTES, Lane, Segment
from protos.notification.v1 import notification_pb2 as pb

if TYPE_CHECKING:
    from notification_service.hub import Hub

PREPARED = 2
"""Pages read ahead for a subscription that reads from the log."""
READ_RECORDS = 4000
"""A page ends by its bytes unless records are very small: each page costs a way to a reader's thread and back."""
EXACT_WINDOW_BYTES = 2 * 1024 * 1024
"""Below this window batches are cut to the record, which only the log's reader can do."""


class Outlet(Protocol):
    """Where deliveries go: a stream's outbox."""

    def wake(self, subscription: "Subscription") -> bool:
        """There may be something to `take`. False where it was told already and has not come yet."""

    def failed(self, subscription: "Subscription", error: SignpostError) -> None:
        """Reading came to an end."""


class Wire(NamedTuple):
    """The field tags under which a stream's frames go out."""

    subscribed: bytes
    delivery: bytes
    gap: bytes
    draining: bytes


CONNECT_WIRE = Wire(b"\x12", b"\x1a", b"\x2a", b"\x32")
SUBSCRIBE_WIRE = Wire(b"\x0a", b"\x12", b"\x1a", b"\x22")


class _Prepared(NamedTuple):
    """A frame that is ready: its size in the window, and where the subscription stands after it."""

    frame: bytes
    size: int
    through: int
    position: bytes


_REASONS = {
    EpochChanged: pb.GAP_REASON_EPOCH_CHANGED,
    LogRewound: pb.GAP_REASON_LOG_REWOUND,
    PositionAhead: pb.GAP_REASON_LOG_REWOUND,
}


def gap_frame(wire: Wire, subscription: str, requested: pb.Position, error: PositionError) -> bytes:
    """The frame that says that records may have been lost."""
    gap = pb.Gap(
        subscription=subscription,
        requested=requested,
        first_available=error.first_available,
        reason=_REASONS.get(type(error), pb.GAP_REASON_RETENTION),
    ).SerializeToString()
    return field(wire.gap[0] >> 3, gap)


class Subscription:
    """One subscription of one stream. For the event loop's thread."""

    __slots__ = (
        "_generation",
        "_match",
        "_name_field",
        "_prepared",
        "_reader",
        "hub",
        "lane",
        "name",
        "outlet",
        "pattern",
        "position",
        "queued",
        "segment",
        "through",
        "window",
        "wire",
    )

    def __init__(
        self,
        hub: "Hub",
        outlet: Outlet,
        wire: Wire,
        name: str,
        pattern: str,
        *,
        window: int | None = None,
    ) -> None:
        self.hub = hub
        self.outlet = outlet
        self.wire = wire
        self.name = name
        self.pattern = pattern
        self.window = window
        self.through = 0
        self.position = b""
        self.queued = False
        self.lane: Lane | None = None
        self.segment: Segment | None = None
        self._name_field = field(1, name.encode())
        self._match: Callable[[str], bool] | None = None
        self._prepared: deque[_Prepared] | None = None
        self._reader: asyncio.Task[None] | None = None
        self._generation = hub.generation

    def begin(self, through: int, position: bytes) -> None:
        """Start after a place; deliveries follow by `wake` and `take`."""
        self.through, self.position = through, position
        self._generation = self.hub.generation
        if through == self.hub.through and not self._prepared:
            self._join()
        else:
            self.outlet.wake(self)

    def prepend(self, frames: list[tuple[bytes, int, int, bytes]]) -> None:
        """Frames (bytes, window size, through, position) that go out before all else."""
        self._prepared = deque(_Prepared(*frame) for frame in frames)

    def credit(self, size: int) -> None:
        """More window."""
        if self.window is not None:
            self.window += size
            self.outlet.wake(self)

    def close(self) -> None:
        """Leave; nothing is handed out any more."""
        self.fall_behind()
        self.hub.forget(self)
        if self._reader is not None:
            self._reader.cancel()
        self._prepared = None
        self.window = 0

    def fall_behind(self) -> None:
        """Let go of the lane: what is not taken yet is read again later."""
        if self.lane is not None:
            lane, self.lane, self.segment = self.lane, None, None
            self.hub.leave(lane, self)

    def take(self) -> bytes | None:
        """The next frame, if there is one now. Otherwise `Outlet.wake` is called when there is."""
        if self._prepared:
            return self._take_prepared(self._prepared)
        if self.window is not None and self.window <= 0:
            self.fall_behind()  # what comes until there is credit would be kept for us
            return None
        if self.segment is not None:
            frame = self._take_live(self.segment)
            if frame is not None or self.segment is not None:
                return frame
        if self._reader is not None:
            return None
        return self._take_behind()

    def _take_prepared(self, prepared: deque[_Prepared]) -> bytes | None:
        if self.window is not None and self.window <= 0 and prepared[0].size:
            return None
        frame, size, self.through, self.position = prepared.popleft()
        if self.window is not None:
            self.window -= size
        if not self._in_memory() and self._reader is None and self.window is None:
            self._read()
        return frame

    def _take_live(self, segment: Segment) -> bytes | None:
        first, lane = segment.next, self.lane
        if first is None or lane is None:
            return None
        frame = lane.frame(first, self.wire.delivery, self._name_field)
        if self.window is not None:
            if frame.size > self.window:
                self.fall_behind()
                return None
            self.window -= frame.size
        last = self.segment = frame.last
        self.through, self.position = last.through, last.position
        return frame.data

    def _in_memory(self) -> bool:
        exact = self.window is not None and self.window < EXACT_WINDOW_BYTES
        return self.through >= self.hub.tail.floor and self._generation == self.hub.generation and not exact

    def _take_behind(self) -> bytes | None:
        hub = self.hub
        current = self._generation == hub.generation
        if current and self.through == hub.through:
            self._join()
            return None
        if current and self.through > hub.through:
            hub.await_place(self)
            return None
        if not self._in_memory():
            self._read()
            return None
        if self._match is None:
            self._match = matcher(self.pattern)
        after = self.through
        parts, self.through, self.position = hub.tail.collect(after, self._match, BATCH_BYTES, hub.clock())
        end = footer(after, self.through, self.position)
        frame, size = delivery_frame(self.wire.delivery, self._name_field, parts, end)
        if self.window is not None and parts:
            self.window -= size
        if self.through == hub.through:
            self._join()
        return frame

    def _join(self) -> None:
        self.lane = self.hub.join(self)
        self.segment = self.lane.tail
        self._match = None

    def _read(self) -> None:
        if self._reader is None:
            self._reader = asyncio.get_running_loop().create_task(self._read_ahead())

    async def _read_ahead(self) -> None:
        if self._prepared is None:
            self._prepared = deque()
        prepared = self._prepared
        depth = PREPARED if self.window is None else 1
        try:
            while len(prepared) < depth:
                last = prepared[-1] if prepared else self
                if prepared and last.through >= self.hub.through:
                    break
                try:
                    prepared.append(await self._page(last.through, last.position))
                except Unavailable as error:
                    await asyncio.sleep(error.retry_after_s or 1.0)
                self.outlet.wake(self)
        except SignpostError as error:
            self.outlet.failed(self, error)
        finally:
            self._reader = None
            self.outlet.wake(self)

    async def _page(self, after: int, position: bytes) -> _Prepared:
        hub = self.hub
        try:
            async with hub.reads:
                if self._generation != hub.generation:
                    generation = hub.generation
                    await hub.log.resolve(position)
                    self._generation = generation
                window = BATCH_BYTES if self.window is None else min(BATCH_BYTES, max(1, self.window))
                page = await hub.log.read(after, subjects=self.pattern, limit=READ_RECORDS, max_bytes=window)
        except PositionError as error:
            metrics.GAPS.inc()
            requested = pb.Position(token=position) if position else pb.Position(sequence=after)
            first = error.first_available - 1
            frame = gap_frame(self.wire, self.name, requested, error)
            self._generation = hub.generation
            return _Prepared(frame, 0, first, await hub.log.position(first))
        through, token = page.through, page.position
        now = hub.clock()
        encoded = encode_records(page.records)
        parts = [data for _, _, data, expires in encoded if not expires or expires > now]
        if self.window is not None and len(parts) > 1 and sum(map(len, parts)) > self.window:
            parts, last = _fitting(encoded, self.window, now)
            through, token = page.records[last].sequence, hub.log.position_of(page.records[last])
        frame, cost = delivery_frame(self.wire.delivery, self._name_field, parts, footer(after, through, token))
        return _Prepared(frame, cost if parts else 0, through, token)


def _fitting(encoded: Sequence[Encoded], window: int, now_ns: int) -> tuple[list[bytes], int]:
    """Of records that are too much for a window: those that go out, one at least, and the index of the last one."""
    parts: list[bytes] = []
    size = 0
    for index, (_, _, data, expires) in enumerate(encoded):
        if not expires or expires > now_ns:
            size += len(data)
            if size > window and parts:
                return parts, index - 1
            parts.append(data)
    return parts, len(encoded) - 1
