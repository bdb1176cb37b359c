"""One log on JetStream."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable, Sequence

from signpost.errors import EpochChanged, LogRefused, LogRewound, LogUnavailable, SignpostError
from signpost.log import positions
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
    SubjectInfo,
)
from signpost.log.group import Group, GroupSettings
from signpost.log.jetstream import lookup, streams
from signpost.log.jetstream.connection import Connection, Link
from signpost.log.jetstream.cursors import Cursors
from signpost.log.jetstream.expecting import Expecting
from signpost.log.jetstream.follower import Follower
from signpost.log.jetstream.group import JetStreamGroup
from signpost.log.jetstream.publisher import Publisher
from signpost.log.jetstream.settings import JetStreamSettings
from signpost.log.jetstream.streams import Streams, StreamState
from signpost.log.jetstream.sweep import Sweeper
from signpost.log.subjects import matcher
from signpost.log.tail import Tail, follow

_log = logging.getLogger(__name__)
_RETRY_S = 0.1
_SETTLING_S = 2.0
_ON_ITS_WAY_S = 0.05
_LATEST_NS = 253_370_764_800_000_000_000  # the year 9999, where RFC 3339 ends
_LISTING_S = 5.0  # how long a listing of subjects serves those who page through it


class JetStreamLog(Log):
    """A stream, its mirror where it keeps the last of each subject, and this process's part in it."""

    def __init__(self, connection: Connection, log: LogSettings, settings: JetStreamSettings, found: Streams) -> None:
        self.settings = log
        self._connection, self._js = connection, settings
        self._names = streams.names_of(log, settings)
        self._made = found
        self._epoch = streams.epoch_of(self._names.stream, found.identity)
        self._tail = Tail(log.tail_bytes, found.stream.last)
        self._mirrored = 0  # how far the mirror is known to reach
        self._closed = False
        self._listing: tuple[str, float, dict[str, int], list[str]] | None = None
        self._cursors = Cursors(self._names, settings.request_timeout_s)
        expecting = Expecting(self._link, self._names, window_s=log.dedupe_window_s if settings.replicas > 1 else 0.0)
        self._publisher = Publisher(
            connection,
            settings,
            self._names,
            window_s=streams.dedupe_window_s(log),
            prepare=expecting.prepare if self._names.mirror else None,
            settle=expecting.settle,
        )
        self._follower = Follower(connection, settings, self._names, self._tail, self._verify)
        self._sweeper = (
            Sweeper(
                connection,
                self._names,
                self._cursors,
                max_age_s=log.retention.max_age_s,
                copied=found.mirror.last,
                meet=self._meet_mirror,
            )
            if found.mirror is not None
            else None
        )

    @property
    def epoch(self) -> bytes:
        return self._epoch

    @property
    def head(self) -> int:
        return max(self._tail.head, self._publisher.acknowledged)

    @property
    def state(self) -> LogState:
        if self._closed:
            return LogState.CLOSED
        if not self._connection.is_linked or not self._follower.following.is_set():
            return LogState.RECONNECTING
        return LogState.FULL if self._publisher.is_full else LogState.WRITABLE

    def submit(self, entries: Sequence[Append]) -> "asyncio.Future[list[Appended | SignpostError]]":
        return self._publisher.submit(entries)

    async def append_many(self, entries: Sequence[Append]) -> list[Appended | SignpostError]:
        return await self._publisher.append_many(entries)

    async def read(
        self,
        after: int,
        *,
        subjects: str | None = None,
        limit: int = 1000,
        max_bytes: int = 1 << 20,
        allow_gaps: bool = False,
    ) -> Page:
        deadline = asyncio.get_running_loop().time() + self._js.request_timeout_s
        generation = self._tail.generation
        while True:
            error = LogUnavailable(f"stream {self._names.stream} moves too fast to be read", retry_after_s=1.0)
            try:
                page = await self._read(after, subjects, limit, max_bytes, allow_gaps)
            except LogUnavailable as unavailable:
                page, error = None, unavailable
            self._tail.check(generation)  # what was read may be of another log
            if page is not None:
                return page
            if self._closed or asyncio.get_running_loop().time() > deadline:
                raise error
            await asyncio.sleep(_RETRY_S)

    async def _read(
        self, after: int, subjects: str | None, limit: int, max_bytes: int, allow_gaps: bool
    ) -> Page | None:
        """One attempt at a page; None where the log moved meanwhile and it is to be tried again."""
        link = self._link()
        state = await self._state(link)
        horizon = state.first - 1
        positions.check_bounds(after, Bounds(state.first, state.last, horizon), allow_gaps=allow_gaps)
        match = None if subjects is None else matcher(subjects)
        records: list[Record] = []
        through = after
        if after < horizon:
            kept = await self._read_mirror(link, after, horizon, subjects, limit=limit, max_bytes=max_bytes)
            if kept is None:
                return None
            records, through = kept
        if through >= horizon and through < state.last and len(records) < limit:
            if not records:
                page = await self._read_tail(through, state.last, match, limit, max_bytes)
                if page is not None:
                    return page._replace(after=after)
            chunk = await self._cursors.fetch(
                link, self._names.stream, subjects, through, limit=limit - len(records), max_bytes=max_bytes
            )
            if (await self._state(link)).first - 1 > through:
                # Retention has overtaken the reader: what it was to get may be gone, or in the mirror.
                return None
            records += chunk.records
            through = records[-1].sequence if chunk.records else through
            if chunk.at_end:
                await self._check_end(link, self._names.stream, subjects, through, state.last)
                through = max(through, state.last)
        if match is not None:
            # A wildcard in the first place is narrower here than on NATS.
            records = [record for record in records if match(record.subject)]
        if records and records[-1].sequence == through:
            return Page(after, through, self.position_of(records[-1]), records)
        return Page(after, through, await self.position(through), records)

    async def _read_tail(
        self, after: int, last: int, match: Callable[[str], bool] | None, limit: int, max_bytes: int
    ) -> Page | None:
        """A page from memory; None where that lacks some of (after, last] which belongs to the page. Those that were
        acknowledged a moment ago are still on their way here, as a rule: they are waited for."""
        generation, patience_s = self._tail.generation, _ON_ITS_WAY_S
        while True:
            page = self._tail.page(after, self._epoch, match=match, limit=limit, max_bytes=max_bytes)
            if page is None or page.through >= last or page.through < self._tail.head:
                return page
            if not patience_s or not self._follower.following.is_set():
                return None
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._tail.wait(last - 1, generation)
            patience_s = 0.0

    async def _read_mirror(
        self, link: Link, after: int, horizon: int, subjects: str | None, *, limit: int, max_bytes: int
    ) -> tuple[list[Record], int] | None:
        """What is kept in (after, horizon], and how far that reaches; None while the mirror lags behind."""
        if not self._names.mirror:
            return [], horizon
        if self._mirrored < horizon:
            mirror = await self._mirror_state(link)
            self._mirrored = mirror.last if mirror is not None else 0
            if self._mirrored < horizon:
                return None
        try:
            chunk = await self._cursors.fetch(
                link, self._names.mirror, subjects, after, limit=limit, max_bytes=max_bytes
            )
        except LogUnavailable:
            self._mirrored = 0  # it may be gone: the next attempt looks
            raise
        if await self._mirror_state(link) is None:
            return None  # it was made anew meanwhile, and may have had less
        if chunk.at_end:
            through = chunk.records[-1].sequence if chunk.records else after
            await self._check_end(link, self._names.mirror, subjects, through, horizon)
        records = [record for record in chunk.records if record.sequence <= horizon]
        if chunk.at_end or len(records) < len(chunk.records):
            return records, horizon
        return records, records[-1].sequence

    async def _check_end(self, link: Link, stream: str, subjects: str | None, after: int, last: int) -> None:
        """Raise LogUnavailable where something that matches stands in (after, last]: a cursor lives on any of the
        replicas, and on one that lags behind it ends too soon. The leader knows."""
        if self._js.replicas == 1 or after >= last:
            return
        record = await lookup.first_after(link, self._names, stream, after, subjects)
        if record is not None and record.sequence <= last:
            raise LogUnavailable(f"a replica of stream {stream} lags behind", retry_after_s=1.0)

    def follow(
        self, after: int, *, subjects: str | None = None, allow_gaps: bool = False
    ) -> AsyncGenerator[Page, None]:
        return follow(_Patient(self), self._tail, after, subjects=subjects, allow_gaps=allow_gaps)

    async def last(self, subject: str) -> Record | None:
        generation, link = self._tail.generation, self._link()
        found = await lookup.last(link, self._names, subject)
        if found is None:
            await self._check_streams(link, generation)
        return found

    async def last_of_each(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[Record]:
        generation = self._tail.generation
        found: list[Record] = []
        while len(found) < limit:
            names = (await self._list(subjects, after_subject))[1][: limit - len(found)]
            if not names:
                break
            found += await lookup.last_of(self._link(), self._names, names)
            after_subject = names[-1]
        await self._check_streams(self._link(), generation)
        return found

    async def subjects(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[SubjectInfo]:
        generation, link = self._tail.generation, self._link()
        counted, names = await self._list(subjects, after_subject)
        names = names[:limit]
        last = {record.subject: record for record in await lookup.last_of(link, self._names, names)}
        found: list[SubjectInfo] = []
        for name in names:
            if name not in last:
                continue
            count, final = counted[name], last[name].sequence
            first = await lookup.first_of(link, self._names, name) if count > 1 else None
            found.append(SubjectInfo(name, first.sequence if first else final, final, count))
        await self._check_streams(link, generation)
        return found

    async def _list(self, pattern: str | None, after_subject: str) -> tuple[dict[str, int], list[str]]:
        """Counts by subject, and the matching subjects after one, in order."""
        now = asyncio.get_running_loop().time()
        pattern = pattern or ""
        kept = self._listing
        if not after_subject or kept is None or kept[0] != pattern or kept[1] < now:
            link = self._link()
            counted = await lookup.counts(link, self._names, self._names.stream, pattern or ">")
            if self._names.mirror:
                counted = await lookup.counts(link, self._names, self._names.mirror, pattern or ">") | counted
            match = matcher(pattern) if pattern else None
            ordered = sorted(name for name in counted if match is None or match(name))
            self._listing = kept = (pattern, now + _LISTING_S, counted, ordered)
        return kept[2], [name for name in kept[3] if name > after_subject]

    async def bounds(self) -> Bounds:
        link = self._link()
        state = await self._state(link)
        first = state.first
        if self._names.mirror:
            mirror = await self._mirror_state(link)
            if mirror is not None and mirror.messages:
                first = min(first, mirror.first)
        return Bounds(first, state.last, state.first - 1)

    async def before_time(self, time_ns: int) -> int:
        link = self._link()
        state = await self._state(link)
        if time_ns >= _LATEST_NS:
            return state.last
        found = await lookup.before_time(link, self._names.stream, max(time_ns, 0))
        if self._js.replicas > 1:
            record = await lookup.first_after(link, self._names, self._names.stream, found)
            if record is not None and record.time_ns < time_ns:
                raise LogUnavailable(f"a replica of stream {self._names.stream} lags behind", retry_after_s=1.0)
        return max(found, state.first - 1)

    async def position(self, sequence: int) -> bytes:
        return positions.encode(self._epoch, sequence, positions.check_of(await self._record_at(sequence)))

    def position_of(self, record: Record) -> bytes:
        return positions.encode_record(self._epoch, record)

    async def resolve(self, position: bytes) -> int:
        state = await self._state(self._link())
        bounds = Bounds(state.first, state.last, state.first - 1)
        return await positions.resolve(position, epoch=self._epoch, bounds=bounds, record_at=self._record_at)

    async def statistics(self) -> Statistics:
        link = self._link()
        state = await self._state(link)
        mirror = await self._mirror_state(link) if self._names.mirror else None
        if mirror is None:
            return Statistics(state.messages, state.bytes, state.subjects, state.first, state.last)
        # Every subject of the stream is in the mirror too: the rest of the mirror is what has aged out.
        only_there = max(mirror.messages - state.subjects, 0)
        share = mirror.bytes * only_there // max(mirror.messages, 1)
        first = min(state.first, mirror.first) if mirror.messages else state.first
        return Statistics(
            state.messages + only_there, state.bytes + share, state.subjects + only_there, first, state.last
        )

    async def wait_for(self, sequence: int) -> None:
        if self.head < sequence:
            await self._tail.wait(sequence - 1, self._tail.generation)

    async def wait_until_followed(self, timeout_s: float) -> None:
        """Return once the tail is fed; LogRefused where it is not in time."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._follower.following.wait()
        except TimeoutError:
            raise LogRefused(f"stream {self._names.stream} cannot be followed within {timeout_s} s") from None

    async def open_group(self, settings: GroupSettings, state: Log) -> Group:
        return await JetStreamGroup(self._connection, self._names, settings).open()

    async def close(self) -> None:
        """Answer what waits, end the followers, stop."""
        if self._closed:
            return
        self._closed = True
        await self._publisher.close()
        await self._follower.close()
        if self._sweeper is not None:
            await self._sweeper.close()
        self._cursors.close()
        self._tail.close()

    def _link(self) -> Link:
        if self._closed:
            raise LogUnavailable("the log is closed")
        return self._connection.link()

    async def _state(self, link: Link) -> StreamState:
        """The stream's state. Another stream than the one that was followed is none: the follower tells everybody."""
        seen = self._tail.head  # more may be seen while the answer is on its way
        state = await streams.state(link, self._names.stream)
        if state is None:
            self._follower.doubt()
            raise LogUnavailable(f"stream {self._names.stream} is not there", retry_after_s=1.0)
        if state.created != self._made.stream.created:
            self._follower.doubt()
            raise LogUnavailable(f"stream {self._names.stream} is another one now", retry_after_s=1.0)
        if state.last < seen:
            # Rewound, or a cluster's new leader that is not there yet: the follower finds out which.
            self._follower.doubt()
            raise LogUnavailable(f"stream {self._names.stream} ends before what was read", retry_after_s=1.0)
        return state

    async def _check_streams(self, link: Link, generation: int) -> None:
        """After what was answered: raise where it may be of other streams than this log's, which may have had less."""
        await self._state(link)
        if self._names.mirror and await self._mirror_state(link) is None:
            raise LogUnavailable(f"stream {self._names.mirror} is another one now", retry_after_s=1.0)
        self._tail.check(generation)

    async def _mirror_state(self, link: Link) -> StreamState | None:
        """The mirror's state; None where it is gone, or another one."""
        mirror = await streams.state(link, self._names.mirror)
        return mirror if self._meet_mirror(mirror) else None

    def _meet_mirror(self, found: StreamState | None) -> bool:
        """Whether it is this log's; where it is not, the follower makes one, or tells everybody."""
        ours = self._made.mirror
        if ours is not None and found is not None and found.created == ours.created:
            return True
        self._follower.doubt()
        return False

    async def _record_at(self, sequence: int) -> Record | None:
        if sequence == 0:
            return None
        page = self._tail.page(sequence - 1, self._epoch, limit=1)
        if page is not None and page.records and page.records[0].sequence == sequence:
            return page.records[0]
        return await lookup.record_at(self._link(), self._names, sequence)

    async def _verify(self, link: Link) -> None:
        """Before following begins: are these the streams that the tail is of, and where does it end in them?"""
        seen = self.head  # what was acknowledged too: its record may be another one by now
        found = await self._settled(link, seen)
        state = found.stream
        if found.identity != self._made.identity:
            is_stream = state.created != self._made.stream.created
            name = self._names.stream if is_stream else self._names.mirror
            self._made = found
            self._epoch = streams.epoch_of(self._names.stream, found.identity)
            self._start_over(found, EpochChanged(f"stream {name} was made anew", first_available=state.first))
        elif state.last < seen or await self._was_rewound(link, state):
            text = f"stream {self._names.stream} ends at {state.last}, or differs from what was read"
            self._start_over(found, LogRewound(text, first_available=state.first))
        elif state.first > self._tail.head + 1:
            self._tail.skip(state.first - 1)

    async def _settled(self, link: Link, seen: int) -> Streams:
        """The streams, once a new leader has had time to catch up; made anew where there is none."""
        deadline = asyncio.get_running_loop().time() + _SETTLING_S
        while True:
            known = self._made.mirror.created if self._made.mirror is not None else ""
            found = await streams.ensure_log(link, self.settings, self._js, compare=False, known=known)
            behind = found.identity == self._made.identity and found.stream.last < seen
            if not behind or asyncio.get_running_loop().time() > deadline:
                return found
            await asyncio.sleep(_RETRY_S)

    async def _was_rewound(self, link: Link, state: StreamState) -> bool:
        """Whether another record stands where the tail ends."""
        head = self._tail.head
        page = self._tail.page(head - 1, self._epoch, limit=1) if head else None
        if page is None or not page.records or head < state.first:
            return False
        there = await lookup.record_at(link, self._names, head)
        return there is not None and positions.check_of(there) != positions.check_of(page.records[0])

    def _start_over(self, found: Streams, error: EpochChanged | LogRewound) -> None:
        _log.warning("%s: %s", self.name, error)
        self._publisher.acknowledged = self._mirrored = 0
        self._listing = None
        self._cursors.close()
        if self._sweeper is not None and found.mirror is not None:
            self._sweeper.start_over(found.mirror.last)
        self._tail.reset(found.stream.last, error)


class _Patient:
    """The log as `follow` reads it: while NATS is away it waits."""

    def __init__(self, log: JetStreamLog) -> None:
        self._log = log

    @property
    def epoch(self) -> bytes:
        return self._log.epoch

    async def read(self, after: int, *, subjects: str | None = None, allow_gaps: bool = False) -> Page:
        while True:
            try:
                return await self._log.read(after, subjects=subjects, allow_gaps=allow_gaps)
            except LogUnavailable:
                if self._log.state is LogState.CLOSED:
                    raise
                await asyncio.sleep(_RETRY_S)
