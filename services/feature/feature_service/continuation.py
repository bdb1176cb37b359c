"""Continuation tokens of lists: stable while features move, good on any replica.

A token holds where the list stands and what it is a list of: the snapshot's position, how many
features may still come, the last feature's distance and id, and a hash of the request. A
continuation answers strictly after that feature, out of what has not changed since the snapshot: so
nothing comes twice, and nothing that stands still is left out.

    version 1 byte | request hash 8 | remaining 8 | micrometres 8 | position length 1 | position | id
"""

import hashlib
import struct
from typing import NamedTuple

from signpost.errors import EpochChanged, InvalidArgument
from signpost.log import positions

from feature_service.search import After
from protos.feature.v1.feature_pb2 import ListFeaturesRequest

_VERSION = 1
_HEAD = struct.Struct(">B8sQqB")
_NO_DISTANCE = -1
_NO_LIMIT = (1 << 64) - 1


class Continuation(NamedTuple):
    """Where a list goes on, the position of its snapshot, and how many features it may still answer
    (None: all)."""

    after: After
    position: bytes
    remaining: int | None


def request_hash(request: ListFeaturesRequest) -> bytes:
    """What must be the same in a continuation as in the first request."""
    same = request
    if request.continuation or request.HasField("min_position") or request.batch_size:
        same = ListFeaturesRequest()
        same.CopyFrom(request)
        for field in ("continuation", "min_position", "batch_size"):
            same.ClearField(field)
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=8).digest()


def encode(request: bytes, position: bytes, distance_m: float | None, feature_id: str, remaining: int | None) -> bytes:
    """The token; `request` is the request's hash, the distance and id are the last feature's."""
    micrometres = _NO_DISTANCE if distance_m is None else round(distance_m * 1e6)
    head = _HEAD.pack(_VERSION, request, _NO_LIMIT if remaining is None else remaining, micrometres, len(position))
    return head + position + feature_id.encode()


def decode(token: bytes, request: bytes, epoch: bytes) -> Continuation:
    """What the token holds.

    Raises InvalidArgument where it is none, or of another request; EpochChanged where the log has
    been recreated since.
    """
    try:
        version, hashed, remaining, micrometres, size = _HEAD.unpack_from(token)
        position, last = token[_HEAD.size : _HEAD.size + size], token[_HEAD.size + size :].decode()
        snapshot = positions.decode(position)
    except (struct.error, UnicodeDecodeError, InvalidArgument):
        raise _wrong("is no token of this server's lists") from None
    if version != _VERSION:
        raise _wrong(f"has version {version}; this release reads {_VERSION}")
    if hashed != request:
        raise _wrong("belongs to another request")
    if snapshot.epoch != epoch:
        raise EpochChanged("the list cannot go on: the log was recreated or restored", first_available=0)
    distance_m = None if micrometres == _NO_DISTANCE else micrometres / 1e6
    after = After(snapshot.sequence, distance_m, last)
    return Continuation(after, position, None if remaining == _NO_LIMIT else remaining)


def _wrong(description: str) -> InvalidArgument:
    return InvalidArgument.of("continuation", description, "INVALID_CONTINUATION")
