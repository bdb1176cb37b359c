"""A lane: what everybody gets who is subscribed to one filter and keeps up.

The lane holds no queue for anybody. Records of a round are joined once into a segment, and segments
form a singly linked list. A subscription is a pointer to the last segment it took; a segment that
nobody can reach any more is freed by that alone.
"""

from typing import TYPE_CHECKING

from notification_service.codec import delivery_frame, footer

if TYPE_CHECKING:
    from notification_service.subscription import Subscription

BATCH_BYTES = 256 * 1024
"""A delivery is closed when it has this many bytes: large enough to pay for a gRPC message many times over."""


SEGMENT_OVERHEAD_BYTES = 200
"""What a segment takes besides its records: marks of progress are held for a stopped reader too."""


class Segment:
    """The lane's records of (after, through], joined; `total` counts the lane's bytes up to here."""

    __slots__ = ("after", "data", "next", "position", "through", "total")

    def __init__(self, after: int, through: int, position: bytes, data: bytes, total: int) -> None:
        self.after = after
        self.through = through
        self.position = position
        self.data = data
        self.total = total
        self.next: Segment | None = None


class Frame:
    """A delivery that is ready, its size as a window counts it (0: progress), and where it ends."""

    __slots__ = ("data", "last", "size")

    def __init__(self, data: bytes, size: int, last: Segment) -> None:
        self.data = data
        self.size = size
        self.last = last


class Lane:
    """One filter's live tail and those who follow it."""

    __slots__ = ("_frames", "_pending", "_pending_bytes", "members", "pattern", "tail")

    def __init__(self, pattern: str, through: int, position: bytes) -> None:
        self.pattern = pattern
        self.tail = Segment(through, through, position, b"", 0)
        self.members: dict[Subscription, None] = {}
        # None while there is nothing: most lanes are quiet, and have one member each.
        self._pending: list[bytes] | None = None
        self._pending_bytes = 0
        self._frames: dict[tuple[int, bytes], Frame] | None = None

    @property
    def pending(self) -> bool:
        """Whether there are records that no segment holds yet."""
        return bool(self._pending)

    def add(self, data: bytes) -> bool:
        """A record that matches; True where the pending ones should become a segment now."""
        if self._pending is None:
            self._pending = []
        self._pending.append(data)
        self._pending_bytes += len(data)
        return self._pending_bytes >= BATCH_BYTES

    def cut(self, through: int, position: bytes) -> None:
        """Close what is pending into a segment that ends at `through`; an empty one is a mere mark."""
        tail, pending = self.tail, self._pending or ()
        data = pending[0] if len(pending) == 1 else b"".join(pending)
        total = tail.total + len(data) + SEGMENT_OVERHEAD_BYTES
        self.tail = tail.next = Segment(tail.through, through, position, data, total)
        self._pending, self._pending_bytes, self._frames = None, 0, None

    def frame(self, first: Segment, tag: bytes, name: bytes) -> Frame:
        """The delivery that begins with a segment, shared by all who wait for the same under the same name."""
        key = (first.through, name + tag)
        if self._frames is None:
            self._frames = {}
        made = self._frames.get(key)
        if made is None:
            made = self._frames[key] = self._join(first, tag, name)
        return made

    def _join(self, first: Segment, tag: bytes, name: bytes) -> Frame:
        parts, size, last = [first.data], len(first.data), first
        while last.next is not None and size < BATCH_BYTES:
            last = last.next
            parts.append(last.data)
            size += len(last.data)
        data, cost = delivery_frame(tag, name, parts, footer(first.after, last.through, last.position))
        return Frame(data, cost if size else 0, last)
