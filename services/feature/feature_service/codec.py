"""Responses as bytes: what is encoded already is joined, the rest is encoded around it."""

from collections.abc import Sequence

import numpy as np
from signpost.wire import varint

from feature_service.geometry import Floats, Ints
from protos.feature.v1.feature_pb2 import GetFeatureResponse, Position

_FIRST = b"\x0a"


def position(token: bytes) -> bytes:
    """An encoded Position."""
    return Position(token=token).SerializeToString()


def repeated(tag: bytes, items: Sequence[bytes], rest: bytes = b"") -> bytes:
    """A repeated field of items, then the rest of the message; `tag` is its number and wire type."""
    if not items:
        return rest
    # One join and so one copy: the tag stands between nothing and the first, and before each other item.
    return tag.join((b"", *items[:-1], items[-1] + rest))


def field(tag: bytes, content: bytes) -> bytes:
    """A field of bytes."""
    return b"%b%b%b" % (tag, varint(len(content)), content)


def packed_doubles(tag: bytes, values: Floats) -> bytes:
    """A packed repeated field of doubles."""
    return field(tag, values.astype("<f8", copy=False).tobytes()) if len(values) else b""


def packed_floats(tag: bytes, values: Floats) -> bytes:
    """A packed repeated field of floats."""
    return field(tag, values.astype("<f4").tobytes()) if len(values) else b""


def packed_varints(tag: bytes, values: Ints) -> bytes:
    """A packed repeated field of integers >= 0.

    All are as long as the longest: the shorter ones end in groups of zeros, which every decoder takes, and numpy
    is quicker without finding out which.
    """
    if not len(values):
        return b""
    groups = -(-int(values.max()).bit_length() // 7) or 1
    encoded = np.empty((len(values), groups), np.uint8)
    for n in range(groups):
        encoded[:, n] = values >> 7 * n
    encoded[:, :-1] |= 0x80
    encoded[:, -1] &= 0x7F
    return field(tag, encoded.tobytes())


def got(item: bytes, sequence: int, time_ns: int) -> bytes:
    """An encoded GetFeatureResponse."""
    return _FIRST + item + GetFeatureResponse(sequence=sequence, change_time_ns=time_ns).SerializeToString()
