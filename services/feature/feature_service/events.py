"""Events of watches, and frames out of them: encoded once, then joined as bytes."""

from collections.abc import Sequence
from typing import NamedTuple

from feature_service import codec
from feature_service.items import to_item
from feature_service.records import Kind
from protos.feature.v1 import feature_pb2 as pb

FRAME_EVENTS = 1000
FRAME_BYTES = 1 << 20
"""What a frame holds at most; a single event may have more bytes."""
_EVENTS, _FEATURES = b"\x0a", b"\x12"


class Event(NamedTuple):
    """One event of a watch."""

    kind: pb.EventKind
    item: bytes
    sequence: int
    time_ns: int
    reason: pb.LeftReason = pb.LEFT_REASON_UNSPECIFIED


def left(kind: Kind, feature_id: str, in_area: bool, sequence: int, time_ns: int) -> Event:
    """A feature is not in the set after a change of this kind, which left it in the area or not."""
    match kind:
        case Kind.DELETED:
            reason = pb.LEFT_REASON_DELETED
        case Kind.EXPIRED:
            reason = pb.LEFT_REASON_EXPIRED
        case _:
            reason = pb.LEFT_REASON_FILTER if in_area else pb.LEFT_REASON_MOVED
    item = to_item(pb.Feature(id=feature_id).SerializeToString())
    return Event(pb.EVENT_KIND_LEFT, item, sequence, time_ns, reason)


def encoded(events: Sequence[Event]) -> bytes:
    """An encoded FeatureEvents. Joined with others it is that of all their events: every field is repeated."""
    kinds, items, sequences, times, reasons = zip(*events, strict=True)
    beside = pb.FeatureEvents(kinds=kinds, sequences=sequences, change_times_ns=times, left_reasons=reasons)
    return codec.repeated(_FEATURES, items, beside.SerializeToString())


def events_frame(content: bytes, position: bytes) -> bytes:
    """A frame of encoded FeatureEvents, which moves the position where there is one."""
    return codec.field(_EVENTS, content) + frame(pb.WatchFeaturesResponse(), position)


def frame(response: pb.WatchFeaturesResponse, position: bytes = b"") -> bytes:
    """Any other frame."""
    if position:
        response.position.token = position
    return response.SerializeToString()


def batches(events: Sequence[Event]) -> list[Sequence[Event]]:
    """Events as they go into frames."""
    found: list[Sequence[Event]] = []
    begin = size = 0
    for end, event in enumerate(events):
        if end - begin == FRAME_EVENTS or (size and size + len(event.item) > FRAME_BYTES):
            found.append(events[begin:end])
            begin, size = end, 0
        size += len(event.item)
    if begin < len(events):
        found.append(events[begin:])
    return found
