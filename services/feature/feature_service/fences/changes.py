"""Between the features log's records and what fences see."""

from collections.abc import Sequence

from signpost.log.base import Append, Record
from signpost.log.subjects import encode_token

from feature_service.fences.model import Change, Dwell, Fence, Key, Member
from feature_service.items import to_feature_bytes
from feature_service.records import FORMAT, Kind, collections, decode, envelope, traceparent_of
from protos.feature.v1.feature_pb2 import LeftReason
from protos.storage.v1.storage_pb2 import Dwelled, FeatureRecord


def changes_of(records: Sequence[Record]) -> list[Change | Dwell]:
    """The changes that records hold, in order."""
    collection_of = collections()
    return [_change_of(record, collection_of(record.subject)) for record in records]


def _change_of(record: Record, collection: str) -> Change | Dwell:
    kind, feature_id, at, when, item, latitude, longitude, _ = decode(record)
    key = Key(collection, feature_id)
    if item is not None:
        trace = traceparent_of(record, item)
        return Change(key, at, when, to_feature_bytes(item), latitude, longitude, traceparent=trace)
    _, stored = envelope(record)
    if kind is Kind.DWELLED:
        return Dwell(key, at, when, stored.dwelled.fence_uid, stored.dwelled.entered_sequence)
    gone = LeftReason.LEFT_REASON_EXPIRED if kind is Kind.EXPIRED else LeftReason.LEFT_REASON_DELETED
    return Change(key, at, when, None, gone=gone, traceparent=stored.traceparent)


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
