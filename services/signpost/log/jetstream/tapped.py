"""nats-py's client with a short way for messages, and an end that is always told."""

import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from nats.aio.client import Client

from signpost.log.jetstream.wire import parse_status

_log = logging.getLogger(__name__)
_STATUS = b"NATS/1.0 "  # what headers begin with that tell a status; others have no blank there


class Handler(Protocol):
    """What takes messages. `headers` are given where the message has a status line; they may be given otherwise."""

    def __call__(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        """One message."""


class TappedClient(Client):
    """nats-py's client, which calls `on_end` whenever its connection ends, however that comes about, and in whatever
    task.

    It has a short way for messages: from the parser to their handler, without a queue that could overflow, a task, an
    object and a header table for each. It halves what a message costs. Where a release of nats-py no longer calls that
    method, subscriptions work by their callback as before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.taps: dict[int, Handler] = {}
        self.on_end: Callable[[], None] = lambda: None

    async def _read_loop(self) -> None:
        try:
            await super()._read_loop()
        finally:
            self.on_end()  # a parser that fails ends the reading, and nothing else

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        # First: nats-py tells it last, and not at all where the rest cannot be sent, as to a server that was killed.
        self.on_end()
        with contextlib.suppress(OSError):  # in its own tasks, which nobody waits for
            await super()._close(status, do_cbs)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        tap = self.taps.get(sid)
        if tap is None:
            await super()._process_msg(sid, subject, reply, data, headers)
            return
        try:
            status = parse_status(headers) if headers and headers.startswith(_STATUS) else None
            tap(subject.decode(), reply.decode(), data, status)
        except Exception as error:
            # Above us nats-py would stop reading, and tell nobody.
            _log.exception("a message from NATS cannot be taken")
            await self._process_op_err(error)

    def abort(self) -> None:
        """Let the socket go at once, whatever waits to be sent: a frozen server would hold it for ever. And end what
        nats-py's own closing leaves running where it fails, as it does with unsent data for a server that is gone."""
        for subscription in self._subs.values():
            subscription._stop_processing()
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
