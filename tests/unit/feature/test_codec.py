"""Bytes that are put together by hand are what protobuf reads."""

import numpy as np
import pytest
from feature_service import codec, continuation
from feature_service.fences.changes import changes_of
from feature_service.items import to_feature, to_feature_bytes, to_item
from feature_service.records import Kind, UnknownRecord, decode, gone_payload, put_payload, subject_of
from hypothesis import given
from hypothesis import strategies as st
from signpost.errors import EpochChanged, InvalidArgument
from signpost.log import Record, positions
from signpost.wire import varint

from protos.feature.v1 import feature_pb2 as pb
from protos.storage.v1.storage_pb2 import FeatureRecord
from tests.unit.feature.inprocess import feature

EPOCH = b"epoch..8"
sequences = st.integers(0, (1 << 63) - 1)


@given(st.lists(sequences), st.lists(st.floats(allow_nan=False)), st.lists(st.text(max_size=300), max_size=5))
def test_a_batch_put_together_is_what_protobuf_reads(
    numbers: list[int], distances: list[float], names: list[str]
) -> None:
    features = [pb.Feature(name=name) for name in names]
    rest = codec.packed_varints(b"\x1a", np.array(numbers, np.int64))
    rest += codec.packed_doubles(b"\x12", np.array(distances, np.float64))
    items = [to_item(each.SerializeToString()) for each in features]
    batch = pb.ListFeaturesResponse.FromString(codec.repeated(b"\x0a", items, rest))
    assert list(batch.features) == features
    assert list(batch.sequences) == numbers
    assert list(batch.distances_m) == distances
    assert [to_feature(item) for item in items] == features


@given(st.integers(0, 1 << 40))
def test_a_varint_is_protobufs(value: int) -> None:
    assert pb.Position(sequence=value).SerializeToString() == b"\x10" + varint(value)
    assert pb.Position.FromString(b"\x10" + varint(value)).sequence == value


@given(st.text(min_size=1, max_size=40), st.integers(0, 4_000_000_000), st.booleans())
def test_a_put_comes_back_from_its_record(name: str, expires_s: int, signed: bool) -> None:
    made = feature("id " + name, -5, 7, text=name)
    made.expire_time.seconds = expires_s
    encoded = made.SerializeToString(deterministic=True)
    payload = put_payload(to_item(encoded), *(("someone", "00-trace") if signed else ()))
    record = FeatureRecord.FromString(payload)
    assert (record.format, record.put, bool(record.principal)) == (1, encoded, signed)
    decoded = decode(Record(3, subject_of("places", made.id), "", 0, payload))
    assert decoded == (Kind.PUT, made.id, 3, 0, to_item(encoded), -5, 7, expires_s * 1_000_000_000 or 1)
    assert decode(Record(3, "x.y", "", 0, FeatureRecord(format=1, put=encoded, principal="p").SerializeToString())) == (
        decoded
    )
    assert to_feature_bytes(to_item(encoded)) == encoded


def test_a_deletion_says_whose_it_is() -> None:
    for kind in (Kind.DELETED, Kind.EXPIRED):
        decoded = decode(Record(1, subject_of("a.b", "c d"), "", 0, gone_payload(kind, "p", "t"), True))
        assert (decoded.kind, decoded.id, decoded.item) == (kind, "c d", None)


@pytest.mark.parametrize("record", [FeatureRecord(format=2), FeatureRecord(format=1), FeatureRecord()])
def test_what_is_not_known_is_never_passed_over(record: FeatureRecord) -> None:
    for reader in (decode, lambda record: changes_of([record])):
        with pytest.raises(UnknownRecord):
            reader(Record(1, "places.a", "", 0, record.SerializeToString()))


@given(
    sequences, st.one_of(st.none(), st.integers(0, 20_100_000_000_000)), st.text(max_size=128), st.none() | sequences
)
def test_a_continuation_comes_back(sequence: int, micrometres: int | None, last: str, remaining: int | None) -> None:
    position = positions.encode(EPOCH, sequence, 77)
    distance = None if micrometres is None else micrometres / 1e6
    token = continuation.encode(b"hash...8", position, distance, last, remaining)
    assert len(token) <= 512
    decoded = continuation.decode(token, b"hash...8", EPOCH)
    assert decoded == ((sequence, distance, last), position, remaining)
    with pytest.raises(InvalidArgument, match="another request"):
        continuation.decode(token, b"hash...9", EPOCH)
    with pytest.raises(EpochChanged):
        continuation.decode(token, b"hash...8", b"epoch..9")


@given(st.binary(max_size=80))
def test_bytes_that_are_no_continuation_are_refused(token: bytes) -> None:
    with pytest.raises(InvalidArgument):
        continuation.decode(token, b"hash...8", EPOCH)


def test_the_request_hash_leaves_out_what_may_change() -> None:
    first = pb.ListFeaturesRequest(limit=5, origin=pb.Point(latitude=1))
    again = pb.ListFeaturesRequest(limit=5, origin=pb.Point(latitude=1), batch_size=7, continuation=b"x")
    again.min_position.sequence = 4
    assert continuation.request_hash(first) == continuation.request_hash(again)
    assert continuation.request_hash(first) != continuation.request_hash(pb.ListFeaturesRequest(limit=6))
