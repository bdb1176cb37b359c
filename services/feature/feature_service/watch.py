"""A watch as its stream sees it: a pointer into its lane, and what else there is to do.

Guarantees: what `take` answers is what the lane has between the last time and now, once and in order; `wait` returns
at once where there is something to do, so no wake-up is lost. A watch that has fallen behind hands out what came
before the place where it stopped being live, and nothing after.
"""

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from signpost.errors import PositionError

from feature_service.index import Snapshot
from feature_service.lanes import Frames, Lane, Link
from feature_service.selections import Selection

if TYPE_CHECKING:
    from feature_service.watches import Watches

_NOTHING, _NOWHERE = Frames((), 0, b""), Link(0, 0)


class Behind(NamedTuple):
    """Where a watch stopped being live: after this sequence, when its set was in this snapshot."""

    after: int
    snapshot: Snapshot | None


class Watch:
    """One watch, not live until `go_live`."""

    def __init__(self, watches: "Watches", selection: Selection) -> None:
        self.selection = selection
        self.behind: Behind | None = None
        self.broken: PositionError | None = None
        self.draining = False
        self.live_after = 0
        self.lane: Lane | None = None
        self._watches = watches
        self._next = self._stop = _NOWHERE
        """Before the first part that it has not taken; not live: before the first that it will not take."""
        self._waiting: asyncio.Future[bool] | None = None

    def go_live(self, after: int) -> None:
        """Be offered what comes after a sequence, which must be applied or be beyond that."""
        self._watches.enter(self, after)

    def break_off(self, error: PositionError) -> None:
        """The log is another one, or does not go back so far: start over."""
        self._watches.leave(self)
        self.broken = error

    @property
    def position(self) -> bytes:
        """Everything up to here was offered, and is taken if nothing waits; empty where the watch is ahead of it."""
        return self._watches.position if self._watches.through >= self.live_after else b""

    @property
    def idle(self) -> bool:
        """Whether nothing waits, shown or not, and nothing has happened."""
        lane = self.lane
        return lane is not None and self._next is lane.end and self.broken is None and not self.draining

    def take(self) -> Frames:
        """What waits and is shown; it waits no more."""
        begin, end = self._next, self._stop if self.lane is None else self.lane.shown
        if begin.count >= end.count:
            return _NOTHING
        self._next = end
        return begin.frames(end)

    async def wait(self, seconds: float) -> bool:
        """Return once there is something to do; False where there is nothing for so long."""
        lane = self.lane
        if lane is None or self._next.count < lane.shown.count or self.broken is not None or self.draining:
            return True
        loop = asyncio.get_running_loop()
        self._waiting = loop.create_future()
        timer = loop.call_later(seconds, self._go_on, False)
        del lane.busy[self]
        lane.waiting[self] = None
        try:
            return await self._waiting
        finally:
            timer.cancel()
            self._waiting = None
            if self.lane is lane:
                del lane.waiting[self]
                lane.busy[self] = None

    def wake(self) -> None:
        """Go on, where it waits."""
        self._go_on(True)

    def enter(self, lane: Lane, after: int) -> None:
        """Follow a lane from here on; what it has up to a sequence is known."""
        self.behind, self.live_after = None, after
        self.lane, self._next = lane, lane.end
        lane.busy[self] = None

    def unread(self, lane: Lane) -> tuple[int, int]:
        """How many events of its lane wait, and their bytes."""
        return lane.end.count - self._next.count, lane.end.bytes - self._next.bytes

    def skip(self, lane: Lane) -> None:
        """What its lane has by now is known."""
        self._next = lane.end

    def leave(self, behind: Behind | None = None) -> None:
        """Not live any more. What waits is dropped, but for what came before it fell behind."""
        begin, self._next, self._stop = self._next, _NOWHERE, _NOWHERE
        if self.lane is not None:
            self.lane.busy.pop(self, None)
            self.lane.waiting.pop(self, None)
            self.lane = None
        if behind is not None:
            self.behind = behind
            self._next, self._stop = begin, begin.upto(behind.after)

    def _go_on(self, something: bool) -> None:
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(something)
