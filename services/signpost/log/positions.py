"""Position tokens: a place in a log that can be checked before reading goes on from it.

A token holds a version, the log's epoch, a sequence, and a check of the record at that sequence, so
that a log which was recreated, restored or rewound is noticed, never silently continued. At most
23 bytes:

    version 1 byte | epoch 8 bytes | sequence, a base-128 varint | check 4 bytes, big-endian

The check is 0 where no record stood at the sequence (before everything, or compacted away); then only
the epoch and the bounds are checked.
"""

import zlib
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from signpost.errors import EpochChanged, InvalidArgument, LogRewound, PositionAhead, PositionCompacted, Violation
from signpost.log.base import Bounds, Record
from signpost.wire import varint

VERSION = 1
EPOCH_BYTES = 8
MAX_TOKEN_BYTES = 32
MAX_SEQUENCE = (1 << 63) - 1


class Position(NamedTuple):
    """A decoded token."""

    epoch: bytes
    sequence: int
    check: int


def check_of(record: Record | None) -> int:
    """The check of a record: never 0, which means that there is none."""
    if record is None:
        return 0
    crc = zlib.crc32(record.time_ns.to_bytes(8, "big"), zlib.crc32(record.subject.encode()))
    return zlib.crc32(record.payload, crc) or 1


def encode(epoch: bytes, sequence: int, check: int) -> bytes:
    """The token of a sequence."""
    return b"%c%b%b%b" % (VERSION, epoch, varint(sequence), check.to_bytes(4, "big"))


def encode_record(epoch: bytes, record: Record) -> bytes:
    """The token of a record in hand."""
    return encode(epoch, record.sequence, check_of(record))


def decode(token: bytes) -> Position:
    """The parts of a token.

    Raises InvalidArgument (reason POSITION_MALFORMED, field `token`) for bytes that are none: who knows which field
    of a request they came in says so by `within`.
    """
    if 1 + EPOCH_BYTES + 5 <= len(token) <= MAX_TOKEN_BYTES and token[0] == VERSION:
        sequence = 0
        for place, byte in enumerate(token[1 + EPOCH_BYTES : -4]):
            sequence |= (byte & 0x7F) << 7 * place
        position = Position(token[1 : 1 + EPOCH_BYTES], sequence, int.from_bytes(token[-4:], "big"))
        if sequence <= MAX_SEQUENCE and encode(*position) == token:
            return position
    rule = f"must be a position as this service gave it, at most {MAX_TOKEN_BYTES} bytes"
    violation = Violation("token", rule, "POSITION_MALFORMED")
    raise InvalidArgument("these bytes are no position of a log", violations=[violation], reason="POSITION_MALFORMED")


def check_bounds(after: int, bounds: Bounds, *, allow_gaps: bool = False) -> None:
    """Raise PositionAhead or PositionCompacted where reading after a sequence cannot go on."""
    if after > bounds.last:
        raise PositionAhead(
            f"position {after} is beyond the head of the log, {bounds.last}", first_available=bounds.horizon + 1
        )
    if after < bounds.horizon and not allow_gaps:
        raise PositionCompacted(
            f"records after {after} are no longer there; the first available is {bounds.horizon + 1}",
            first_available=bounds.horizon + 1,
        )


async def resolve(
    token: bytes,
    *,
    epoch: bytes,
    bounds: Bounds,
    record_at: Callable[[int], Awaitable[Record | None]],
) -> int:
    """The sequence of a token, if it is still a place in the log: what `Log.resolve` promises.

    `record_at` answers the record at a sequence, None where there is none; it is asked at most once.
    """
    position = decode(token)
    first_available = bounds.horizon + 1
    if position.epoch != epoch:
        raise EpochChanged(
            "the position is of another epoch: the log was recreated or restored", first_available=first_available
        )
    check_bounds(position.sequence, bounds)
    if position.check:
        record = await record_at(position.sequence)
        if record is not None and check_of(record) != position.check:
            raise LogRewound(
                f"another record stands at {position.sequence}: the log was rewound", first_available=first_available
            )
    return position.sequence
