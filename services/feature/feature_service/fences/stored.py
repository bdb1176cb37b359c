"""What the state log holds of fences: subjects and payloads."""

from typing import NamedTuple

from signpost.errors import Internal
from signpost.log.base import Append, Record
from signpost.log.subjects import decode_token, encode_token

from feature_service.fences.model import Gone, Key, Member
from protos.feature.v1.feature_pb2 import Fence as FenceMessage
from protos.storage.v1.fence_pb2 import FenceCursorRecord, FenceMemberRecord, FenceRecord, FenceStartRecord

FENCES = "fence.>"
STARTS = "fencestart.>"
MEMBERS = "inside.>"
CURSOR = "fencecursor"
_FORMAT = 1


class StoredFence(NamedTuple):
    """A fence as the log has it. `sequence` is that of its record in the state log, `features_sequence` the
    head of the features log when it was put or removed."""

    message: FenceMessage
    removed: bool
    notify_left: bool
    sequence: int
    features_sequence: int | None


class Start(NamedTuple):
    """Where a fence's revision began, in the features log."""

    uid: str
    revision: int
    sequence: int


def fence_subject(fence_id: str) -> str:
    """The subject of a fence."""
    return f"fence.{encode_token(fence_id)}"


def fence_payload(fence: FenceMessage, *, features_sequence: int | None = None, notify_left: bool = False) -> bytes:
    """The payload of a fence, or of its removal."""
    return FenceRecord(
        format=_FORMAT,
        fence=fence.SerializeToString(deterministic=True),
        notify_left=notify_left,
        features_sequence=features_sequence,
    ).SerializeToString()


def stored_fence(record: Record) -> StoredFence:
    """The fence that a record holds."""
    stored = FenceRecord.FromString(record.payload)
    _check(record, stored.format)
    message = FenceMessage.FromString(stored.fence)
    begins = stored.features_sequence if stored.HasField("features_sequence") else None
    return StoredFence(message, record.tombstone, stored.notify_left, record.sequence, begins)


def start_append(uid: str, revision: int, sequence: int) -> Append:
    """A fence has begun."""
    payload = FenceStartRecord(format=_FORMAT, revision=revision, sequence=sequence).SerializeToString()
    return Append(f"fencestart.{uid}", payload)


def start_of(record: Record) -> Start:
    """Where a fence began."""
    start = FenceStartRecord.FromString(record.payload)
    _check(record, start.format)
    return Start(record.subject.partition(".")[2], start.revision, start.sequence)


def removal_append(uid: str) -> Append:
    """A fence is gone, and where it began is of no interest any more."""
    return Append(f"fencestart.{uid}", b"", tombstone=True)


def member_append(uid: str, key: Key, member: Member | Gone) -> Append:
    """A feature is inside a fence, or is not any more."""
    subject = f"inside.{uid}.{encode_token(key.collection)}.{encode_token(key.id)}"
    if isinstance(member, Gone):
        gone = FenceMemberRecord(format=_FORMAT, sequence=member.sequence)
        return Append(subject, gone.SerializeToString(), tombstone=True)
    record = FenceMemberRecord(
        format=_FORMAT,
        entered_sequence=member.entered_sequence,
        entered_time_ns=member.entered_time_ns,
        sequence=member.sequence,
        feature=member.feature,
        dwelled=member.dwelled,
    )
    return Append(subject, record.SerializeToString())


def member_of(record: Record) -> tuple[str, Key, Member | Gone]:
    """The fence's uid, the feature, and its membership."""
    _, uid, collection, feature_id = record.subject.split(".")
    key = Key(decode_token(collection), decode_token(feature_id))
    member = FenceMemberRecord.FromString(record.payload)
    _check(record, member.format)
    if record.tombstone:
        return uid, key, Gone(member.sequence)
    entered, when = member.entered_sequence, member.entered_time_ns
    return uid, key, Member(key, entered, when, member.sequence, member.feature, member.dwelled)


def cursor_append(position: bytes, sequence: int, *, expected_sequence: int) -> Append:
    """The fences have seen the features log up to here; stored only by the relay that wrote the one before."""
    payload = FenceCursorRecord(format=_FORMAT, position=position, sequence=sequence).SerializeToString()
    return Append(CURSOR, payload, expected_sequence=expected_sequence)


def cursor_of(record: Record) -> bytes:
    """The token of the cursor's position."""
    cursor = FenceCursorRecord.FromString(record.payload)
    _check(record, cursor.format)
    return cursor.position


def _check(record: Record, record_format: int) -> None:
    if record_format != _FORMAT:
        raise Internal(f"state record {record.sequence} has format {record_format}; this release reads {_FORMAT}")
