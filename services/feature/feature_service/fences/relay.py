"""The relay: from the features log through the fences to the notification service.

One replica at a time leads. It follows the features log from the kept cursor, publishes what the
fences make of each page, and only when all of that is acknowledged keeps the memberships and the new
cursor. So an outage of the notification service costs delay and nothing else, up to the features
log's history; a crash publishes again under the same message ids. Where the cursor cannot be
continued, every fence's set is compared with what is inside now, and the difference is told.
"""

import asyncio
import functools
import heapq
import itertools
import logging
import time
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from typing import ParamSpec, Protocol, TypeVar

import numpy as np
from signpost.errors import InvalidArgument, PermissionDenied, PositionError, SignpostError, TooLarge
from signpost.log.base import Append, Log, Page, Record

from feature_service.fences import metrics
from feature_service.fences.book import FenceBook
from feature_service.fences.changes import changes_of, dwell_append, stay_of
from feature_service.fences.engine import FenceEngine, Outcome
from feature_service.fences.model import Change, Event, Fence, Gone, Key, Member
from feature_service.fences.requests import in_force
from feature_service.fences.stored import (
    CURSOR,
    FENCES,
    MEMBERS,
    STARTS,
    StoredFence,
    cursor_append,
    cursor_of,
    member_append,
    member_of,
    removal_append,
    start_append,
    start_of,
    stored_fence,
)
from feature_service.index import Snapshot
from feature_service.items import to_feature_bytes
from feature_service.projection import Projection
from feature_service.search import After, Question, search
from protos.feature.v1.feature_pb2 import Fence as FenceMessage

P = ParamSpec("P")
T = TypeVar("T")
_LOG = logging.getLogger(__name__)
TIMER_S = 0.2
CURSOR_INTERVAL_S = 1.0
"""How often the cursor is kept while nothing happens at a fence."""
PUBLISHES_IN_FLIGHT = 500
APPENDS = 1000
SLICE = 200


class Publisher(Protocol):
    """Publishes an event; returns once it is durable. Waits while the service is away."""

    async def __call__(self, event: Event) -> None:
        """Raises InvalidArgument, PermissionDenied or TooLarge for what is refused for good."""


class Relay:
    """One leadership: made anew each time that the lease is won."""

    def __init__(
        self,
        projection: Projection,
        state: Log,
        publish: Publisher,
        executor: Executor,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._projection, self._features, self._state = projection, projection.log, state
        self._publish, self._executor, self._clock_ns = publish, executor, clock_ns
        self._book = FenceBook(projection.log, state)
        self._engine = FenceEngine()
        self._revisions: dict[str, int] = {}  # by uid, of the fences that have begun
        self._ahead: deque[tuple[int, StoredFence]] = deque()  # put or removed after the place of the fences
        self._expiries: list[tuple[int, str]] = []  # (when, uid); may be outdated
        self._cursor_sequence = 0  # of its record in the state log
        self._through = 0
        self._position = b""
        self._kept_at = 0.0
        self._kept_through = -1
        self._queue: asyncio.Queue[Page | None] = asyncio.Queue(4)
        self._fences: asyncio.Queue[Record] = asyncio.Queue(APPENDS)  # overtake pages, which know their place

    async def lead(self) -> None:
        """Relay until cancelled. Raises what the log raises, and StaleSequence where another relay leads."""
        head = (await self._state.bounds()).last
        await self._restore()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_fences(head))
            tasks.create_task(self._follow_features())
            tasks.create_task(self._tick())
            await self._work()

    async def _restore(self) -> None:
        """Take up what is kept: fences, where they began, who is inside, and the cursor."""
        await self._ready()
        fences = {f.message.uid: f async for r in self._all(FENCES) for f in [stored_fence(r)]}
        starts = [start_of(r) async for r in self._all(STARTS) if not r.tombstone]
        # First, so that what leaves a fence is told before what enters the one that took its id.
        fences = await self._removals({start.uid for start in starts} - fences.keys()) | fences
        forgotten = []
        for start in starts:
            stored = fences.get(start.uid)
            if stored is None:
                # Removed so long ago that nobody knows how: there is no one to tell.
                forgotten.append(start.uid)
                continue
            # One that was put again while nobody led keeps its members until the new revision begins.
            fence = in_force(stored.message, start.sequence)
            self._engine.put(fence)
            self._expect(fence)
            self._revisions[start.uid] = start.revision
        orphans: dict[tuple[str, Key], Member | Gone] = {}  # of fences that had not begun yet, or are gone
        async for record in self._all(MEMBERS):
            uid, key, member = member_of(record)
            if uid in self._engine.fences:
                if isinstance(member, Gone):
                    self._engine.restore_left(uid, key, member)
                else:
                    self._engine.restore(uid, member)
            elif not record.tombstone:
                orphans[uid, key] = Gone(0)
        await self._keep(Outcome(members=orphans), [removal_append(uid) for uid in forgotten])
        await self._restore_cursor()
        for stored in fences.values():
            await self._take_fence(stored)

    async def _removals(self, uids: set[str]) -> dict[str, StoredFence]:
        """The removals of fences whose id another fence has taken since, as far back as the state log goes."""
        found: dict[str, StoredFence] = {}
        after, head = 0, (await self._state.bounds()).last if uids else 0
        while after < head and len(found) < len(uids):
            page = await self._state.read(after, subjects=FENCES, allow_gaps=True)
            removals = (stored_fence(record) for record in page.records if record.tombstone)
            found |= {r.message.uid: r for r in removals if r.message.uid in uids}
            after = page.through
        return found

    async def _restore_cursor(self) -> None:
        record = await self._state.last(CURSOR)
        self._through, self._position = self._projection.applied, self._projection.position
        if record is None:
            return
        self._cursor_sequence = record.sequence
        if not self._engine.fences:
            return
        position = cursor_of(record)
        try:
            self._through = await self._features.resolve(position)
            self._position = position
        except PositionError as error:
            await self._resync(error)

    async def _resync(self, error: PositionError) -> None:
        """The place is lost: tell what differs from the sets as they were, and go on from now."""
        _LOG.warning("the fences' place is lost: comparing their sets", extra={"fields": {"why": str(error)}})
        metrics.RESYNCS.inc()
        await self._ready()
        self._through, self._position = self._projection.applied, self._projection.position
        for fence in list(self._engine.fences.values()):
            await self._begin(fence.message, None, notify=True, anew=True)
        await self._keep_cursor()

    async def _ready(self) -> None:
        while not self._projection.ready:  # noqa: ASYNC110 - readiness is a state to ask for, lost again by a reset
            await asyncio.sleep(TIMER_S)

    async def _all(self, subjects: str) -> AsyncIterator[Record]:
        after = ""
        while records := await self._state.last_of_each(subjects, after_subject=after, limit=APPENDS):
            for record in records:
                yield record
            after = records[-1].subject

    async def _follow_fences(self, after: int) -> None:
        async for page in self._state.follow(after, subjects=FENCES, allow_gaps=True):
            for record in page.records:
                await self._fences.put(record)
            if self._queue.empty():
                self._queue.put_nowait(None)

    async def _follow_features(self) -> None:
        async for page in self._features.follow(self._through):
            if page.through > page.after:
                await self._queue.put(page)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TIMER_S)
            await self._queue.put(None)

    async def _work(self) -> None:
        while True:
            item = await self._queue.get()
            while not self._fences.empty():
                await self._take_fence(stored_fence(self._fences.get_nowait()))
            if item is not None:
                await self._take_page(item)
            else:
                await self._take_time()

    async def _take_page(self, page: Page) -> None:
        records = page.records
        while self._ahead and self._ahead[0][0] < page.through:
            sequence, stored = self._ahead.popleft()
            before = bisect_right(records, sequence, key=lambda record: record.sequence)
            if before:
                last = records[before - 1]
                await self._take_records(records[:before], last.sequence, self._features.position_of(last))
                records = records[before:]
            await self._take_up(stored)
        await self._take_records(records, page.through, page.position)
        while self._ahead and self._ahead[0][0] <= self._through:
            await self._take_up(self._ahead.popleft()[1])
        behind = self._features.head - page.through
        metrics.LAG_RECORDS.set(behind)
        late = (self._clock_ns() - page.records[-1].time_ns) / 1e9 if behind and page.records else 0.0
        metrics.LAG_SECONDS.set(max(0.0, late))

    async def _take_records(self, records: Sequence[Record], through: int, position: bytes) -> None:
        moved = False
        for begin in range(0, len(records) if self._engine.fences else 0, SLICE):
            changes = changes_of(records[begin : begin + SLICE])
            outcome = await self._aside(self._engine.apply, changes)
            moved = moved or bool(outcome.members)
            await self._tell(outcome.events)
            await self._keep(outcome)
        self._through, self._position = through, position
        if moved:
            await self._keep_cursor()

    async def _take_time(self) -> None:
        now_ns = self._clock_ns()
        for fence, member in list(self._engine.due_dwells(now_ns)):
            append = dwell_append(fence, member)
            last = await self._features.last(append.subject)
            # A leader before this one may have recorded it.
            if last is None or stay_of(last) != member.entered_sequence:
                await self._features.append(append)
        while self._expiries and self._expiries[0][0] <= now_ns:
            expired_ns, uid = heapq.heappop(self._expiries)
            expiring = self._engine.fences.get(uid)
            if expiring is not None and expiring.expire_time_ns == expired_ns:
                message = expiring.message
                await self._book.delete(message.id, notify_left=message.notify_left_on_expiry, uid=uid)
        if self._engine.fences and time.monotonic() - self._kept_at > CURSOR_INTERVAL_S:
            await self._keep_cursor()

    async def _take_fence(self, stored: StoredFence) -> None:
        """A fence was put, put again, or removed: what changed before that, and waits, is judged by what it was."""
        sequence = stored.features_sequence or 0
        standing = stored.message.uid in self._engine.fences
        if self._ahead or (standing and self._through < sequence <= self._features.head):
            self._ahead.append((sequence, stored))
        else:
            await self._take_up(stored)

    async def _take_up(self, stored: StoredFence) -> None:
        """What is known already is passed over."""
        message = stored.message
        if stored.removed:
            if message.uid in self._engine.fences:
                outcome = await self._aside(self._engine.remove, message.uid, notify=stored.notify_left)
                self._revisions.pop(message.uid, None)
                await self._tell(outcome.events)
                await self._keep(outcome, [removal_append(message.uid)])
        elif message.revision > self._revisions.get(message.uid, 0):
            await self._begin(message, stored.features_sequence, notify=message.notify_present)
        metrics.FENCES.set(len(self._engine.fences))

    async def _begin(
        self, message: FenceMessage, features_sequence: int | None, *, notify: bool, anew: bool = False
    ) -> None:
        """Put a fence in force as it was put, with what was inside then; `anew`: its members are of another place."""
        standing = message.uid in self._engine.fences
        # A new revision takes over the set that its fence has; a new fence begins at its own place in the log.
        start = self._through if standing or features_sequence is None else features_sequence
        try:
            fence = in_force(message, start)
        except InvalidArgument as error:
            _LOG.error("a stored fence cannot be used", extra={"fields": {"fence": message.id, "why": str(error)}})
            return
        inside = await self._inside(fence, standing=standing and not anew)
        if start < self._through:
            outcome = await self._catch_up(fence, inside, notify=notify)
        else:
            outcome = await self._aside(self._engine.begin, fence, inside, notify=notify)
        self._expect(fence)
        self._revisions[fence.uid] = message.revision
        await self._tell(outcome.events)
        # The start counts only together with a cursor that is not beyond it.
        await self._keep_cursor()
        await self._keep(outcome, [start_append(fence.uid, message.revision, start)])

    async def _inside(self, fence: Fence, *, standing: bool) -> list[Change]:
        """What was inside at the fence's start.

        Of a standing fence the members are known as they were then; the index may have let go of that.
        """
        await self._projection.wait_for(fence.start)
        snapshot = self._projection.snapshot(fence.collection)
        if snapshot is None:
            return []
        found = await self._aside(_inside_at_start, snapshot, fence)
        return await self._aside(_as_known, self._engine, fence, found) if standing else found

    async def _catch_up(self, fence: Fence, inside: Sequence[Change], *, notify: bool) -> Outcome:
        """Begin a fence whose place the others have passed: alone, from there to here."""
        alone = FenceEngine()
        outcome = await self._aside(alone.begin, fence, inside, notify=notify)
        after = fence.start
        while after < self._through:
            page = await self._features.read(after, allow_gaps=True)
            changes = changes_of([r for r in page.records if r.sequence <= self._through])
            part = await self._aside(alone.apply, changes)
            outcome.events.extend(part.events)
            outcome.members.update(part.members)
            after = page.through
        self._engine.put(fence)
        for member in alone.members(fence.uid):
            self._engine.restore(fence.uid, member)
        return outcome

    async def _tell(self, events: Sequence[Event]) -> None:
        """Publish, in order; returns once everything is acknowledged."""
        for begin in range(0, len(events), PUBLISHES_IN_FLIGHT):
            async with asyncio.TaskGroup() as tasks:
                for event in events[begin : begin + PUBLISHES_IN_FLIGHT]:
                    tasks.create_task(self._tell_one(event))

    async def _tell_one(self, event: Event) -> None:
        try:
            await self._publish(event)
        except (InvalidArgument, PermissionDenied, TooLarge) as error:
            metrics.REFUSED.inc()
            fields = {"fence": event.fence.message.id, "feature": event.key.id, "why": str(error)}
            _LOG.error("a fence's event was refused", extra={"fields": fields})
        else:
            metrics.EVENTS.labels(event.kind_name).inc()

    async def _aside(self, what: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """In a thread: with many fences, or much inside one, it takes longer than the loop may stand still."""
        return await asyncio.get_running_loop().run_in_executor(
            self._executor, functools.partial(what, *args, **kwargs)
        )

    def _expect(self, fence: Fence) -> None:
        if fence.expire_time_ns:
            heapq.heappush(self._expiries, (fence.expire_time_ns, fence.uid))

    async def _keep(self, outcome: Outcome, more: Sequence[Append] = ()) -> None:
        members = (member_append(uid, key, member) for (uid, key), member in outcome.members.items())
        appends = itertools.chain(members, more)
        while some := list(itertools.islice(appends, APPENDS)):
            for answer in await self._state.append_many(some):
                if isinstance(answer, SignpostError):
                    raise answer

    async def _keep_cursor(self) -> None:
        self._kept_at = time.monotonic()
        if self._through == self._kept_through:
            return
        append = cursor_append(self._position, self._through, expected_sequence=self._cursor_sequence)
        self._cursor_sequence = (await self._state.append(append)).sequence
        self._kept_through = self._through


def _inside_at_start(snapshot: Snapshot, fence: Fence) -> list[Change]:
    """What still stands, by the trees, and what has died since the start, which the trees leave out."""
    stands = search(snapshot, Question(None, fence.area, fence.filters, after=After(fence.start, None, ""))).slots
    columns = snapshot.columns
    born, died = columns.born[: snapshot.end], columns.died[: snapshot.end]
    gone = np.flatnonzero((born <= fence.start) & (died > fence.start) & (died <= snapshot.sequence))
    gone = gone[fence.area.contains(columns.latitudes[gone], columns.longitudes[gone])]
    if fence.filters:
        gone = gone[snapshot.properties.accept(fence.filters, columns, gone)]
    return [
        Change(
            Key(fence.collection, columns.ids[slot]),
            int(columns.born[slot]),
            int(columns.times[slot]),
            to_feature_bytes(columns.items[slot]),
        )
        for slot in np.concatenate([stands, gone]).tolist()
    ]


def _as_known(engine: FenceEngine, fence: Fence, found: list[Change]) -> list[Change]:
    """What is found inside a new revision of a fence, but its members as the fence knows them."""
    members = {member.key for member in engine.members(fence.uid)}
    return [change for change in found if change.key not in members] + engine.held_by(fence)
