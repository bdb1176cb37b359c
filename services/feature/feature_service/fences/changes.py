"""Between the features log's records and what fences see."""

from collections.abc import Sequence

from signpost.log.base import Append, Record
from signpost.log.subjects import decode_token, encode_token

from feature_service.fences.model import Change, Dwell, Fence, Key, Member
from feature_service.records import FORMAT, Kind, envelope
from protos.feature.v1.feature_pb2 import LeftReason
from protos.storage.v1.storage_pb2 import Dwelled, FeatureRecord


def changes_of(records: Sequence[Record]) -> list[Change | Dwell]:
    """The changes that records hold, in order."""
    return [_change_of(record) for record in records]


def _change_of(record: Record) -> Change | Dwell:
    kind, stored = envelope(record)
    tokens = record.subject.split(".")
    key = Key(decode_token(tokens[0]), decode_token(tokens[1]))
    at, when, trace = record.sequence, record.time_ns, stored.traceparent
    match kind:
        case Kind.PUT:
            return Change(key, at, when, stored.put, traceparent=trace)
        case Kind.DELETED:
            return Change(key, at, when, None, LeftReason.LEFT_REASON_DELETED, trace)
        case Kind.EXPIRED:
            return Change(key, at, when, None, LeftReason.LEFT_REASON_EXPIRED, trace)
        case Kind.DWELLED:
            return Dwell(key, at, when, stored.dwelled.fence_uid, stored.dwelled.entered_sequence)


def dwell_append(fence: Fence, member: Member) -> Append:
    """A stay has lasted for the dwell time: a change of its own, beside the feature's subject.

    It is no version of anything, so it goes as a tombstone: it is gone at the horizon.
    """
    collection, feature_id = member.key
    stay = Dwelled(
        fence_uid=fence.uid,
        fence_revision=fence.message.revision,
        entered_sequence=member.entered_sequence,
        collection=collection,
        feature_id=feature_id,
    )
    return Append(
        f"{encode_token(collection)}.{encode_token(feature_id)}.{fence.uid}",
        FeatureRecord(format=FORMAT, dwelled=stay).SerializeToString(),
        message_id=f"dwelled/{member.entered_sequence}",
        tombstone=True,
    )


def stay_of(record: Record) -> int:
    """The sequence at which the stay began that such a record tells of."""
    return FeatureRecord.FromString(record.payload).dwelled.entered_sequence
