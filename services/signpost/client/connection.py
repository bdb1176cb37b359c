"""The connection of a notification client: one Connect stream after the other, and two while it moves."""

import asyncio
import logging
from collections.abc import Callable, Mapping

from protos.notification.v1 import notification_pb2 as npb
from signpost.client.inbox import Inbox
from signpost.client.outbox import Outbox
from signpost.client.reconnect import Reconnector
from signpost.client.session import ConnectSession, open_session
from signpost.errors import Internal, SignpostError

_log = logging.getLogger("signpost.client")


class Connection:
    """Keeps one stream open until it is closed, or an error says that it is no use.

    Every stream carries all `inboxes` and the outbox. A draining server is left only once the next
    one has welcomed the client; publishes pause meanwhile, so that their order holds.
    """

    def __init__(
        self,
        hello: npb.Hello,
        reconnector: Reconnector,
        outbox: Outbox,
        inboxes: Mapping[str, Inbox],
        *,
        on_end: Callable[[SignpostError], None],
    ) -> None:
        self.session: ConnectSession | None = None  # the newest one
        self._hello = hello
        self._reconnector = reconnector
        self._outbox = outbox
        self._inboxes = inboxes
        self._on_end = on_end
        self._running: asyncio.Task[None] | None = None
        self._retiring: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Connect, unless that was begun already."""
        if self._running is None:
            self._running = asyncio.create_task(self._run())

    async def close(self, timeout_s: float) -> None:
        """End the stream: with a half-close, and after `timeout_s` by force."""
        tasks = [t for t in (self._running, *self._retiring) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        session, self.session = self.session, None
        if session is not None:
            session.finish()
            await asyncio.wait((session.ended,), timeout=timeout_s)
            await session.close()

    async def _run(self) -> None:
        try:
            while True:
                await self._one_stream()
        except SignpostError as error:
            self._on_end(error)
        except Exception as error:  # a token source that raises, or a fault of ours: nobody may wait for ever
            _log.exception("the connection ended", extra={"stream": self._reconnector.status.stream})
            failure = Internal(f"the connection ended: {error!r}")
            failure.__cause__ = error
            self._on_end(failure)

    async def _one_stream(self) -> None:
        reconnector = self._reconnector
        reconnector.opening()
        channel = reconnector.channels.current
        try:
            session = await open_session(
                reconnector.channels,
                self._hello,
                self._outbox,
                reconnector.settings,
                reconnector.instruments,
                channel=channel,
            )
        except SignpostError as error:
            await reconnector.lost(error, channel)
            return
        old, self.session = self.session, session
        reconnector.established()
        for inbox in self._inboxes.values():
            if inbox.failure is None and not inbox.held:
                session.subscribe(inbox)
        session.all_asked()
        # An old stream is left only now: this one carries everything that it did.
        if old is not None and not old.ended.done():
            retiring = asyncio.create_task(self._retire(old, session))
            self._retiring.add(retiring)
            retiring.add_done_callback(self._retiring.discard)
        else:
            session.publish_here()
        await _first_of(session.moving, session.ended)
        if session.ended.done():
            await reconnector.lost(session.ended.result(), channel)
        else:
            session.publish_no_more()
            reconnector.draining()
            reconnector.channels.leave(channel, grace_s=max(1.0, session.drain_deadline_s))

    async def _retire(self, old: ConnectSession, new: ConnectSession) -> None:
        """Leave a draining stream once the new one has taken over; publishes keep their order."""
        try:
            async with asyncio.timeout(max(1.0, old.drain_deadline_s)):
                while self._outbox.unanswered and not old.ended.done():
                    await asyncio.wait((old.ended,), timeout=0.02)
                self._publish_on(new)
                await _first_of(new.settled, old.ended, new.ended)
                old.finish()
                await asyncio.wait((old.ended,))
        except TimeoutError:
            self._publish_on(new)
        finally:
            await old.close()

    def _publish_on(self, session: ConnectSession) -> None:
        """Unless it has ended, or drains itself."""
        if session is self.session and not session.ended.done() and not session.moving.is_set():
            session.publish_here()


async def _first_of(event: asyncio.Event, *tasks: "asyncio.Task[SignpostError]") -> None:
    """Return once the event is set or one of the tasks is done."""
    waiting = asyncio.create_task(event.wait())
    try:
        await asyncio.wait((waiting, *tasks), return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
