"""Resume: a server-streaming or bidirectional call that never loses its place.

Guarantees, given a server that continues strictly after a position:

- Every message comes to the caller once and in order, whatever happens to the connection.
- `position` is that of the last message that the caller has: it moves in the code that hands the
  message over, and nowhere else.
- The first frame of every attempt is built at that moment, by the factory, from `position`.
- A call that the caller leaves (`aclose`, the end of `async with`, the garbage collector) is
  cancelled on the server.
- A caller that cancels or times out its own wait loses nothing: the next `anext` resumes.
- Iteration ends when the server ends the call with OK, and with a SignpostError where trying
  again cannot help; `status` tells the rest.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from signpost.client.link import Link, open_link
from signpost.client.methods import Method, Req, Res
from signpost.client.reconnect import Reconnector
from signpost.client.states import State, Status
from signpost.errors import Draining, SignpostError

P = TypeVar("P")

_STATUS_S = 1.0
"""How long the status may take after the last message, in seconds."""

_MOVE_GRACE_S = 30.0
"""How long other calls may stay on a connection whose server drains, in seconds."""


class ResumableStream(Generic[Req, Res, P]):
    """An async iterator over the messages of a call that is reopened whenever it breaks."""

    def __init__(
        self,
        reconnector: Reconnector,
        method: Method[Req, Res],
        first: Callable[[P | None], Req],
        position_of: Callable[[Res], P | None],
        *,
        position: P | None = None,
        silence_s: float | None = None,
        is_draining: Callable[[Res], bool] = lambda _: False,
        recovers: Callable[[SignpostError], bool] = lambda _: False,
    ) -> None:
        """`first` builds the first frame from a position (None: from the start); `position_of` finds
        the position in a message (None: it has none, the position stays). `silence_s`: longer
        without a message is a dead connection; None where the method may be quiet for ever.
        `is_draining`: whether a message says that the server is going away; it is not handed over.
        `recovers`: whether `first` asks otherwise after this error, so that it may be tried again at once.
        """
        self.position = position
        self._reconnector = reconnector
        self._method = method
        self._first = first
        self._position_of = position_of
        self._silence_s = silence_s
        self._is_draining = is_draining
        self._recovers = recovers
        self._link: Link[Req, Res] | None = None
        self._done = False

    @property
    def status(self) -> Status:
        """The state, observable and awaitable."""
        return self._reconnector.status

    def __aiter__(self) -> "ResumableStream[Req, Res, P]":
        return self

    async def __anext__(self) -> Res:
        while not self._done:
            link = None
            try:
                link = self._link or await self._open()
                message = await link.read(silence_s=self._silence())
            except SignpostError as error:
                self._drop()
                if self._done or self._recovers(error):
                    continue
                try:
                    await self._reconnector.lost(error, link.channel if link else None)
                except SignpostError:
                    self._done = True
                    raise
                continue
            except BaseException:
                self._drop()
                raise
            if message is None:
                break
            if self._is_draining(message):
                moved = await self._move(link)
                if moved is None:
                    continue
                message = moved
            if self.status.state is not State.CONNECTED:
                self._reconnector.established()
            position = self._position_of(message)
            if position is not None:
                self.position = position
            return message
        await self.aclose()
        raise StopAsyncIteration

    def _silence(self) -> float | None:
        if self.status.state is State.CONNECTED:
            return self._silence_s
        timeout_s = self._reconnector.settings.connect_timeout_s
        return timeout_s if self._silence_s is None else max(timeout_s, self._silence_s)

    async def _open(self) -> Link[Req, Res]:
        self._reconnector.opening()
        if self.position is not None and self.status.state is State.RECONNECTING:
            self._reconnector.instruments.resumed(self.status.stream)
        self._link = await open_link(
            self._reconnector.channels, self._method, self._first(self.position), self._reconnector.instruments
        )
        return self._link

    async def _move(self, old: Link[Req, Res]) -> Res | None:
        """Go to another server before this one ends: the old call is left once the new one speaks.

        The new call starts after what the caller has, so nothing of the old one may be handed over
        after its first message. Where the new call fails, the old one goes on to its end.
        """
        self._reconnector.draining()
        self._reconnector.channels.leave(old.channel, grace_s=_MOVE_GRACE_S)
        try:
            new = await self._open()
            message = await new.read(silence_s=self._reconnector.settings.connect_timeout_s)
            if message is None or self._is_draining(message):
                raise Draining("the next server is going away too")
        except SignpostError:
            self._drop()
            self._link = old
            return None
        except BaseException:
            old.cancel()
            raise
        old.cancel()
        return message

    def _drop(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.cancel()

    async def finish(self) -> None:
        """For a caller who knows from a message that it was the last: take the status, whatever it is,
        instead of cancelling a call that is over, and end the stream."""
        try:
            if self._link is not None:
                await self._link.read(silence_s=_STATUS_S)
        except SignpostError:
            pass  # all that was to come has come
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """End the stream. Safe to repeat."""
        self._done = True
        self._drop()
        self._reconnector.close()

    async def __aenter__(self) -> "ResumableStream[Req, Res, P]":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def __del__(self) -> None:
        # `async for ... break` leaves the stream to the garbage collector.
        if self._link is not None:
            self._link.abandon()
