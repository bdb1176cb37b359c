"""The one writer of a stream: answers first, then deliveries, subscription by subscription in turn.

A stream with nothing to say has no writer task and no queue: one is started when something comes and
ends when all is out. What waits is bounded: answers by `room`, deliveries because they are taken from
their subscription only when gRPC accepts the next message.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from signpost.errors import SignpostError

MAX_ANSWERS = 1000

Answer = Callable[[], bytes]


class Source(Protocol):
    """What has frames to send: a subscription, or a member of a queue group."""

    queued: bool

    def take(self) -> bytes | None:
        """The next frame, if there is one now."""


class Out(Protocol):
    """Where frames go."""

    def write(self, frame: bytes, /) -> Awaitable[None]:
        """Send one message."""


class Stream(Protocol):
    """Whose frames they are."""

    def end(self, error: SignpostError) -> None:
        """End it."""


class Outbox:
    """Frames of one stream; an error of one of its sources ends it."""

    __slots__ = ("_answers", "_due", "_idle", "_out", "_ready", "_stream", "_writer", "closed", "last_sent")

    def __init__(self, out: Out, stream: Stream) -> None:
        self._out = out
        self._stream = stream
        self._answers: deque[bytes] | None = None
        self._due: deque[tuple[asyncio.Future[Any], Answer]] | None = None
        self._ready: deque[Source] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._idle: asyncio.Future[None] | None = None
        self.closed = False
        self.last_sent = time.monotonic()

    def put(self, frame: bytes) -> None:
        """Send a frame before any delivery that is not on its way yet."""
        if self._answers is None:
            self._answers = deque()
        self._answers.append(frame)
        self._start()

    def answer(self, future: "asyncio.Future[Any]", make: Answer) -> None:
        """Send `make()` once the future is done, in the order of these calls."""
        if self._due is None:
            self._due = deque()
        self._due.append((future, make))
        future.add_done_callback(self._answered)

    def wake(self, subscription: Source) -> bool:
        """Ask the subscription for frames as soon as there is room; False if it waits for that already."""
        if subscription.queued or self.closed:
            return False
        subscription.queued = True
        if self._ready is None:
            self._ready = deque()
        self._ready.append(subscription)
        self._start()
        return True

    def failed(self, subscription: Source, error: SignpostError) -> None:
        """A subscription cannot go on, and the stream with it."""
        self._stream.end(error)

    @property
    def idle(self) -> bool:
        """Whether everything that there was is handed to gRPC."""
        return self._writer is None

    async def room(self) -> None:
        """Wait while more answers wait than a client may leave unread."""
        while self._answers is not None and len(self._answers) >= MAX_ANSWERS and not self.closed:
            await self._pause()

    async def answered(self, below: int) -> None:
        """Wait until fewer than so many answers wait for their future."""
        while self._due is not None and len(self._due) >= below and not self.closed:
            await self._pause()

    async def flushed(self) -> None:
        """Wait until everything that could be sent is out."""
        while (self._answers or self._due or self._writer is not None) and not self.closed:
            await self._pause()

    def close(self) -> None:
        """Send no more."""
        self.closed = True
        if self._writer is not None:
            self._writer.cancel()
        self._signal()
        self._answers = self._due = self._ready = None

    def _answered(self, _: "asyncio.Future[Any]") -> None:
        if self._due and self._due[0][0].done():
            self._start()

    def _start(self) -> None:
        if self._writer is None and not self.closed:
            self._writer = asyncio.get_running_loop().create_task(self._run())

    async def _run(self) -> None:
        try:
            while (frame := self._next()) is not None:
                await self._out.write(frame)
                self.last_sent = time.monotonic()
                if self._idle is not None:
                    self._signal()
        except Exception:
            # The call is over, whatever the exception is called: its handler is cancelled by gRPC.
            self.closed = True
        finally:
            self._writer = None
            if self._idle is not None:
                self._signal()

    def _next(self) -> bytes | None:
        due = self._due
        if due is not None:
            if due and due[0][0].done():
                return due.popleft()[1]()
            if not due:
                self._due = None
        if self._answers:
            return self._answers.popleft()
        self._answers = None
        ready = self._ready
        while ready:
            subscription = ready.popleft()
            subscription.queued = False
            frame = subscription.take()
            if frame is not None:
                if not subscription.queued:
                    subscription.queued = True
                    ready.append(subscription)
                return frame
        self._ready = None
        return None

    async def _pause(self) -> None:
        if self._idle is None or self._idle.done():
            self._idle = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._idle)

    def _signal(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)
        self._idle = None
