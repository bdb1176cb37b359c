"""The newest records of a log in memory, and `follow` on top of them: every engine's.

An engine owns one `Tail` for each log. It calls `extend` on the event loop for what was stored, in
order, and `reset` when the log under it was replaced. Followers pull from it, so one that does not
ask costs nothing but its place, and one that is too far behind for the ring reads the log instead.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from operator import itemgetter
from typing import Protocol

from signpost.errors import LogUnavailable, SignpostError
from signpost.log.base import Page, Record
from signpost.log.positions import check_of, encode
from signpost.log.subjects import matcher

RECORD_OVERHEAD_BYTES = 250  # what a Record costs in memory beside its payload
PAGE_RECORDS = 1000
PAGE_BYTES = 1 << 20
_SEQUENCE: Callable[[Record], int] = itemgetter(0)
_DROPPED = Record(0, "", "", 0, b"")


class Tail:
    """Records of (floor, head], all of them, bounded in bytes; wakes those that wait for more.

    For one event loop. `generation` rises with each `reset`, so that a follower of the log as it was
    is told instead of being handed records of another one.
    """

    def __init__(self, max_bytes: int, head: int) -> None:
        self.floor = head
        self.head = head
        self.generation = 0
        self._max_bytes = max_bytes
        self._bytes = 0
        self._records: list[Record] = []
        self._start = 0  # records before it are dropped; their places are cut off now and then
        self._changed = asyncio.Event()
        self._end: SignpostError | None = None
        self._closed = False

    def extend(self, records: Sequence[Record], through: int) -> None:
        """Add what stands in (head, through]: `records` is all of it, in order."""
        self._records += records
        self._bytes += RECORD_OVERHEAD_BYTES * len(records) + sum([len(record[4]) for record in records])
        self.head = through
        start, kept = self._start, self._records
        while self._bytes > self._max_bytes and start < len(kept):
            self.floor = kept[start].sequence
            self._bytes -= len(kept[start].payload) + RECORD_OVERHEAD_BYTES
            kept[start] = _DROPPED
            start += 1
        if start > 1024 and start * 2 > len(kept):
            del kept[:start]
            start = 0
        self._start = start
        self._wake()

    def reset(self, head: int, error: SignpostError) -> None:
        """The log was replaced or rewound: empty the ring, go on at `head`, end every follower with `error`."""
        self.generation += 1
        self._end = error
        self.floor = self.head = head
        self._records, self._start, self._bytes = [], 0, 0
        self._wake()

    def skip(self, head: int) -> None:
        """Go on at `head` with an empty ring: what stands before was not seen here, but may be in the log."""
        self.floor = self.head = head
        self._records, self._start, self._bytes = [], 0, 0
        self._wake()

    def close(self) -> None:
        """End every follower, also who comes later: the log is closed."""
        self._closed = True
        self.reset(self.head, LogUnavailable("the log is closed", retry_after_s=1.0))

    def check(self, generation: int) -> None:
        """Raise what ended the followers of a generation that is over; every one is, once closed."""
        if self._end is not None and (self._closed or generation != self.generation):
            raise self._end

    async def wait(self, after: int, generation: int) -> None:
        """Return once the head is beyond `after`; raises what ends the generation."""
        while self.head <= after:
            self.check(generation)
            await self._changed.wait()
        self.check(generation)

    def page(
        self,
        after: int,
        epoch: bytes,
        *,
        match: Callable[[str], bool] | None = None,
        limit: int = PAGE_RECORDS,
        max_bytes: int = PAGE_BYTES,
    ) -> Page | None:
        """The next page from memory, as `Log.read` gives it; None where the ring does not reach back to `after`."""
        if after < self.floor:
            return None
        if after >= self.head:
            return Page(after, after, b"", ())
        kept = self._records
        at = bisect_right(kept, after, self._start, key=_SEQUENCE)
        end = min(at + limit, len(kept))
        size = 0
        for index in range(at, end):
            size += len(kept[index].payload)
            if size > max_bytes and index > at:
                end = index
                break
        records = kept[at:end]
        through = self.head if end == len(kept) else kept[end - 1].sequence
        stands = bool(records) and records[-1].sequence == through
        position = encode(epoch, through, check_of(records[-1]) if stands else 0)
        if match is not None:
            records = [record for record in records if match(record.subject)]
        return Page(after, through, position, records)

    def _wake(self) -> None:
        self._changed.set()
        self._changed.clear()


class Source(Protocol):
    """What `follow` needs of a log."""

    @property
    def epoch(self) -> bytes:
        """The log's epoch."""

    def read(self, after: int, *, subjects: str | None = None, allow_gaps: bool = False) -> Awaitable[Page]:
        """`Log.read`."""


async def follow(
    log: Source, tail: Tail, after: int, *, subjects: str | None = None, allow_gaps: bool = False
) -> AsyncGenerator[Page, None]:
    """`Log.follow`: replay by `read`, then the tail, with no gap and no repeat at the seam.

    A caller that starts at the head gets one empty page at once. An empty page in the middle only
    moves `through`.
    """
    generation = tail.generation
    match = None if subjects is None else matcher(subjects)
    first = True
    while True:
        tail.check(generation)
        page = tail.page(after, log.epoch, match=match)
        if page is None or (first and page.through == after):
            # The engine, not the ring, knows whether a first position is one: beyond the head, below the horizon.
            page = await log.read(after, subjects=subjects, allow_gaps=allow_gaps)
            tail.check(generation)
        if first or page.through > after:
            first = False
            after = page.through
            yield page
        else:
            await tail.wait(after, generation)
