"""Bytes of the wire, made by hand where a record passes many times: once for each record, not for each reader.

Protobuf lets fields come in any order and messages be joined as bytes. A delivery is therefore
`tag, length, subscription | the records as they were encoded once | after, through, position`, and
what stands between the bars is shared by everybody who waits for the same records.
"""

from collections.abc import Callable, Iterable, Sequence

from signpost.errors import Internal, SignpostError
from signpost.log.base import Appended, Record
from signpost.wire import varint

from protos.storage.v1.storage_pb2 import NotificationRecord

RECORD_FORMAT = 1

Encoded = tuple[int, str, bytes, int]
"""One record, ready for a delivery: sequence, topic, bytes (tag and length included), expiry in Unix ns (0: never)."""

_STORED = b"\x08\x01\x12"  # NotificationRecord: format = 1, then the tag of `published`
_EXPIRES = b"\x39"  # Notification: the tag of expire_time_ns, first in `published` where there is one
# Notification: the sequence's field, up to its lowest seven bits, where these are all and where there are more.
_LAST = [bytes((0x08, n)) for n in range(128)]
_LOW = [bytes((0x08, n | 0x80)) for n in range(128)]
_TIME_BYTES = 9


def field(tag: int, value: bytes) -> bytes:
    """A length-delimited field; nothing where the value is empty, as proto3 has it."""
    return b"%b%b%b" % (varint(tag << 3 | 2), varint(len(value)), value) if value else b""


def number(tag: int, value: int) -> bytes:
    """A varint field; nothing where the value is 0."""
    return varint(tag << 3) + varint(value) if value else b""


def stored(published: bytes, principal: str) -> bytes:
    """The payload of a record in the log: an encoded NotificationRecord."""
    record = b"%b%b%b" % (_STORED, varint(len(published)), published)
    return record + field(3, principal.encode()) if principal else record


def published_of(payload: bytes) -> bytes:
    """The Notification bytes in a record's payload.

    Raises Internal (RECORD_UNKNOWN) for a format or change that this release does not know.
    """
    if payload.startswith(_STORED):
        length = payload[3]
        if length < 0x80:
            return payload[4 : 4 + length]
        if payload[4] < 0x80:
            return payload[5 : 5 + (length & 0x7F | payload[4] << 7)]
    record = NotificationRecord.FromString(payload)
    if record.format != RECORD_FORMAT or record.WhichOneof("change") != "published":
        raise Internal(f"a record of format {record.format} needs a newer release", reason="RECORD_UNKNOWN")
    return record.published


def encode_records(records: Sequence[Record]) -> list[Encoded]:
    """Each record as it stands in `Delivery.notifications`: what the log assigned, then what was published."""
    encoded: list[Encoded] = []
    join = b"".join
    high, high_bytes, low = -1, b"", _LAST
    last_time, time_bytes = -1, b""
    for sequence, topic, _, time_ns, payload, _ in records:
        # The usual layout, read here: a call for each record is a tenth of the time.
        if payload.startswith(_STORED) and payload[3] < 0x80:
            published = payload[4 : 4 + payload[3]]
        else:
            published = published_of(payload)
        if sequence >> 7 != high:
            high = sequence >> 7
            high_bytes = varint(high) if high else b""
            low = _LOW if high else _LAST
        if time_ns != last_time:
            last_time = time_ns
            time_bytes = b"\x11" + time_ns.to_bytes(8, "little")
        size = varint(2 + len(high_bytes) + _TIME_BYTES + len(published))
        expires = int.from_bytes(published[1:9], "little") if published[:1] == _EXPIRES else 0
        data = join((b"*", size, low[sequence & 0x7F], high_bytes, time_bytes, published))
        encoded.append((sequence, topic, data, expires))
    return encoded


def footer(after: int, through: int, position: bytes) -> bytes:
    """The interval of a Delivery, and its end as a position."""
    inside = field(1, position)
    return b"%b%b%b" % (number(2, after), number(3, through), field(4, inside))


def delivery_frame(tag: bytes, name: bytes, parts: Sequence[bytes], end: bytes) -> tuple[bytes, int]:
    """A frame that holds one Delivery, and the Delivery's size in bytes.

    `tag` is the frame's field, `name` the encoded subscription field (`field(1, ...)`), `end` a `footer`.
    """
    size = len(name) + len(end) + sum(map(len, parts))
    return b"".join((tag, varint(size), name, *parts, end)), size


def published_frame(frame_id: int, results: Sequence[bytes]) -> bytes:
    """A ConnectResponse with a Published."""
    body = number(1, frame_id) + b"".join(results)
    return b"\x22%b%b" % (varint(len(body)), body)


def publish_results(
    answers: Iterable[Appended | SignpostError], failed: Callable[[SignpostError], bytes]
) -> list[bytes]:
    """`Published.results` in parts to be joined; `failed` encodes the result of an error."""
    parts: list[bytes] = []
    high, high_bytes, low, head = -1, b"", _LAST, b""
    for answer in answers:
        if not isinstance(answer, Appended):
            parts.append(failed(answer))
            continue
        sequence, duplicate = answer
        if sequence >> 7 != high:
            high = sequence >> 7
            high_bytes = varint(high) if high else b""
            low = _LOW if high else _LAST
            head = b"\x12" + varint(2 + len(high_bytes))
        if duplicate:
            parts += (b"\x12", varint(4 + len(high_bytes)), low[sequence & 0x7F], high_bytes, b"\x10\x01")
        else:
            parts += (head, low[sequence & 0x7F], high_bytes)
    return parts
