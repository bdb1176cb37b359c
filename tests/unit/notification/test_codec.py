"""Bytes made by hand are the bytes that protobuf makes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from notification_service import codec
from notification_service.publishing import entries, entry, results
from signpost.errors import Internal, InvalidArgument, TooLarge
from signpost.log.base import Appended, Record

from protos.notification.v1 import notification_pb2 as pb
from protos.storage.v1.storage_pb2 import NotificationRecord

_numbers = st.one_of(st.integers(0, 300), st.integers(0, 2**63 - 1))


@given(_numbers)
def test_a_varint_is_protobufs(value: int) -> None:
    assert codec.number(1, value) == pb.Ping(id=value).SerializeToString()


@given(
    sequence=st.one_of(st.integers(1, 300), st.integers(1, 2**62)),
    time_ns=st.integers(1, 2**62),
    payload=st.binary(max_size=300),
    message_id=st.text(max_size=20),
    attributes=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
    ttl_ms=st.integers(0, 10**9),
    traceparent=st.sampled_from(["", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"]),
    principal=st.text(max_size=10),
)
def test_what_is_published_is_what_is_delivered(
    *,
    sequence: int,
    time_ns: int,
    payload: bytes,
    message_id: str,
    attributes: dict[str, str],
    ttl_ms: int,
    traceparent: str,
    principal: str,
) -> None:
    item = pb.Publication(
        topic="a.b",
        message_id=message_id,
        payload=payload,
        attributes=attributes,
        ttl_ms=ttl_ms,
        traceparent=traceparent,
    )
    appended = entry(item, principal, traceparent, 1000)
    record = Record(sequence, appended.subject, message_id, time_ns, appended.payload)
    ((_, topic, data, expires),) = codec.encode_records([record])
    delivery = pb.Delivery.FromString(data)
    expected_expiry = 1000 + ttl_ms * 1_000_000 if ttl_ms else 0
    assert list(delivery.notifications) == [
        pb.Notification(
            sequence=sequence,
            time_ns=time_ns,
            topic="a.b",
            message_id=message_id,
            payload=payload,
            attributes=attributes,
            expire_time_ns=expected_expiry,
            traceparent=traceparent,
        )
    ]
    assert (topic, expires) == ("a.b", expected_expiry)
    assert len(data) == delivery.ByteSize()  # what a window counts, a client can count too
    assert NotificationRecord.FromString(appended.payload).principal == principal


@given(st.text(max_size=20), st.lists(st.binary(max_size=200), max_size=5), _numbers, _numbers, st.binary(max_size=30))
def test_a_delivery_frame_and_its_size_are_protobufs(
    name: str, payloads: list[bytes], after: int, through: int, token: bytes
) -> None:
    notifications = [pb.Notification(payload=payload) for payload in payloads]
    parts = [pb.Delivery(notifications=[notification]).SerializeToString() for notification in notifications]
    end = codec.footer(after, through, token)
    frame, size = codec.delivery_frame(b"\x1a", codec.field(1, name.encode()), parts, end)
    delivery = pb.ConnectResponse.FromString(frame).delivery
    expected = pb.Delivery(subscription=name, after=after, through=through, notifications=notifications)
    if token:
        expected.position.token = token
    assert delivery == expected
    assert size == delivery.ByteSize()


def test_a_record_of_a_later_release_is_not_skipped() -> None:
    for payload in (
        NotificationRecord(format=2, published=b"x").SerializeToString(),
        NotificationRecord(format=1, principal="p").SerializeToString(),
    ):
        with pytest.raises(Internal) as caught:
            codec.encode_records([Record(1, "a", "", 1, payload)])
        assert caught.value.reason == "RECORD_UNKNOWN"


def test_any_encoding_of_a_record_is_read() -> None:
    published = pb.Notification(topic="a", payload=b"y" * 20_000).SerializeToString()
    plain = NotificationRecord(format=1, published=published).SerializeToString()
    assert codec.published_of(plain) == published
    turned = (
        NotificationRecord(published=published).SerializeToString() + NotificationRecord(format=1).SerializeToString()
    )
    assert codec.published_of(turned) == published


def test_results_stand_in_the_order_of_the_publications() -> None:
    good, bad = entries(
        [pb.Publication(topic="a"), pb.Publication(topic="a.*"), pb.Publication(topic="b"), pb.Publication(topic="_c")],
        "",
        1,
    )
    assert [item.subject for item in good] == ["a", "b"]
    encoded = codec.published_frame(300, results([Appended(7, False), Appended(2**40, True)], bad))
    published = pb.ConnectResponse.FromString(encoded).published
    assert published.id == 300
    assert [(r.sequence, r.duplicate, r.error.reason) for r in published.results] == [
        (7, False, ""),
        (0, False, "INVALID_ARGUMENT"),
        (2**40, True, ""),
        (0, False, "SYSTEM_TOPIC"),
    ]


def test_fault_19_a_record_over_the_limit_is_too_large() -> None:
    with pytest.raises(TooLarge) as caught:
        entry(pb.Publication(topic="a", payload=bytes(512 * 1024)), "", "", 1)
    assert caught.value.metadata["limitBytes"] == str(512 * 1024)


@pytest.mark.parametrize(
    ("item", "field"),
    [
        (pb.Publication(topic="a", message_id="i" * 129), "message_id"),
        (pb.Publication(topic="a", attributes={str(n): "" for n in range(65)}), "attributes"),
        (pb.Publication(topic="a", ttl_ms=2**63), "ttl_ms"),
        (pb.Publication(topic=""), "topic"),
    ],
)
def test_a_bad_publication_is_refused_by_its_field(item: pb.Publication, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        entry(item, "", "", 1)
    assert [violation.field for violation in caught.value.violations] == [field]
