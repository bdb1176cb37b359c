"""The relay: from the features log through the fences to the notification service.

One replica at a time leads. It follows the features log from the kept cursor, publishes what the
fences make of each page, and only when all of that is acknowledged keeps the memberships and the new
cursor. So an outage of the notification service costs delay and nothing else, up to the features
log's history; a crash publishes again under the same message ids. Where the cursor cannot be
continued, every fence's set is compared with what is inside now, and the difference is told.
"""

import asyncio
import heapq
import itertools
import logging
import time
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from contextlib import suppress
from operator import attrgetter
from typing import NamedTuple, Protocol, TypeVar

from signpost.errors import InvalidArgument, PermissionDenied, PositionError, SignpostError, TooLarge
from signpost.log.base import Append, Log, Page

from feature_service.fences import metrics
from feature_service.fences.beginning import SLICE, Beginnings, all_in_force, apply
from feature_service.fences.book import FenceBook
from feature_service.fences.changes import dwell_append, stay_of
from feature_service.fences.engine import FenceEngine, Outcome
from feature_service.fences.kept import kept_fences, last_of_all
from feature_service.fences.model import Event, Gone, Key, Member
from feature_service.fences.stored import (
    CURSOR,
    FENCES,
    MEMBERS,
    StoredFence,
    cursor_append,
    cursor_of,
    member_append,
    member_of,
    removal_append,
    start_append,
    stored_fence,
)
from feature_service.projection import Projection
from protos.feature.v1.feature_pb2 import Fence as FenceMessage

_LOG = logging.getLogger(__name__)
_SEQUENCE = attrgetter("sequence")
TIMER_S = 0.2
CURSOR_INTERVAL_S = 1.0
"""How often the cursor is kept while nothing happens at a fence."""
PUBLISHES_IN_FLIGHT = 500
APPENDS = 1000
FENCES_AT_ONCE = 200
"""Fences that are begun or removed together."""
T = TypeVar("T")


class Publisher(Protocol):
    """Publishes an event; returns once it is durable. Waits while the service is away."""

    async def __call__(self, event: Event) -> None:
        """Raises InvalidArgument, PermissionDenied or TooLarge for what is refused for good."""


class _Put(NamedTuple):
    """A fence that was put. `place`: the features log's head then; `notify`: whether what is inside has entered."""

    message: FenceMessage
    place: int | None
    notify: bool


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
        self._expiries: list[tuple[int, int, FenceMessage]] = []  # (when, in order, fence); may be outdated
        self._expected = itertools.count()
        self._cursor_sequence = 0  # of its record in the state log
        self._through = 0  # together with the position
        self._applied = 0  # within the page that follows it
        self._position = b""
        self._kept_at = 0.0
        self._kept_through = -1
        self._came: deque[StoredFence] = deque()  # what was done to fences, in order, and not taken yet
        self._beginnings = Beginnings(projection, self._in_thread)
        self._queue: asyncio.Queue[Page | None] = asyncio.Queue(4)  # None: look at the clock, and at what came

    async def lead(self) -> None:
        """Relay until cancelled. Raises what the log raises, and StaleSequence where another relay leads."""
        head = (await self._state.bounds()).last
        await self._restore()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._follow_fences(head))
            tasks.create_task(self._follow_features())
            tasks.create_task(self._tick())
            tasks.create_task(self._expire())
            await self._work()

    async def _restore(self) -> None:
        """Take up what is kept: fences as they began, who is inside, the cursor, and what was done to fences since."""
        await self._ready()
        kept = await kept_fences(self._state)
        for begin in range(0, len(kept.begun), FENCES_AT_ONCE):
            some = [(message, start.sequence) for message, start in kept.begun[begin : begin + FENCES_AT_ONCE]]
            for fence in await self._in_thread(all_in_force, some):
                self._engine.put(fence)
                self._expect(fence.message)
        self._revisions = {start.uid: start.revision for _, start in kept.begun if start.uid in self._engine.fences}
        orphans: dict[tuple[str, Key], Member | Gone] = {}  # of fences that had not begun yet, or are gone
        async for record in last_of_all(self._state, MEMBERS):
            uid, key, member = member_of(record)
            if uid in self._engine.fences:
                if isinstance(member, Gone):
                    self._engine.restore_left(uid, key, member)
                else:
                    self._engine.restore(uid, member)
            elif not record.tombstone:
                orphans[uid, key] = Gone(0)
        await self._keep(Outcome(members=orphans), [removal_append(uid) for uid in kept.forgotten])
        await self._restore_cursor()
        # The features log may have been restored since, to an earlier place.
        head = (await self._features.bounds()).last
        coming = [stored.up_to(head) for stored in kept.coming]
        for begin in range(0, len(coming), FENCES_AT_ONCE):
            await self._beginnings.look_inside(coming[begin : begin + FENCES_AT_ONCE])
        self._note(coming)
        await self._take_due(self._applied)

    async def _restore_cursor(self) -> None:
        record = await self._state.last(CURSOR)
        self._seen(self._projection.applied, self._projection.position)
        if record is None:
            return
        self._cursor_sequence = record.sequence
        if not self._engine.fences:
            return
        position = cursor_of(record)
        try:
            self._seen(await self._features.resolve(position), position)
            await self._in_thread(self._engine.forget_left, self._through)
        except PositionError as error:
            await self._resync(error)

    async def _resync(self, error: PositionError) -> None:
        """The place is lost: tell what differs from the sets as they were, and go on from now."""
        _LOG.warning("the fences' place is lost: comparing their sets", extra={"fields": {"why": str(error)}})
        metrics.RESYNCS.inc()
        await self._ready()
        self._seen(self._projection.applied, self._projection.position)
        # Their sequences may be those of another log.
        await self._keep(await self._in_thread(self._engine.forget_left))
        messages = [fence.message for fence in self._engine.fences.values()]
        for begin in range(0, len(messages), FENCES_AT_ONCE):
            some = messages[begin : begin + FENCES_AT_ONCE]
            await self._begin([_Put(message, None, notify=True) for message in some], anew=True)
        # The last of all: with a new cursor, what has not been compared by now never would be.
        await self._keep_cursor()

    async def _ready(self) -> None:
        while not self._projection.ready:  # noqa: ASYNC110 - readiness is a state to ask for, lost again by a reset
            await asyncio.sleep(TIMER_S)

    async def _follow_fences(self, after: int) -> None:
        async for page in self._state.follow(after, subjects=FENCES, allow_gaps=True):
            stored = [stored_fence(record) for record in page.records]
            for begin in range(0, len(stored), FENCES_AT_ONCE):
                some = stored[begin : begin + FENCES_AT_ONCE]
                await self._beginnings.look_inside(some)
                self._note(some)
                with suppress(asyncio.QueueFull):
                    self._queue.put_nowait(None)

    def _note(self, came: Sequence[StoredFence]) -> None:
        self._came += came
        for stored in came:
            if not stored.removed:
                self._expect(stored.message)

    def _expect(self, fence: FenceMessage) -> None:
        if fence.HasField("expire_time"):
            heapq.heappush(self._expiries, (fence.expire_time.ToNanoseconds(), next(self._expected), fence))

    async def _expire(self) -> None:
        """Remove fences when they expire: apart from the work, which may wait, so that what moves later is no event."""
        while True:
            await asyncio.sleep(TIMER_S)
            while self._expiries and self._expiries[0][0] <= self._clock_ns():
                _, _, fence = heapq.heappop(self._expiries)
                await self._book.delete(fence.id, notify_left=fence.notify_left_on_expiry, only=fence)

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
            page = await self._queue.get()
            if page is not None:
                await self._take_page(page)
            await self._take_due(self._applied)
            if page is None:
                await self._take_time()

    async def _take_page(self, page: Page) -> None:
        moved = False
        records = page.records if self._engine.fences or self._came else ()
        begin = 0
        while begin < len(records):
            await self._take_due(records[begin].sequence - 1)
            end = begin + SLICE
            if self._came:
                end = min(end, bisect_right(records, self._came[0].place, key=_SEQUENCE))
            some = records[begin:end]
            outcome = await self._in_thread(apply, self._engine, some)
            moved = moved or bool(outcome.members)
            self._applied = some[-1].sequence
            await self._tell(outcome.events)
            await self._keep(outcome)
            begin = end
        self._seen(page.through, page.position)
        if moved:
            await self._keep_cursor()
        behind = self._features.head - page.through
        metrics.LAG_RECORDS.set(behind)
        late = (self._clock_ns() - page.records[-1].time_ns) / 1e9 if behind and page.records else 0.0
        metrics.LAG_SECONDS.set(max(0.0, late))

    async def _take_time(self) -> None:
        now_ns = self._clock_ns()
        due = self._engine.due_dwells(now_ns)
        while some := await self._in_thread(_take, due):
            appends = [dwell_append(fence, member) for fence, member in some]
            lasts = await asyncio.gather(*(self._features.last(append.subject) for append in appends))
            # A leader before this one may have recorded it.
            news = [
                append
                for append, last, (_, member) in zip(appends, lasts, some, strict=True)
                if last is None or stay_of(last) != member.entered_sequence
            ]
            await _append_all(self._features, news)
        if self._engine.fences and time.monotonic() - self._kept_at > CURSOR_INTERVAL_S:
            await self._keep_cursor()

    def _seen(self, through: int, position: bytes) -> None:
        """The fences have seen the features log up to here, where a cursor may be kept."""
        self._applied = self._through = through
        self._position = position

    async def _take_due(self, reached: int) -> None:
        """Take what was done to fences up to a place in the features log; it must not reach beyond what is applied."""
        while self._came and self._came[0].place <= reached:  # more may come meanwhile
            due: list[StoredFence] = []
            while self._came and self._came[0].place <= reached:
                due.append(self._came.popleft())
            await self._take_fences(due)
            for stored in due:
                self._beginnings.forget(stored.message.uid)

    async def _take_fences(self, fences: Iterable[StoredFence]) -> None:
        """Fences were put, put again, or removed; what is known already is passed over.

        What follows each other and is alike goes together: a thousand fences cost a few commits, and one look at what
        has changed since they were put.
        """
        alike: dict[str, StoredFence] = {}
        removed = False
        for stored in fences:
            uid = stored.message.uid
            if stored.removed != removed or uid in alike or len(alike) == FENCES_AT_ONCE:
                await self._take_alike(list(alike.values()), removed=removed)
                alike = {}
            removed = stored.removed
            alike[uid] = stored
        await self._take_alike(list(alike.values()), removed=removed)
        metrics.FENCES.set(len(self._engine.fences))

    async def _take_alike(self, fences: Sequence[StoredFence], *, removed: bool) -> None:
        if removed:
            await self._remove([f for f in fences if f.message.uid in self._engine.fences])
        else:
            newer = [f for f in fences if f.message.revision > self._revisions.get(f.message.uid, 0)]
            await self._begin([_Put(f.message, f.features_sequence, notify=f.message.notify_present) for f in newer])

    async def _remove(self, fences: Sequence[StoredFence]) -> None:
        for stored in fences:
            self._revisions.pop(stored.message.uid, None)
        outcome = await self._in_thread(_remove, self._engine, fences)
        await self._tell(outcome.events)
        await self._keep(outcome, [removal_append(stored.message.uid) for stored in fences])

    async def _begin(self, puts: Sequence[_Put], *, anew: bool = False) -> None:
        """Put fences in force as they were put, with what was inside then; `anew`: their members are of another place.

        A new revision takes over the set that its fence has; a new fence begins at its own place in the log.
        """
        if not puts:
            return
        standing = {put.message.uid for put in puts} & self._engine.fences.keys()
        places = [(p.message, self._applied if p.message.uid in standing or p.place is None else p.place) for p in puts]
        fences = await self._in_thread(all_in_force, places)
        if not fences:
            return
        kept = set() if anew else standing
        notify = {put.message.uid for put in puts if put.notify}
        outcome = await self._beginnings.begin(self._engine, fences, applied=self._applied, kept=kept, notify=notify)
        for fence in fences:
            self._revisions[fence.uid] = fence.message.revision
        await self._tell(outcome.events)
        if not anew:
            # A start counts only together with a cursor that is not beyond it, and with all that was inside.
            await self._keep_cursor()
        starts = [start_append(fence.uid, fence.message.revision, fence.start) for fence in fences]
        await self._keep(outcome, starts)

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

    async def _keep(self, outcome: Outcome, more: Sequence[Append] = ()) -> None:
        """Keep memberships, and then what counts only with them."""
        await _append_all(self._state, (member_append(u, k, member) for (u, k), member in outcome.members.items()))
        await _append_all(self._state, more)

    async def _keep_cursor(self) -> None:
        self._kept_at = time.monotonic()
        if self._through == self._kept_through:
            return
        append = cursor_append(self._position, self._through, expected_sequence=self._cursor_sequence)
        self._cursor_sequence = (await self._state.append(append)).sequence
        self._kept_through = self._through

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """A call in a thread: what goes through many fences or members takes longer than the loop may stand still."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


async def _append_all(log: Log, appends: Iterable[Append]) -> None:
    rest = iter(appends)
    while some := list(itertools.islice(rest, APPENDS)):
        for answer in await log.append_many(some):
            if isinstance(answer, SignpostError):
                raise answer


def _take(items: Iterator[T]) -> list[T]:
    return list(itertools.islice(items, SLICE))


def _remove(engine: FenceEngine, fences: Sequence[StoredFence]) -> Outcome:
    outcome = Outcome()
    for stored in fences:
        outcome.add(engine.remove(stored.message.uid, notify=stored.notify_left))
    return outcome
