"""What a fence is once it is validated, and what it makes of a change."""

import dataclasses
from typing import NamedTuple

from feature_service.areas import Area
from feature_service.filters import Filter
from protos.feature.v1.feature_pb2 import Fence as FenceMessage
from protos.feature.v1.feature_pb2 import FenceEvent, LeftReason


@dataclasses.dataclass(frozen=True, slots=True)
class Fence:
    """A fence that is in force. `uid` stays through revisions; `start` is the sequence of the features log
    that its first inside set shows: changes up to there are no events of it."""

    message: FenceMessage
    area: Area
    filters: tuple[Filter, ...]
    start: int

    @property
    def uid(self) -> str:
        return self.message.uid

    @property
    def collection(self) -> str:
        return self.message.collection

    def publishes(self, kind: FenceEvent) -> bool:
        """Whether this kind of event is asked for."""
        return kind in self.message.events

    @property
    def dwell_ns(self) -> int:
        """How long a stay must last for `dwelled`, in nanoseconds; 0: no such event."""
        asked = self.publishes(FenceEvent.FENCE_EVENT_DWELLED)
        return self.message.dwell_time_ms * 1_000_000 if asked else 0


class Key(NamedTuple):
    """Which feature."""

    collection: str
    id: str


@dataclasses.dataclass(slots=True)
class Member:
    """A feature that is inside a fence: since which change, and as it last was (encoded).

    `sequence` is the last change that the fence has seen of it; `dwelled`: its stay has been told.
    """

    key: Key
    entered_sequence: int
    entered_time_ns: int
    sequence: int
    feature: bytes
    dwelled: bool = False


class Gone(NamedTuple):
    """A feature is not inside a fence any more, since this change; 0: whatever comes."""

    sequence: int


class Change(NamedTuple):
    """One change of a feature. `feature` is its encoding after the change, None when it is gone.

    The coordinates (E7) are those of the feature, so that it is decoded only for a fence that has filters.
    """

    key: Key
    sequence: int
    time_ns: int
    feature: bytes | None
    latitude: int = 0
    longitude: int = 0
    gone: LeftReason = LeftReason.LEFT_REASON_UNSPECIFIED
    traceparent: str = ""


class Dwell(NamedTuple):
    """A stay has lasted for the dwell time, as the log says."""

    key: Key
    sequence: int
    time_ns: int
    fence_uid: str
    entered_sequence: int


class Event(NamedTuple):
    """What a fence publishes."""

    fence: Fence
    kind: FenceEvent
    key: Key
    feature: bytes
    sequence: int
    time_ns: int
    reason: LeftReason = LeftReason.LEFT_REASON_UNSPECIFIED
    traceparent: str = ""
    is_change: bool = True  # else the fence was changed, or the log: `sequence` is the feature's last, maybe of before

    @property
    def kind_name(self) -> str:
        """The kind for people, metrics and ids: `entered`, `left`, `inside`, `dwelled`."""
        return FenceEvent.Name(self.kind).removeprefix("FENCE_EVENT_").lower()

    @property
    def message_id(self) -> str:
        """The same for the same event of a log, whichever replica publishes it, however often."""
        kind = self.kind_name
        if self.reason == LeftReason.LEFT_REASON_FENCE_REMOVED:
            kind = "removed"
        elif not self.is_change:
            kind = "out"  # in a restored log another feature may leave under this sequence
        return f"{self.fence.uid}/{self.fence.message.revision}/{self.sequence}/{kind}"
