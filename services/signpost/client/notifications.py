"""What the notification service's clients hold in their hands."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import repeat
from typing import Any, Literal

from protos.notification.v1 import notification_pb2 as npb
from signpost.client.positions import Position
from signpost.errors import SignpostError

Start = Literal["new", "earliest", "cursor", "last_of_each"] | Position | int | datetime | timedelta
"""Where a subscription starts: what is new from now on; the first record that is still there; the durable cursor;
the last record of each topic, then what is new; after a position; after a sequence; at a time; that long ago."""


class Notification:
    """One record. Reads straight from the wire message, so that what nobody reads costs nothing."""

    __slots__ = ("batch", "message")

    def __init__(self, message: npb.Notification, batch: "NotificationBatch") -> None:
        self.message = message
        self.batch = batch

    @property
    def position(self) -> Position:
        """Resume strictly after this record."""
        return self.batch.position_after(self.message.sequence)

    @property
    def redeliveries(self) -> int:
        """Queue groups: how often it was tried before."""
        return self.batch.redeliveries_of(self.message.sequence)

    @property
    def sequence(self) -> int:
        return self.message.sequence

    @property
    def time_ns(self) -> int:
        """When it was appended, Unix nanoseconds."""
        return self.message.time_ns

    @property
    def topic(self) -> str:
        return self.message.topic

    @property
    def message_id(self) -> str:
        return self.message.message_id

    @property
    def payload(self) -> bytes:
        return self.message.payload

    @property
    def text(self) -> str:
        """The payload as UTF-8; what is not comes as U+FFFD."""
        return self.message.payload.decode(errors="replace")

    @property
    def attributes(self) -> dict[str, str]:
        return dict(self.message.attributes)

    @property
    def expire_time_ns(self) -> int:
        """Unix nanoseconds; 0: never."""
        return self.message.expire_time_ns

    @property
    def traceparent(self) -> str:
        return self.message.traceparent

    def __repr__(self) -> str:
        return f"<Notification {self.sequence} on {self.topic}: {len(self.payload)} bytes>"


class NotificationBatch(Sequence[Notification]):
    """The records of one delivery that are new to the caller, decoded as they are read."""

    __slots__ = ("_before", "_first", "gaps", "message", "position", "size", "turn")

    def __init__(
        self, message: npb.Delivery, size: int, before: Position, first: int = 0, *, gaps: int = 0, turn: int = 0
    ) -> None:
        self.message = message
        self.gaps = gaps  # that the subscription had before it
        self.turn = turn  # of the group's member that it was delivered to
        self.size = size  # of the encoded message, in bytes
        self.position = Position(message.position.token, message.through)  # after the whole batch
        self._before = before
        self._first = first  # records in front of it came already

    def __len__(self) -> int:
        return len(self.message.notifications) - self._first

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return Notification(self.message.notifications[index % len(self) + self._first], self)

    def __iter__(self) -> Iterator[Notification]:
        records = self.message.notifications[self._first :] if self._first else self.message.notifications
        return map(Notification, records, repeat(self))

    def position_after(self, sequence: int) -> Position:
        """The position after one of its records."""
        # The server's mark stands at the end of the batch; inside, the one before it and a number.
        if sequence == self.message.notifications[-1].sequence:
            return self.position
        return Position(self._before.token, sequence)

    def redeliveries_of(self, sequence: int) -> int:
        """How often one of its records was tried before."""
        tried = self.message.redeliveries
        return next((t for n, t in zip(self.message.notifications, tried, strict=False) if n.sequence == sequence), 0)

    @property
    def payloads(self) -> list[bytes]:
        """The payloads alone: the fastest way through a batch."""
        return [n.payload for n in self.message.notifications[self._first :]]


@dataclass(frozen=True, slots=True)
class Gap:
    """Records may have been lost: reading goes on with `first_available`. `error` says why: PositionCompacted,
    EpochChanged or LogRewound."""

    subscription: str
    first_available: int
    error: SignpostError


@dataclass(frozen=True, slots=True)
class Published:
    """A publish: its sequence, and whether its message id was seen before (`sequence` is the
    first one's then; so it is when the first answer was lost and the library sent it again)."""

    sequence: int
    duplicate: bool
    message_id: str


@dataclass(frozen=True, slots=True)
class Unsent:
    """A publish that `close()` gave up. `maybe_stored`: it went out, its answer did not come."""

    topic: str
    message_id: str
    maybe_stored: bool


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic that has records."""

    name: str
    first_sequence: int
    last_sequence: int
    records: int
    subscribers: int


@dataclass(frozen=True, slots=True)
class Presence:
    """A connected client, since when (Unix nanoseconds), and its filters."""

    client_id: str
    connected_time_ns: int
    filters: tuple[str, ...]
