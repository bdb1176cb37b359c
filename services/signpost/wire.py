"""Protobuf's integers as bytes, for messages that are put together by hand where a library would be too slow."""

_SMALL = [bytes((n,)) if n < 0x80 else bytes((n & 0x7F | 0x80, n >> 7)) for n in range(1024)]


def varint(value: int) -> bytes:
    """The base-128 varint of a value >= 0, as short as it can be."""
    if value < 1024:
        return _SMALL[value]
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
