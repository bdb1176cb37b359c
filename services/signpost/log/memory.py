"""The in-memory engine: every guarantee of the interface but durability. For tests.

`memory:` is a store of its own; `memory:NAME` is kept in this process under that name, so that a
test can close a store and open it again.
"""

import asyncio
import os
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncGenerator, Callable, Sequence
from operator import attrgetter, itemgetter

from signpost.errors import LogUnavailable, SignpostError, StaleSequence
from signpost.log import positions
from signpost.log.admission import dedupe_key, fault_of
from signpost.log.base import (
    Append,
    Appended,
    Bounds,
    Log,
    LogSettings,
    LogState,
    Page,
    Record,
    Statistics,
    Store,
    SubjectInfo,
)
from signpost.log.subjects import matcher
from signpost.log.tail import Tail, follow

_NS = 1_000_000_000
_SEQUENCE: Callable[[Record], int] = itemgetter(0)


class _Contents:
    """What would be in the file: it outlives the store that uses it."""

    def __init__(self) -> None:
        self.epoch = os.urandom(8)
        self.records: list[Record] = []
        self.by_subject: dict[str, list[Record]] = {}
        self.remembered: dict[bytes, Appended] = {}
        self.remembered_at: list[tuple[int, bytes]] = []
        self.last = 0
        self.horizon = 0
        self.bytes = 0
        self.time_ns = 0


_kept: dict[str, dict[str, _Contents]] = {}


def discard(url: str) -> None:
    """Forget what `memory:NAME` kept."""
    _kept.pop(url.removeprefix("memory:"), None)


class MemoryLog(Log):
    """A log in a list."""

    def __init__(self, settings: LogSettings, contents: _Contents, clock: Callable[[], int]) -> None:
        self.settings = settings
        self._contents = contents
        self._clock = clock
        self._tail = Tail(settings.tail_bytes, contents.last)
        self._closed = False

    @property
    def epoch(self) -> bytes:
        return self._contents.epoch

    @property
    def head(self) -> int:
        return self._contents.last

    @property
    def state(self) -> LogState:
        return LogState.CLOSED if self._closed else LogState.WRITABLE

    def submit(self, entries: Sequence[Append]) -> "asyncio.Future[list[Appended | SignpostError]]":
        answer: asyncio.Future[list[Appended | SignpostError]] = asyncio.get_running_loop().create_future()
        if self._closed:
            answer.set_result([LogUnavailable("the log is closed")] * len(entries))
            return answer
        c = self._contents
        c.time_ns = max(c.time_ns, self._clock())
        self._forget()
        before = len(c.records)
        answer.set_result([self._store(entry) for entry in entries])
        if len(c.records) > before:
            self._tail.extend(c.records[before:], c.last)
            self._retain()
        return answer

    async def append_many(self, entries: Sequence[Append]) -> list[Appended | SignpostError]:
        return await self.submit(entries)

    async def read(
        self,
        after: int,
        *,
        subjects: str | None = None,
        limit: int = 1000,
        max_bytes: int = 1 << 20,
        allow_gaps: bool = False,
    ) -> Page:
        c = self._now()
        positions.check_bounds(after, self._bounds(), allow_gaps=allow_gaps)
        match = None if subjects is None else matcher(subjects)
        found: list[Record] = []
        size, through = 0, c.last
        for record in c.records[bisect_right(c.records, after, key=_SEQUENCE) :]:
            if match is not None and not match(record.subject):
                continue
            size += len(record.payload)
            if found and (len(found) == limit or size > max_bytes):
                through = found[-1].sequence
                break
            found.append(record)
        return Page(after, through, await self.position(through), found)

    def follow(
        self, after: int, *, subjects: str | None = None, allow_gaps: bool = False
    ) -> AsyncGenerator[Page, None]:
        return follow(self, self._tail, after, subjects=subjects, allow_gaps=allow_gaps)

    async def last(self, subject: str) -> Record | None:
        records = self._now().by_subject.get(subject)
        return records[-1] if records else None

    async def last_of_each(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[Record]:
        by_subject = self._now().by_subject
        return [by_subject[name][-1] for name in self._names(subjects, after_subject, limit)]

    async def subjects(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[SubjectInfo]:
        by_subject = self._now().by_subject
        return [
            SubjectInfo(name, by_subject[name][0].sequence, by_subject[name][-1].sequence, len(by_subject[name]))
            for name in self._names(subjects, after_subject, limit)
        ]

    async def bounds(self) -> Bounds:
        self._now()
        return self._bounds()

    async def before_time(self, time_ns: int) -> int:
        c = self._now()
        at = bisect_left(c.records, time_ns, key=attrgetter("time_ns"))
        return c.last if at == len(c.records) else max(c.records[at].sequence - 1, c.horizon)

    async def position(self, sequence: int) -> bytes:
        return positions.encode(self.epoch, sequence, positions.check_of(self._at(sequence)))

    def position_of(self, record: Record) -> bytes:
        return positions.encode_record(self.epoch, record)

    async def resolve(self, position: bytes) -> int:
        self._now()

        async def record_at(sequence: int) -> Record | None:
            return self._at(sequence)

        return await positions.resolve(position, epoch=self.epoch, bounds=self._bounds(), record_at=record_at)

    async def statistics(self) -> Statistics:
        c = self._now()
        bounds = self._bounds()
        return Statistics(len(c.records), c.bytes, len(c.by_subject), bounds.first, bounds.last)

    async def wait_for(self, sequence: int) -> None:
        await self._tail.wait(sequence - 1, self._tail.generation)

    def close(self) -> None:
        """End the followers."""
        self._closed = True
        self._tail.close()

    def _store(self, entry: Append) -> Appended | SignpostError:
        c = self._contents
        key = dedupe_key(entry.principal, entry.subject, entry.message_id) if entry.message_id else b""
        if key and (stored := c.remembered.get(key)):
            return stored
        if fault := fault_of(entry):
            return fault
        standing = c.by_subject.get(entry.subject)
        if entry.expected_sequence is not None:
            actual = 0 if not standing or standing[-1].tombstone else standing[-1].sequence
            if actual != entry.expected_sequence:
                return StaleSequence(entry.subject, entry.expected_sequence, actual)
        c.last += 1
        record = Record(c.last, entry.subject, entry.message_id, c.time_ns, entry.payload, entry.tombstone)
        c.records.append(record)
        c.by_subject.setdefault(entry.subject, []).append(record)
        c.bytes += len(entry.payload)
        if key:
            c.remembered[key] = Appended(c.last, True)
            c.remembered_at.append((c.time_ns, key))
        return Appended(c.last, False)

    def _at(self, sequence: int) -> Record | None:
        records = self._contents.records
        at = bisect_left(records, sequence, key=_SEQUENCE)
        return records[at] if at < len(records) and records[at].sequence == sequence else None

    def _bounds(self) -> Bounds:
        c = self._contents
        return Bounds(c.records[0].sequence if c.records else c.last + 1, c.last, c.horizon)

    def _names(self, subjects: str | None, after_subject: str, limit: int) -> list[str]:
        match = None if subjects is None else matcher(subjects)
        names = sorted(n for n in self._contents.by_subject if n > after_subject and (match is None or match(n)))
        return names[:limit]

    def _now(self) -> _Contents:
        if self._closed:
            raise LogUnavailable("the log is closed")
        self._retain()
        return self._contents

    def _forget(self) -> None:
        c = self._contents
        oldest = c.time_ns - int(self.settings.dedupe_window_s * _NS)
        expired = bisect_right(c.remembered_at, oldest, key=itemgetter(0))
        for _, key in c.remembered_at[:expired]:
            del c.remembered[key]
        del c.remembered_at[:expired]

    def _retain(self) -> None:
        c, bound = self._contents, self.settings.retention
        drop = 0
        if bound.max_age_s is not None:
            oldest = self._clock() - int(bound.max_age_s * _NS)
            drop = bisect_right(c.records, oldest, key=attrgetter("time_ns"))
        if bound.max_records is not None:
            drop = max(drop, len(c.records) - bound.max_records)
        if bound.max_bytes is not None:
            size = c.bytes
            for over, record in enumerate(c.records):
                if size <= bound.max_bytes:
                    drop = max(drop, over)
                    break
                size -= len(record.payload)
        if drop > 0:
            self._drop(drop)

    def _drop(self, drop: int) -> None:
        c = self._contents
        going: list[Record] = []
        staying: list[Record] = []
        for record in c.records[:drop]:
            is_last = c.by_subject[record.subject][-1] is record
            keep = self.settings.retention.keep_last and is_last and not record.tombstone
            (staying if keep else going).append(record)
        if not going:
            return
        c.horizon = max(c.horizon, going[-1].sequence)
        for record in going:
            of_subject = c.by_subject[record.subject]
            of_subject.remove(record)
            if not of_subject:
                del c.by_subject[record.subject]
            c.bytes -= len(record.payload)
        c.records[:drop] = staying


class MemoryStore(Store):
    """Logs in memory."""

    def __init__(self, logs: Sequence[LogSettings], name: str = "", clock: Callable[[], int] = time.time_ns) -> None:
        kept = _kept.setdefault(name, {}) if name else {}
        self._logs = {s.name: MemoryLog(s, kept.setdefault(s.name, _Contents()), clock) for s in logs}

    def __getitem__(self, name: str) -> MemoryLog:
        return self._logs[name]

    @property
    def state(self) -> LogState:
        return next((log.state for log in self._logs.values()), LogState.WRITABLE)

    async def close(self) -> None:
        for log in self._logs.values():
            log.close()
