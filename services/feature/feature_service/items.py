"""Items: an encoded feature with its length in front.

So stored, the features of a batch are joined with the tag of the field that they go into, whichever
message that is, and their bytes go out as they came in.
"""

from signpost.wire import varint

from protos.feature.v1.feature_pb2 import Feature


def to_item(feature: bytes) -> bytes:
    """An encoded feature as an item."""
    return varint(len(feature)) + feature


def to_feature_bytes(item: bytes) -> bytes:
    """The encoded feature of an item."""
    start = 1
    while item[start - 1] & 0x80:
        start += 1
    return item[start:]


def to_feature(item: bytes) -> Feature:
    """The feature of an item."""
    return Feature.FromString(to_feature_bytes(item))
