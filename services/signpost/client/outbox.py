"""The outbox: publishes from the moment they are handed in until they are answered.

Guarantees: bounded; sent in the order they were handed in; each answered once, by a result or by
an error; what a lost connection left unanswered is sent again with the same message ids, so that
nothing is stored twice within the server's dedupe window.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from protos.notification.v1 import notification_pb2 as npb
from signpost.client.errors import make_error
from signpost.client.notifications import Published, Unsent
from signpost.client.settings import OutboxSettings
from signpost.errors import OutboxFull, RateLimited, SignpostError, TooLarge, Unavailable

MAX_FRAMES = 8
"""Publish frames that may be unanswered: what comes behind them waits, and goes out as one frame."""

MAX_PUBLICATIONS = 10_000
"""Publications a frame, by the protocol."""


class _Answer(asyncio.Future[Published]):
    """An answer whose cancelling is noticed; a callback for that would cost every publish."""

    __slots__ = ("outbox",)
    outbox: "Outbox"

    def cancel(self, msg: object = None) -> bool:
        cancelled = super().cancel(msg)
        if cancelled:
            self.outbox.cancelled(self)
        return cancelled


@dataclass(eq=False, slots=True)
class _Entry:
    publication: npb.Publication
    size: int
    answer: "asyncio.Future[Published]"
    sent: bool = False


@dataclass(eq=False, slots=True)
class _Turn:
    publication: npb.Publication
    size: int
    turn: "asyncio.Future[asyncio.Future[Published]]"


@dataclass(frozen=True, slots=True)
class OutboxStatistics:
    """What is in the outbox: messages and bytes in all, of them sent and not answered yet, and callers that
    wait for room."""

    messages: int
    bytes: int
    unanswered: int
    waiting_for_room: int


class Outbox:
    """Belongs to one client and one event loop."""

    def __init__(self, settings: OutboxSettings | None = None) -> None:
        self._settings = settings or OutboxSettings()
        self.wake: Callable[[], None] = lambda: None  # set by whoever sends
        self._waiting: deque[_Entry] = deque()
        self._frames: dict[int, list[_Entry]] = {}
        self._next_id = 1
        self._max_frames = 1 if self._settings.ordered else MAX_FRAMES
        self._messages = self._bytes = 0
        self._room: deque[_Turn] = deque()
        self._held: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()
        self.max_record_bytes = 512 * 1024
        self.closed: SignpostError | None = None

    @property
    def statistics(self) -> OutboxStatistics:
        """What is in it now."""
        unanswered = sum(map(len, self._frames.values()))
        return OutboxStatistics(self._messages, self._bytes, unanswered, len(self._room))

    def put_nowait(self, publication: npb.Publication) -> "asyncio.Future[Published]":
        """Hand in a publish; the future is its answer. Raises OutboxFull, TooLarge."""
        size = self._check(publication)
        if self._room or not self._fits(size):
            raise OutboxFull(f"the outbox holds {self._messages} messages, {self._bytes} bytes")
        return self._add(publication, size)

    async def put(self, publication: npb.Publication) -> "asyncio.Future[Published]":
        """`put_nowait`, after waiting for room; those who wait come in turn."""
        size = self._check(publication)
        if not self._room and self._fits(size):
            return self._add(publication, size)
        turn: asyncio.Future[asyncio.Future[Published]] = asyncio.get_running_loop().create_future()
        self._room.append(_Turn(publication, size, turn))
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                turn.result().cancel()  # let in at this very moment
            self._let_in()  # who stands behind may need less room
            raise

    def _check(self, publication: npb.Publication) -> int:
        if self.closed is not None:
            raise self.closed
        size = publication.ByteSize()
        limit = min(self.max_record_bytes, self._settings.max_bytes)
        if size > limit:
            raise TooLarge("the notification", size, limit)
        return size

    def _fits(self, size: int) -> bool:
        return self._messages < self._settings.max_messages and self._bytes + size <= self._settings.max_bytes

    def _add(self, publication: npb.Publication, size: int) -> "asyncio.Future[Published]":
        answer = _Answer()
        answer.outbox = self
        entry = _Entry(publication, size, answer)
        self._messages += 1
        self._bytes += size
        self._empty.clear()
        self._waiting.append(entry)
        self.wake()
        return entry.answer

    def _let_in(self) -> None:
        while self._room and (self._room[0].turn.done() or self._fits(self._room[0].size)):
            waiting = self._room.popleft()
            if not waiting.turn.done():
                waiting.turn.set_result(self._add(waiting.publication, waiting.size))

    def _leave(self, entry: _Entry) -> None:
        self._messages -= 1
        self._bytes -= entry.size
        if not self._messages:
            self._empty.set()
        self._let_in()

    def cancelled(self, answer: "asyncio.Future[Published]") -> None:
        """Nobody waits for it any more: what is not sent leaves, and makes room, while the server is away too."""
        entry = next((one for one in self._waiting if one.answer is answer), None)
        if entry is not None and not entry.sent:
            self._waiting.remove(entry)
            self._leave(entry)

    def next_frame(self, max_bytes: int) -> npb.PublishFrame | None:
        """All that waits, as one frame of at most `max_bytes`; None where nothing may be sent now."""
        if not self._waiting or self._held is not None or len(self._frames) >= self._max_frames:
            return None
        limit = min(max_bytes, self._settings.frame_bytes)
        entries: list[_Entry] = []
        size = 0
        while self._waiting and len(entries) < MAX_PUBLICATIONS:
            entry = self._waiting[0]
            # 8 bytes frame a publication.
            if entries and size + entry.size + 8 > limit:
                break
            size += entry.size + 8
            entry.sent = True
            entries.append(self._waiting.popleft())
        frame = npb.PublishFrame(
            id=self._next_id, publications=[e.publication for e in entries], ordered=self._settings.ordered
        )
        self._frames[self._next_id] = entries
        self._next_id += 1
        return frame

    @property
    def unanswered(self) -> bool:
        """Whether frames are out that have no answer yet."""
        return bool(self._frames)

    def answered(self, frame: npb.Published) -> None:
        """The server's answer to a frame."""
        entries = self._frames.pop(frame.id, [])
        again: list[_Entry] = []
        delay_s = 0.0
        for entry, result in zip(entries, frame.results, strict=False):
            if not result.HasField("error"):
                self._settle(entry, Published(result.sequence, result.duplicate, entry.publication.message_id))
                continue
            error = error_of(result.error)
            if _is_passing(error):
                again.append(entry)
                delay_s = max(delay_s, error.retry_after_s or 0.5)
            else:
                self._settle(entry, error)
        self._again(again + entries[len(frame.results) :], delay_s)
        self.wake()

    def refused(self, frame_id: int, error: SignpostError) -> None:
        """The server refused a whole frame."""
        entries = self._frames.pop(frame_id, [])
        if _is_passing(error):
            self._again(entries, error.retry_after_s or 0.5)
        else:
            for entry in entries:
                self._settle(entry, error)
        self.wake()

    def _again(self, entries: list[_Entry], delay_s: float) -> None:
        if not entries:
            return
        self._waiting.extendleft(reversed(entries))
        if delay_s and self._held is None:
            self._held = asyncio.get_running_loop().call_later(delay_s, self._go_on)

    def _go_on(self) -> None:
        self._held = None
        self.wake()

    def _settle(self, entry: _Entry, outcome: Published | SignpostError) -> None:
        if not entry.answer.done():
            if isinstance(outcome, Published):
                entry.answer.set_result(outcome)
            else:
                entry.answer.set_exception(outcome)
        self._leave(entry)

    def take_back(self) -> None:
        """The connection is gone: what has no answer is sent again on the next, first."""
        for frame_id in sorted(self._frames, reverse=True):
            self._waiting.extendleft(reversed(self._frames.pop(frame_id)))

    async def flush(self) -> None:
        """Return once everything is answered."""
        await self._empty.wait()

    def close(self, error: SignpostError) -> list[Unsent]:
        """Refuse what is handed in from now on, and give up what is left: what that was."""
        if self.closed is None:
            self.closed = error
        while self._room:
            turn = self._room.popleft().turn
            if not turn.done():
                turn.set_exception(error)
        self.take_back()
        left = []
        while self._waiting:
            entry = self._waiting.popleft()
            if not entry.answer.cancelled():
                left.append(Unsent(entry.publication.topic, entry.publication.message_id, entry.sent))
            self._settle(entry, error)
            # Whoever handed it in may have gone; the error is told through `Unsent` as well.
            if entry.answer.done() and not entry.answer.cancelled():
                entry.answer.exception()
        if self._held is not None:
            self._held.cancel()
        return left


def _is_passing(error: SignpostError) -> bool:
    return isinstance(error, Unavailable | RateLimited)


def error_of(error: npb.Error) -> SignpostError:
    """The exception for an error inside a frame."""
    return make_error(
        error.code,
        error.message,
        reason=error.reason,
        metadata=error.metadata,
        retry_after_s=error.retry_after_ms / 1000 if error.retry_after_ms else None,
    )
