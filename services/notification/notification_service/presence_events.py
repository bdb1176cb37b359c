"""Presence events: who joined and who left, to those who are subscribed under `_presence`.

Live only: the log does not have them, so they carry no sequence and move no position. A subscriber gets
each once while its stream lives and it keeps up; beyond `MAX_WAITING` the oldest go.
"""

from collections import deque
from collections.abc import Callable

from signpost.log.subjects import encode_token, matcher

from notification_service import metrics
from notification_service.codec import delivery_frame, field, footer
from notification_service.hub import Hub
from notification_service.lane import BATCH_BYTES
from notification_service.presence import Change
from notification_service.subscription import Outlet, Subscription, Wire
from protos.notification.v1 import notification_pb2 as pb

ROOT = "_presence"
MAX_WAITING = 1000


def event_of(change: Change) -> tuple[str, bytes]:
    """A change's topic, and its notification as it stands in a delivery."""
    topic = f"{ROOT}.{encode_token(change.client_id)}"
    event = pb.PresenceEvent(
        client_id=change.client_id, joined=change.joined, time_ns=change.time_ns, filters=change.filters
    )
    notification = pb.Notification(time_ns=change.time_ns, topic=topic, payload=event.SerializeToString())
    return topic, field(5, notification.SerializeToString())


class PresenceEvents:
    """Everybody on this replica who is subscribed to presence."""

    def __init__(self) -> None:
        self.listeners: dict[PresenceSubscription, None] = {}

    def tell(self, change: Change) -> None:
        """Hand an event to everybody whose filter matches it."""
        if self.listeners:
            topic, data = event_of(change)
            for listener in list(self.listeners):
                listener.offer(topic, data)

    def subscription(
        self, hub: Hub, outlet: Outlet, wire: Wire, name: str, pattern: str, *, window: int | None = None
    ) -> Subscription:
        """A subscription to the log or, where its filter is for presence, to that as well."""
        if not pattern.startswith(f"{ROOT}."):
            return Subscription(hub, outlet, wire, name, pattern, window=window)
        subscription = PresenceSubscription(hub, outlet, wire, name, pattern, window=window)
        subscription.listeners = self.listeners
        return subscription


class PresenceSubscription(Subscription):
    """A subscription that events of no log are slipped into, within the same window."""

    __slots__ = ("_matches", "_waiting", "listeners")

    def __init__(
        self, hub: Hub, outlet: Outlet, wire: Wire, name: str, pattern: str, *, window: int | None = None
    ) -> None:
        super().__init__(hub, outlet, wire, name, pattern, window=window)
        self.listeners: dict[PresenceSubscription, None] = {}
        self._matches: Callable[[str], bool] = matcher(pattern)
        self._waiting: deque[bytes] = deque()

    def begin(self, through: int, position: bytes) -> None:
        super().begin(through, position)
        self.listeners[self] = None

    def close(self) -> None:
        super().close()
        self.listeners.pop(self, None)
        self._waiting.clear()

    def offer(self, topic: str, data: bytes) -> None:
        """An event, encoded; for us if its topic matches."""
        if self._matches(topic):
            if len(self._waiting) >= MAX_WAITING:
                self._waiting.popleft()
                metrics.PRESENCE_DROPPED.inc()
            self._waiting.append(data)
            self.outlet.wake(self)

    def take(self) -> bytes | None:
        if self._waiting and (self.window is None or self.window > 0):
            return self._take_events()
        return super().take()

    def _take_events(self) -> bytes:
        limit = BATCH_BYTES if self.window is None else min(BATCH_BYTES, self.window)
        parts = [self._waiting.popleft()]
        size = len(parts[0])
        while self._waiting and size + len(self._waiting[0]) <= limit:
            parts.append(self._waiting.popleft())
            size += len(parts[-1])
        end = footer(self.through, self.through, self.position)
        frame, cost = delivery_frame(self.wire.delivery, self._name_field, parts, end)
        if self.window is not None:
            self.window -= cost
        return frame
