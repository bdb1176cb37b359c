"""Records of the features log: payloads out of features, changes out of records.

A payload is an encoded storage.v1.FeatureRecord; a put is laid out so that the feature is a slice of
it. What is not understood raises `UnknownRecord`: a projection must stop there, never skip.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from signpost.errors import Internal
from signpost.log.base import Record
from signpost.log.subjects import decode_token, encode_token

from feature_service.items import to_item
from protos.storage.v1.storage_pb2 import FeatureHead, FeatureRecord, Tombstone

FORMAT = 1
"""Of the envelope."""
_PUT = b"\x08\x01\x12"
"""How a put begins: format 1, then field 2, whose length and bytes are the item."""
_new = tuple.__new__  # a NamedTuple's own constructor takes three times as long, once for each record


class UnknownRecord(Internal):
    """A record that this release cannot read: written by a newer one, or not by Signpost."""

    reason = "UNKNOWN_RECORD"


class Kind(Enum):
    """What a record says."""

    PUT = "put"
    DELETED = "deleted"
    EXPIRED = "expired"
    DWELLED = "dwelled"


_KINDS: dict[str | None, Kind] = {kind.value: kind for kind in Kind}
"""By the name of the change in the envelope; quicker than the enum's own look-up."""


class Change(NamedTuple):
    """A record's change of a feature. `item` and what follows it are filled for puts only; `expires_ns` 0: never."""

    kind: Kind
    id: str
    sequence: int
    time_ns: int
    item: bytes | None = None
    latitude: int = 0
    longitude: int = 0
    expires_ns: int = 0


def put_payload(item: bytes, principal: str = "", traceparent: str = "") -> bytes:
    """The payload of a put."""
    if not principal and not traceparent:
        return _PUT + item
    rest = FeatureRecord(principal=principal, traceparent=traceparent).SerializeToString()
    return _PUT + item + rest


def gone_payload(kind: Kind, principal: str = "", traceparent: str = "") -> bytes:
    """The payload of a deletion or an expiry."""
    record = FeatureRecord(format=FORMAT, principal=principal, traceparent=traceparent)
    (record.deleted if kind is Kind.DELETED else record.expired).CopyFrom(Tombstone())
    return record.SerializeToString()


def subject_of(collection: str, feature_id: str) -> str:
    """The subject of a feature."""
    return f"{encode_token(collection)}.{encode_token(feature_id)}"


def collections() -> Callable[[str], str]:
    """A function that tells the collection of a subject, quick where collections are few."""
    known: dict[str, str] = {}

    def collection_of(subject: str) -> str:
        token = subject[: subject.find(".")]
        name = known.get(token)
        if name is None:
            name = known[token] = decode_token(token)
        return name

    return collection_of


def decode(record: Record) -> Change:
    """The change that a record holds."""
    sequence, subject, _, time_ns, payload, _ = record
    if payload.startswith(_PUT):
        size, shift, at = 0, 0, 3
        while True:
            byte = payload[at]
            size |= (byte & 0x7F) << shift
            at += 1
            if byte < 0x80:
                break
            shift += 7
        return _put(payload[3 : at + size], payload[at : at + size], sequence, time_ns)
    kind, stored = envelope(record)
    if kind is Kind.PUT:
        return _put(to_item(stored.put), stored.put, sequence, time_ns)
    if kind is Kind.DWELLED:
        return Change(kind, stored.dwelled.feature_id, sequence, time_ns)
    return Change(kind, decode_token(subject.partition(".")[2]), sequence, time_ns)


def envelope(record: Record) -> tuple[Kind, FeatureRecord]:
    """What a record says, and all that it holds; of a put, `decode` is quicker."""
    stored = FeatureRecord.FromString(record.payload)
    if stored.format != FORMAT:
        raise UnknownRecord(f"record {record.sequence} has format {stored.format}; this release reads {FORMAT}")
    kind = _KINDS.get(stored.WhichOneof("change"))
    if kind is None:
        raise UnknownRecord(f"record {record.sequence} holds a change that this release does not know")
    return kind, stored


def traceparent_of(record: Record, item: bytes) -> str:
    """The traceparent that a put carries beside its item; empty: none, as with all that were imported."""
    return "" if len(record.payload) == len(_PUT) + len(item) else envelope(record)[1].traceparent


def _put(item: bytes, feature: bytes, sequence: int, time_ns: int) -> Change:
    head = FeatureHead.FromString(feature)
    location = head.location
    expires_ns = 0
    if head.HasField("expire_time"):
        # The first nanosecond of 1970 is a time too, and long past.
        expires_ns = head.expire_time.seconds * 1_000_000_000 + head.expire_time.nanos or 1
    return _new(Change, (Kind.PUT, head.id, sequence, time_ns, item, location.latitude, location.longitude, expires_ns))
