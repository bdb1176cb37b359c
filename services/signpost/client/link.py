"""A link: one streaming call, from its opening to its end.

What it adds to grpc.aio: errors are SignpostErrors; a call that is left is cancelled (grpc.aio
leaves it open); silence is noticed without `wait_for` around a read (which would kill the call
at every quiet moment); who cancelled is told apart, the caller's task or this library.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Generic

import grpc

from signpost.client.channels import Channels
from signpost.client.errors import from_rpc_error
from signpost.client.instruments import Instruments
from signpost.client.methods import Kind, Method, Req, Res
from signpost.errors import SignpostError, Unavailable

_EOF = grpc.aio.EOF  # type: ignore[attr-defined]  # missing from the stubs


def task_is_cancelled() -> bool:
    """Whether the running task itself is being cancelled (and not a call that it waits for)."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


class Link(Generic[Req, Res]):
    """One open call. Made by `open_link`. One task reads, one writes."""

    def __init__(self, call: Any, channel: grpc.aio.Channel, measured: Any) -> None:
        self.channel = channel
        self._call = call
        self._measured = measured
        self._cause: SignpostError | None = None
        self._loop = asyncio.get_running_loop()
        call.add_done_callback(self._done)

    def _done(self, call: Any) -> None:
        # The code is known now, so the coroutine that tells it ends without waiting.
        try:
            call.code().send(None)
        except StopIteration as told:
            self._measured.ended(told.value.name)

    async def read(self, *, silence_s: float | None = None) -> Res | None:
        """The next message; None where the server has ended the call with OK.

        Raises Unavailable / SILENT where nothing comes for `silence_s` seconds, and the call is
        over then. A cancelled read ends the call as well.
        """
        timer = self._loop.call_later(silence_s, self._silent, silence_s) if silence_s is not None else None
        try:
            message = await self._call.read()
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.CancelledError:
            if task_is_cancelled():
                self.cancel()
                raise
            raise (self._cause or Unavailable("the connection was closed", reason="CONNECTION_CLOSED")) from None
        finally:
            if timer is not None:
                timer.cancel()
        if message is _EOF:
            return None
        self._measured.received()
        return message  # type: ignore[no-any-return]

    async def write(self, request: Req) -> None:
        """Send one message. Raises what ended the call, if that is over."""
        try:
            await self._call.write(request)
        except grpc.RpcError as error:
            raise from_rpc_error(error) from error
        except asyncio.CancelledError:
            if task_is_cancelled():
                raise
            raise (self._cause or Unavailable("the connection was closed", reason="CONNECTION_CLOSED")) from None
        except asyncio.InvalidStateError:
            raise Unavailable("the call is over", reason="CONNECTION_CLOSED") from None
        self._measured.sent()

    async def done_writing(self) -> None:
        """Half-close: nothing more will be written. A call that is over needs it no more."""
        try:
            await self._call.done_writing()
        except (grpc.RpcError, asyncio.InvalidStateError):
            return
        except asyncio.CancelledError:
            if task_is_cancelled():
                raise

    def _silent(self, silence_s: float) -> None:
        self.cancel(Unavailable(f"nothing came for {silence_s:g} s", reason="SILENT"))

    def abandon(self) -> None:
        """For the garbage collector, which runs in any thread: end the call soon."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self.cancel)

    def cancel(self, cause: SignpostError | None = None) -> None:
        """End the call now; a read that waits raises `cause`. Safe to repeat."""
        if self._cause is None:
            self._cause = cause
        self._call.cancel()


async def open_link(
    channels: Channels,
    method: Method[Req, Res],
    request: Req | None,
    instruments: Instruments,
    *,
    channel: grpc.aio.Channel | None = None,
    parse: Callable[[bytes], Any] | None = None,
) -> Link[Req, Res]:
    """Begin a streaming call; `request` is sent first. Does not wait for the server. `parse` instead of the method's
    own makes messages of bytes."""
    metadata = await channels.metadata()
    channel = channel or channels.current
    measured = instruments.call(method, metadata)
    serialize, parse = method.request.SerializeToString, parse or method.response.FromString
    try:
        if method.kind is Kind.SERVER_STREAM:
            call = channel.unary_stream(method.path, serialize, parse)(request, metadata=metadata)
            measured.sent()
            return Link(call, channel, measured)
        invoke: Any = channel.stream_stream(method.path, serialize, parse)  # the stubs want an iterator of requests
        link: Link[Req, Res] = Link(invoke(metadata=metadata), channel, measured)
    except grpc.aio.UsageError as error:  # another call left this connection in the meantime
        measured.ended("UNAVAILABLE")
        raise Unavailable(str(error), reason="CONNECTION_CLOSED") from error
    if request is not None:
        # A call that is over already says why to the reader.
        with contextlib.suppress(SignpostError):
            await link.write(request)
    return link
