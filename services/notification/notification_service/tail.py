"""The newest records in memory, encoded: who is a little behind is served from here, without I/O.

Bounded in bytes for the whole process. Records stand in blocks as they came from the log, because a
block's end is a place whose position is known.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import NamedTuple

from notification_service.codec import Encoded

BLOCK_BYTES = 256 * 1024
RECORD_OVERHEAD_BYTES = 120
BLOCK_OVERHEAD_BYTES = 300
MAX_SCANNED = 8192


class Block:
    """All records of (after, through], oldest first; `position` is the token of `through`."""

    __slots__ = ("after", "bytes", "position", "records", "through")

    def __init__(self, after: int, through: int, position: bytes, records: Sequence[Encoded], size: int) -> None:
        self.after = after
        self.through = through
        self.position = position
        self.records = records
        self.bytes = size + BLOCK_OVERHEAD_BYTES + len(records) * RECORD_OVERHEAD_BYTES


class Slice(NamedTuple):
    """What matches in (after, through]: the encoded records, and `through` as a position."""

    parts: list[bytes]
    through: int
    position: bytes


_THROUGH: Callable[[Block], int] = attrgetter("through")
_GONE = Block(0, 0, b"", (), 0)
"""Stands where a block was until the places are cut off: what has gone takes no memory meanwhile."""


class Tail:
    """Blocks of (floor, head], contiguous, at most `max_bytes` (but for the last one)."""

    def __init__(self, max_bytes: int, head: int) -> None:
        self.floor = head
        self._max_bytes = max_bytes
        self._blocks: list[Block] = []
        self._start = 0
        self._bytes = 0

    def extend(self, block: Block) -> None:
        """Add what follows; the oldest go where there is no room."""
        blocks = self._blocks
        blocks.append(block)
        self._bytes += block.bytes
        start = self._start
        while self._bytes > self._max_bytes and start < len(blocks) - 1:
            self._bytes -= blocks[start].bytes
            self.floor = blocks[start].through
            blocks[start] = _GONE
            start += 1
        if start > 256 and start * 2 > len(blocks):
            del blocks[:start]
            start = 0
        self._start = start

    def reset(self, head: int) -> None:
        """Empty it; it goes on after `head`."""
        self.floor = head
        self._blocks, self._start, self._bytes = [], 0, 0

    def collect(self, after: int, match: Callable[[str], bool], max_bytes: int, now_ns: int) -> Slice:
        """What matches after a place at or above the floor and below the head: about `max_bytes`, whole blocks."""
        blocks = self._blocks
        parts: list[bytes] = []
        size = scanned = 0
        at = bisect_right(blocks, after, self._start, key=_THROUGH)
        while True:
            block = blocks[at]
            for sequence, topic, data, expires in block.records:
                if sequence > after and match(topic) and (not expires or expires > now_ns):
                    parts.append(data)
                    size += len(data)
            scanned += len(block.records)
            at += 1
            if size >= max_bytes or scanned >= MAX_SCANNED or at == len(blocks):
                return Slice(parts, block.through, block.position)
