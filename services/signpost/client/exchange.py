"""Exchange: a bidirectional call in which every request has an id and gets one answer, in order.

Guarantees: each request of the source is answered to the caller once, in the order of the
source; at most `window` requests are unanswered at a time (the source is not asked for more);
after a cut only the unanswered are sent again. What the source raises comes to the caller.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterable, Callable, Iterable
from typing import Generic, TypeVar

from google.protobuf.message import Message

from signpost.client.link import Link, open_link
from signpost.client.methods import Method
from signpost.client.reconnect import Reconnector
from signpost.client.states import State, Status
from signpost.errors import Internal, SignpostError, Unavailable

Ask = TypeVar("Ask", bound=Message)
Answer = TypeVar("Answer", bound=Message)


class Exchange(Generic[Ask, Answer]):
    """An async iterator over (request, answer)."""

    def __init__(
        self,
        reconnector: Reconnector,
        method: Method[Ask, Answer],
        source: Iterable[Ask] | AsyncIterable[Ask],
        id_of: Callable[[Ask | Answer], int],
        *,
        window: int,
        silence_s: float | None = None,
        recovers: Callable[[SignpostError, Iterable[Ask]], bool] = lambda _error, _unanswered: False,
    ) -> None:
        """`silence_s`: longer without an answer, while one is due, is a dead connection. `recovers`: whether the
        unanswered ask otherwise after this error, so that they may be sent again at once."""
        self._reconnector = reconnector
        self._method = method
        self._source = source
        self._id_of = id_of
        self._window = window
        self._silence_s = silence_s
        self._recovers = recovers
        self._unanswered: deque[Ask] = deque()
        self._sent = 0  # how many of the unanswered went out on this link
        self._source_done = False
        self._failure: BaseException | None = None
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._link: Link[Ask, Answer] | None = None
        self._feeder: asyncio.Task[None] | None = None
        self._writer: asyncio.Task[None] | None = None
        self._done = False

    @property
    def status(self) -> Status:
        """The state of the call."""
        return self._reconnector.status

    def __aiter__(self) -> "Exchange[Ask, Answer]":
        return self

    async def __anext__(self) -> tuple[Ask, Answer]:
        if self._feeder is None and not self._done:
            self._feeder = asyncio.create_task(self._feed())
        while not self._done:
            while not self._unanswered and not self._source_done:
                self._changed.clear()
                await self._changed.wait()
            if self._failure is not None:
                await self.aclose()
                raise self._failure
            if not self._unanswered:
                break
            link = None
            try:
                link = self._link or await self._open()
                answer = await link.read(silence_s=self._silence_s)
                if answer is None:
                    raise Unavailable("the server ended the call before the last answer", reason="ENDED_EARLY")
            except SignpostError as error:
                self._drop()
                if self._done or self._recovers(error, self._unanswered):
                    continue
                try:
                    await self._reconnector.lost(error, link.channel if link else None)
                except SignpostError:
                    await self.aclose()
                    raise
                continue
            except BaseException:
                self._drop()
                raise
            if self.status.state is not State.CONNECTED:
                self._reconnector.established()
            request = self._unanswered[0]
            if self._id_of(answer) != self._id_of(request):
                await self.aclose()
                raise Internal(f"answer {self._id_of(answer)} came for request {self._id_of(request)}")
            self._unanswered.popleft()
            self._sent -= 1
            self._room.set()
            return request, answer
        await self.aclose()
        raise StopAsyncIteration

    async def _feed(self) -> None:
        try:
            if isinstance(self._source, AsyncIterable):
                async for request in self._source:
                    await self._put(request)
            else:
                for request in self._source:
                    await self._put(request)
        except Exception as error:
            self._failure = error
        self._source_done = True
        self._changed.set()

    async def _put(self, request: Ask) -> None:
        while len(self._unanswered) >= self._window:
            self._room.clear()
            await self._room.wait()
        self._unanswered.append(request)
        self._changed.set()

    async def _open(self) -> Link[Ask, Answer]:
        self._reconnector.opening()
        link = await open_link(self._reconnector.channels, self._method, None, self._reconnector.instruments)
        self._link, self._sent = link, 0
        if self._writer is not None:
            self._writer.cancel()
        self._writer = asyncio.create_task(self._write(link))
        return link

    async def _write(self, link: Link[Ask, Answer]) -> None:
        try:
            while True:
                while self._sent < len(self._unanswered):
                    request = self._unanswered[self._sent]
                    self._sent += 1
                    await link.write(request)
                if self._source_done:
                    return await link.done_writing()
                self._changed.clear()
                await self._changed.wait()
        except SignpostError:
            return  # the reader gets the same, and decides

    def _drop(self) -> None:
        link, self._link = self._link, None
        if self._writer is not None:
            self._writer.cancel()
        if link is not None:
            link.cancel()

    async def aclose(self) -> None:
        """End the call. Safe to repeat."""
        self._done = self._source_done = True
        self._changed.set()  # who waits for the source waits no more
        self._drop()
        tasks = [t for t in (self._feeder, self._writer) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._reconnector.close()

    async def __aenter__(self) -> "Exchange[Ask, Answer]":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
