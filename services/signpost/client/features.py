"""What the feature service's clients hold in their hands: features, batches, events, fences."""

import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from google.protobuf import json_format
from google.protobuf.timestamp_pb2 import Timestamp

from protos.feature.v1 import feature_pb2 as fpb
from signpost.client.geo import Area, Filter, point


class Feature:
    """A place with properties. Made by you to be put, or by the client from an answer.

    Reads straight from the wire message, so that a field that nobody reads costs nothing.
    `sequence` (of its last change, 0 if not known), `change_time_ns` and `distance_m` (metres
    from the origin, None without one) travel beside it.
    """

    __slots__ = ("change_time_ns", "distance_m", "message", "sequence")

    def __init__(
        self,
        id: str,
        latitude: float,
        longitude: float,
        *,
        name: str = "",
        properties: Mapping[str, Any] | None = None,
        expire_time: datetime | None = None,
    ) -> None:
        """Degrees; `expire_time` with its time zone, None for never."""
        # The constructor fills a Struct from a dict in a third of the time of its own `update`.
        self.message = fpb.Feature(
            id=id, name=name, location=point((latitude, longitude)), properties=dict(properties) if properties else None
        )
        if expire_time is not None:
            self.message.expire_time.CopyFrom(to_timestamp(expire_time))
        self.sequence, self.change_time_ns = 0, 0
        self.distance_m: float | None = None

    @classmethod
    def from_message(
        cls, message: fpb.Feature, sequence: int = 0, change_time_ns: int = 0, distance_m: float | None = None
    ) -> "Feature":
        """A feature around a wire message, which it keeps."""
        self = cls.__new__(cls)
        self.message, self.sequence, self.change_time_ns, self.distance_m = (
            message,
            sequence,
            change_time_ns,
            distance_m,
        )
        return self

    @property
    def id(self) -> str:
        return self.message.id

    @property
    def name(self) -> str:
        return self.message.name

    @property
    def latitude(self) -> float:
        """Degrees."""
        return self.message.location.latitude / 1e7

    @property
    def longitude(self) -> float:
        """Degrees."""
        return self.message.location.longitude / 1e7

    @property
    def properties(self) -> dict[str, Any]:
        """The GeoJSON properties, sorted by name at every depth; a new dict at every call."""
        if not self.message.HasField("properties"):
            return {}
        properties: dict[str, Any] = _sorted(json_format.MessageToDict(self.message.properties))
        return properties

    @property
    def expire_time(self) -> datetime | None:
        """When it expires (UTC); None: never."""
        if not self.message.HasField("expire_time"):
            return None
        return self.message.expire_time.ToDatetime(UTC)

    def __repr__(self) -> str:
        return f"Feature({self.id!r}, {self.latitude}, {self.longitude}, name={self.name!r})"


def to_timestamp(moment: datetime) -> Timestamp:
    """A moment as a protobuf Timestamp; one without a time zone raises ValueError."""
    if moment.tzinfo is None:
        raise ValueError("a time needs a time zone: datetime.now(UTC), not datetime.now()")
    stamp = Timestamp()
    stamp.FromDatetime(moment.astimezone(UTC))
    return stamp


def _sorted(value: Any) -> Any:
    """With the names of every object in order: a protobuf map's own differs in each process."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


class FeatureBatch(Sequence[Feature]):
    """The features of one message, decoded one by one as they are read."""

    __slots__ = ("message",)

    def __init__(self, message: fpb.ListFeaturesResponse) -> None:
        self.message = message

    def __len__(self) -> int:
        return len(self.message.features)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        message = self.message
        # A read mask or no origin leaves the parallel fields out.
        return Feature.from_message(
            message.features[index],
            message.sequences[index] if message.sequences else 0,
            message.change_times_ns[index] if message.change_times_ns else 0,
            message.distances_m[index] if message.distances_m else None,
        )

    def __iter__(self) -> Iterator[Feature]:
        message, count = self.message, len(self.message.features)
        make = Feature.from_message
        sequences = message.sequences or [0] * count
        times = message.change_times_ns or [0] * count
        if message.distances_m:
            yield from map(make, message.features, sequences, times, message.distances_m)
        else:
            yield from map(make, message.features, sequences, times)

    @property
    def continuation(self) -> bytes:
        """Continues the list strictly after this batch; empty in the last one."""
        return self.message.continuation


@dataclass(frozen=True, slots=True)
class Written:
    """A write: its sequence, whether its message id was seen before, its position."""

    sequence: int
    duplicate: bool
    position: bytes


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deletion: whether there was something to delete, and the same as of a write."""

    deleted: bool
    sequence: int
    duplicate: bool


class EventKind(enum.Enum):
    """What happened to a feature of a watched set."""

    ENTERED = "entered"  # was not in the set, is now
    MOVED = "moved"  # was in the set, changed, still is
    LEFT = "left"  # was in the set, is not any more
    CAUGHT_UP = "caught_up"  # the set is complete; what follows is live


class LeftReason(enum.Enum):
    """Why a feature left."""

    MOVED = "moved"
    DELETED = "deleted"
    EXPIRED = "expired"
    FILTER = "filter"
    UNKNOWN = "unknown"  # it was gone after a pause longer than the history


_LEFT_REASONS: dict[int, LeftReason] = {
    fpb.LEFT_REASON_MOVED: LeftReason.MOVED,
    fpb.LEFT_REASON_DELETED: LeftReason.DELETED,
    fpb.LEFT_REASON_EXPIRED: LeftReason.EXPIRED,
    fpb.LEFT_REASON_FILTER: LeftReason.FILTER,
}


def left_reason(wire: int) -> LeftReason:
    """The reason of a wire event."""
    return _LEFT_REASONS.get(wire, LeftReason.UNKNOWN)


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """One change of a watched set.

    `feature` is the feature after the change; for LEFT, as it last was in the set; None for
    CAUGHT_UP. `sequence` and `change_time_ns` are those of the change.
    """

    kind: EventKind
    feature: Feature | None
    sequence: int = 0
    change_time_ns: int = 0
    reason: LeftReason | None = None


@dataclass(frozen=True, slots=True)
class NearestFeature:
    """One neighbour: its id, its distance in metres, and the whole feature where asked for."""

    id: str
    distance_m: float
    feature: Feature | None = None


@dataclass(frozen=True, slots=True)
class ItemError:
    """A refused item: its index in what was handed in, from 0, and what is wrong."""

    index: int
    reason: str
    field: str
    description: str


@dataclass(frozen=True, slots=True)
class ImportProgress:
    """What an import has done up to here: durable, unchanged, refused (this batch's refusals)."""

    written: int
    unchanged: int
    refused: int
    errors: tuple[ItemError, ...]


_FENCE_EVENTS = {
    "entered": fpb.FENCE_EVENT_ENTERED,
    "left": fpb.FENCE_EVENT_LEFT,
    "inside": fpb.FENCE_EVENT_INSIDE,
    "dwelled": fpb.FENCE_EVENT_DWELLED,
}


@dataclass(frozen=True, slots=True)
class Fence:
    """A durable fence: movements through `area` become notifications on `topic`.

    events: of entered, left, inside, dwelled. topic "": `fence.<id>`. dwell_s: seconds inside
    until `dwelled`. uid and revision are the server's. `area` is None in a fence that was read:
    its wire form is in `message`.
    """

    id: str
    area: Area | None
    collection: str = "places"
    filters: Sequence[Filter] = ()
    events: Sequence[str] = ("entered", "left")
    topic: str = ""
    dwell_s: float = 0.0
    notify_present: bool = False
    notify_left_on_expiry: bool = False
    expire_time: datetime | None = None
    uid: str = ""
    revision: int = 0
    message: fpb.Fence | None = None

    def to_proto(self) -> fpb.Fence:
        """The wire form; ValueError for an event that is not one."""
        if unknown := [e for e in self.events if e not in _FENCE_EVENTS]:
            raise ValueError(f"unknown fence events {unknown}; there are {', '.join(_FENCE_EVENTS)}")
        message = fpb.Fence(
            id=self.id,
            collection=self.collection,
            filters=[f.to_proto() for f in self.filters],
            events=[_FENCE_EVENTS[e] for e in self.events],
            topic=self.topic,
            dwell_time_ms=round(self.dwell_s * 1000),
            notify_present=self.notify_present,
            notify_left_on_expiry=self.notify_left_on_expiry,
        )
        if self.area is not None:
            message.area.CopyFrom(self.area.to_area())
        elif self.message is not None:
            message.area.CopyFrom(self.message.area)
        if self.expire_time is not None:
            message.expire_time.CopyFrom(to_timestamp(self.expire_time))
        return message

    @classmethod
    def from_message(cls, message: fpb.Fence) -> "Fence":
        """A fence as the server holds it."""
        names = {number: name for name, number in _FENCE_EVENTS.items()}
        return cls(
            id=message.id,
            area=None,
            collection=message.collection,
            events=tuple(names[e] for e in message.events if e in names),
            topic=message.topic,
            dwell_s=message.dwell_time_ms / 1000,
            notify_present=message.notify_present,
            notify_left_on_expiry=message.notify_left_on_expiry,
            expire_time=message.expire_time.ToDatetime(UTC) if message.HasField("expire_time") else None,
            uid=message.uid,
            revision=message.revision,
            message=message,
        )
