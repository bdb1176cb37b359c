"""The context and the requests that a streaming handler sees: gRPC's, with every message counted."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from signpost.server.metrics import MethodMetrics

EOF: object = grpc.aio.EOF  # type: ignore[attr-defined] # the stubs lack it
"""What `read` answers after the client's half-close."""

_EOF_DOUBT_S = 0.001
"""gRPC reads EOF on a call that its client has cancelled too, and tells of the cancellation a moment
later: without this pause every cancelled call of this kind would look like a half-close and count as OK."""


class CountingContext:
    """A servicer context; all that it does not count goes straight to gRPC's."""

    __slots__ = ("_context", "_decode", "_metrics", "_read", "_write")

    def __init__(
        self, context: grpc.aio.ServicerContext[Any, Any], metrics: MethodMetrics, decode: Callable[[bytes], Any]
    ) -> None:
        self._context, self._metrics, self._decode = context, metrics, decode
        self._read, self._write = context.read, context.write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    async def read(self) -> Any:
        """The next request, decoded; `EOF` after the client's half-close."""
        raw = await self._read()
        if raw is EOF:
            await asyncio.sleep(_EOF_DOUBT_S)
            return raw
        message = self._decode(raw)
        self._metrics.received += 1
        return message

    def write(self, message: Any) -> Awaitable[None]:
        """Send one response, counted as it is handed over. Waits while the client's window is full."""
        self._metrics.sent += 1
        return self._write(message)


class CountingRequests:
    """The requests of a call, up to the client's half-close."""

    __slots__ = ("_context",)

    def __init__(self, context: CountingContext) -> None:
        self._context = context

    def __aiter__(self) -> "CountingRequests":
        return self

    async def __anext__(self) -> Any:
        message = await self._context.read()
        if message is EOF:
            raise StopAsyncIteration
        return message
