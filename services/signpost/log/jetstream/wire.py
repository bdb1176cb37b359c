"""What goes over the wire: record frames, delivery metadata, times, error answers.

A stored message is a frame, so that nothing but its dedupe key needs a header:

    1 byte 0x50, +1 for a tombstone | 2 bytes length of the message id | message id, UTF-8 | payload

A message without that first byte was published by something else; it is handed on as it is.
"""

import re
from datetime import UTC, datetime
from typing import Any, NamedTuple

from signpost.errors import LogUnavailable, SignpostError, StorageFull, TooLarge
from signpost.log.base import Record

_FRAME = 0x50
_TOMBSTONE = 0x01
_HEAD_BYTES = 3
MAX_MESSAGE_ID_BYTES = 0xFFFF

WRONG_LAST_SEQUENCE = frozenset({10071, 10164})
STREAM_NOT_FOUND = 10059
CONSUMER_NOT_FOUND = 10014
NO_MESSAGE_FOUND = 10037
NO_PEERS = 10005  # in a cluster whose nodes have not all met yet; or that has too few
_FULL = frozenset({10023, 10047, 10077})
_TOO_LARGE = 10054
_NOT_NOW = frozenset({10158, 10167})  # in a cluster: its message id is on its way already; too much waits there


_new = tuple.__new__  # shorter than a NamedTuple's own constructor; twice for each record that is read
_ACK = re.compile(rb'\{"stream":"([^"]+)",\s*"seq":(\d+)\}\Z').match


class Delivery(NamedTuple):
    """Where a delivered message stands. `consumer_sequence` counts what its consumer was sent; `time_ns` is exact."""

    sequence: int
    consumer_sequence: int
    time_ns: int


def delivery_of(reply: str) -> Delivery:
    """The metadata in a delivered message's reply subject (`$JS.ACK...`, with or without a domain)."""
    tokens = reply.split(".")
    at = 5 if len(tokens) == 9 else 7
    return _new(Delivery, (int(tokens[at]), int(tokens[at + 1]), int(tokens[at + 2])))


def tries_of(reply: str) -> int:
    """How often a delivered message was delivered before."""
    tokens = reply.split(".")
    return int(tokens[4 if len(tokens) == 9 else 6]) - 1


def parse_status(headers: bytes) -> dict[str, str]:
    """The headers of a message that begins with a status line: `Status`, `Description`, and what follows."""
    first, *lines = headers.decode("utf-8", "replace").split("\r\n")
    _, status, *description = first.split(" ", 2)
    found = {"Status": status, "Description": "".join(description)}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            found[name.strip()] = value.strip()
    return found


def stored_at(answer: bytes, stream: str) -> int:
    """The sequence in a stream's plain answer to a publish; 0 for any other answer, which is JSON."""
    match = _ACK(answer)
    return int(match[2]) if match is not None and match[1] == stream.encode() else 0


def frame(payload: bytes, message_id: str, tombstone: bool) -> bytes:
    """A record's message."""
    encoded = message_id.encode()
    return b"%c%b%b%b" % (_FRAME | tombstone, len(encoded).to_bytes(2, "big"), encoded, payload)


def record_of(sequence: int, subject: str, time_ns: int, data: bytes) -> Record:
    """The record in a message."""
    if len(data) < _HEAD_BYTES or data[0] & ~_TOMBSTONE != _FRAME:
        return Record(sequence, subject, "", time_ns, data)
    end = _HEAD_BYTES + (data[1] << 8 | data[2])
    message_id = data[_HEAD_BYTES:end].decode("utf-8", "replace") if end > _HEAD_BYTES else ""
    return _new(Record, (sequence, subject, message_id, time_ns, data[end:], bool(data[0] & _TOMBSTONE)))


def parse_time(text: str) -> int:
    """Unix nanoseconds of an RFC 3339 time in UTC, exact."""
    seconds = int(datetime.fromisoformat(text[:19]).replace(tzinfo=UTC).timestamp())
    fraction = text[20:].rstrip("Z") if text[19:20] == "." else ""
    return seconds * 1_000_000_000 + int(fraction.ljust(9, "0") or "0")


def format_time(time_ns: int) -> str:
    """RFC 3339 in UTC of Unix nanoseconds, exact; for years up to 9999."""
    seconds, nanoseconds = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def error_of(answer: dict[str, Any]) -> SignpostError | None:
    """What a publish's negative answer means; None for one that may pass if it is sent again."""
    error = answer["error"]
    code, text = error.get("err_code", 0), error.get("description", "")
    if code in _FULL:
        return StorageFull(f"NATS cannot store it: {text}", retry_after_s=1.0)
    if code == _TOO_LARGE:
        return TooLarge("a record", 0, 0)
    if error.get("code") == 503 or code in _NOT_NOW:
        return None
    return LogUnavailable(f"NATS refused it: {text} ({code})", retry_after_s=1.0)
