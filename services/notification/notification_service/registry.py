"""The streams of this process, and what they share: the hub, the state log, the settings, one timer for all.

`opened`, `closed`, `subscribed` and `unsubscribed` are called once for each Connect stream and for each of
its subscriptions, on the event loop, and do not wait; presence hears of those that have a client id.
"""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from signpost.errors import Draining, Unavailable
from signpost.log.base import Log

from notification_service import metrics
from notification_service.allowance import Allowance
from notification_service.groups import Groups
from notification_service.hub import Hub
from notification_service.presence import Presence
from notification_service.presence_events import PresenceEvents
from notification_service.sessions import Sessions
from notification_service.settings import NotificationSettings

if TYPE_CHECKING:
    from notification_service.connection import Connection
    from notification_service.member import Member
    from notification_service.subscription import Subscription

_LOG = logging.getLogger(__name__)
PROGRESS_INTERVAL_S = 5.0
CLOSE_S = 2.0
"""How long the last acknowledgements may take at the end: without its log the process is to end all the same."""


class Movable(Protocol):
    """A stream that can be told to move and be ended."""

    def drain(self, deadline_s: float) -> None:
        """Ask the client to move."""

    def end(self, error: Unavailable) -> None:
        """End the stream."""


class Registry:
    """What every stream of the process can reach."""

    def __init__(
        self,
        hub: Hub,
        state: Log,
        sessions: Sessions,
        settings: NotificationSettings,
        *,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.hub = hub
        self.state = state
        self.sessions = sessions
        self.settings = settings
        self.clock = clock
        self.groups = Groups(hub.log, state)
        self.presence_events = PresenceEvents()
        self.presence = Presence(
            state,
            self.presence_events.tell,
            grace_s=settings.presence_grace_s,
            lease_s=settings.presence_lease_s,
        )
        self.filters: Counter[str] = Counter()
        """How many subscriptions of this process have a filter."""
        self.connections: dict[Connection, None] = {}
        self.followers: dict[Movable, None] = {}
        """Subscribe streams and the seed's."""
        self._background: set[asyncio.Task[None]] = set()
        self._emptied = asyncio.Event()

    def allowance(self) -> Allowance | None:
        """A new stream's allowance; None where there is no limit."""
        settings = self.settings
        if not settings.publish_rate_per_s:
            return None
        return Allowance(settings.publish_rate_per_s, settings.publish_burst, time.monotonic)

    def add(self, connection: "Connection") -> None:
        """A Connect stream has begun; it has not said hello."""
        self.connections[connection] = None

    def remove(self, connection: "Connection") -> None:
        """A Connect stream is over."""
        del self.connections[connection]
        if connection.named:
            self.sessions.release(connection.client_id, connection)
        if connection.connected_ns:
            self.closed(connection)
        self._left()

    def opened(self, connection: "Connection") -> None:
        """It has said hello and is welcome."""
        metrics.CONNECTIONS.inc()
        if connection.named:
            self.presence.opened(connection)

    def closed(self, connection: "Connection") -> None:
        """It is over, after `opened`; its subscriptions go with it."""
        metrics.CONNECTIONS.dec()
        for subscription in connection.subscriptions.values():
            self.uncount(subscription.pattern)
        if connection.named:
            self.presence.closed(connection)

    def subscribed(self, connection: "Connection", subscription: "Subscription | Member") -> None:
        """It has one subscription more."""
        self.count(subscription.pattern)
        if connection.named:
            self.presence.updated(connection)

    def unsubscribed(self, connection: "Connection", subscription: "Subscription | Member") -> None:
        """It has one subscription less."""
        self.uncount(subscription.pattern)
        if connection.named:
            self.presence.updated(connection)

    def count(self, pattern: str) -> None:
        """There is one subscription more with a filter."""
        self.filters[pattern] += 1
        metrics.SUBSCRIPTIONS.inc()

    def uncount(self, pattern: str) -> None:
        """There is one subscription less with a filter."""
        self.filters[pattern] -= 1
        if not self.filters[pattern]:
            del self.filters[pattern]
        metrics.SUBSCRIPTIONS.dec()

    def follow(self, stream: Movable) -> None:
        """A stream that only listens has begun."""
        self.followers[stream] = None

    def unfollow(self, stream: Movable) -> None:
        """A stream that only listens is over."""
        del self.followers[stream]
        self._left()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Finish something after its stream has gone; `close` waits for it, but not for ever."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def keep_time(self) -> None:
        """For ever: ping the quiet, end the dead, tell positions to move. One timer for all streams."""
        interval_s = self.settings.heartbeat_s
        tick_s = min(interval_s / 4, 1.0)
        next_progress = time.monotonic()
        while True:
            await asyncio.sleep(tick_s)
            now = time.monotonic()
            self._sweep(now, interval_s)
            if now >= next_progress:
                next_progress = now + min(PROGRESS_INTERVAL_S, interval_s)
                self.hub.progress()
                metrics.HEAD.set(self.hub.through)
                metrics.LANES.set(self.hub.lanes)

    async def drain(self, deadline_s: float) -> None:
        """Ask everybody to move, wait until they have, and end those who have not by the deadline."""
        streams: list[Movable] = [*self.connections, *self.followers]
        for stream in streams:
            stream.drain(deadline_s)
        # A little before the deadline, so that what is due can still go out within it.
        limit = asyncio.get_running_loop().time() + deadline_s * 0.8
        try:
            async with asyncio.timeout_at(limit):
                await self._all_left()
        except TimeoutError:
            _LOG.info(
                "streams did not move", extra={"fields": {"streams": len(self.connections) + len(self.followers)}}
            )
        for stream in [*self.connections, *self.followers]:
            stream.end(Draining("the server is going away"))
        await self._all_left()

    async def close(self) -> None:
        """Finish what streams have left behind, as far as the log takes it in time."""
        if self._background:
            await asyncio.wait(self._background, timeout=CLOSE_S)

    def _sweep(self, now: float, interval_s: float) -> None:
        for connection in list(self.connections):
            silent_s = now - connection.last_heard
            if silent_s > 2 * interval_s:
                metrics.DEAD_PEERS.inc()
                connection.end(
                    Unavailable("the client stayed silent for two heartbeat intervals", reason="HEARTBEAT_MISSED")
                )
            elif connection.connected_ns and connection.outbox.idle:
                quiet_s = now - connection.outbox.last_sent
                if (silent_s > interval_s and not connection.pinged) or quiet_s > connection.heartbeat_s * 0.7:
                    connection.ping()

    async def _all_left(self) -> None:
        while self.connections or self.followers:
            self._emptied.clear()
            await self._emptied.wait()

    def _left(self) -> None:
        if not self.connections and not self.followers:
            self._emptied.set()
