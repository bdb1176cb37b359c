"""The hub: one follower of the notifications log, and everybody's way to its records.

Each record is encoded once and matched once. What matches waits in its lanes for the next round; a
round cuts the lanes that have something into segments and wakes their members. A lone record on a
quiet stream makes its round at once. After a round that woke many, the next one waits as long as that
one was expensive, so that a publisher of single messages does not pay for waking everybody each time.
"""

import asyncio
import dataclasses
import time
from collections import deque
from collections.abc import Callable, Sequence

from signpost.errors import PositionError, Unavailable
from signpost.log.base import Log, Page, Record

from notification_service import metrics
from notification_service.codec import encode_records
from notification_service.lane import Lane
from notification_service.subscription import Subscription
from notification_service.tail import BLOCK_BYTES, Block, Tail
from notification_service.topics import FilterTrie

RETRY_S = 0.2
WOKEN_A_TURN = 50
"""Subscribers woken in one turn of the event loop: each costs a gRPC message, and publishes wait for the turn's end."""
BULK_BYTES = 16 * 1024
BULK_PAUSES = 4
"""The longest pause grows by itself for each so many bytes that a round brought everybody, so many times at most:
who gets much at once waits a little longer for more of it, and a message carries it for the price of one."""


@dataclasses.dataclass(frozen=True, slots=True)
class HubSettings:
    """How the hub shares memory and time.

    `tail_bytes`: newest records in memory; more serves longer absences without reading the log.
    `buffer_bytes`: what a subscriber may be behind before it reads for itself. `pause_factor`: pause
    after a round, as a multiple of the time that the round took; more favours publishers, less the
    latency under load. `max_pause_s` bounds it, up to five times that where a round brought much.
    `reads`: pages read from the log at a time.
    """

    tail_bytes: int = 64 * 1024 * 1024
    buffer_bytes: int = 1024 * 1024
    pause_factor: float = 1.5
    max_pause_s: float = 0.01
    reads: int = 8


class Hub:
    """Follows the log and hands out its records; `run` in a task, everything else on the same loop."""

    def __init__(
        self,
        log: Log,
        settings: HubSettings | None = None,
        *,
        clock: Callable[[], int] = time.time_ns,
        on_delivery: Callable[[Sequence[Record]], None] | None = None,
    ) -> None:
        """`on_delivery` is told what each page brought to somebody; where it is not needed it is not looked for."""
        self.log = log
        self.settings = settings or HubSettings()
        self.clock = clock
        self._on_delivery = on_delivery
        self.through = 0
        self.position = b""
        self.generation = 0
        self.tail = Tail(self.settings.tail_bytes, 0)
        self.reads = asyncio.Semaphore(self.settings.reads)
        self._lanes: dict[str, Lane] = {}
        self._trie: FilterTrie[Lane] = FilterTrie()
        self._dirty: dict[Lane, None] = {}
        self._early: dict[Subscription, None] = {}
        self._waking: deque[Subscription] = deque()
        self._round_size = self._round_bytes = 0
        self._round_began = self._next_round = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Stand at the head of the log; call before `run` and before any subscription."""
        self.through = self.log.head
        self.position = await self.log.position(self.through)
        self.tail.reset(self.through)

    async def run(self) -> None:
        """Follow the log for ever. Raises Internal for a record that this release does not know."""
        while True:
            try:
                async for page in self.log.follow(self.through):
                    self.ingest(page)
            except PositionError:
                await self._start_over()

    def ingest(self, page: Page) -> None:
        """Take in the next page: match, keep in the tail, and deliver now or in the next round."""
        if page.through <= self.through:
            return
        match, dirty = self._trie.match, self._dirty
        now = self.clock()
        block, size, after = [], 0, page.after
        for index, item in enumerate(encode_records(page.records)):
            sequence, topic, data, expires = item
            block.append(item)
            size += len(data)
            if not expires or expires > now:
                for lane in match(topic):
                    dirty[lane] = None
                    if lane.add(data):
                        lane.cut(sequence, self.log.position_of(page.records[index]))
            if size >= BLOCK_BYTES and sequence < page.through:
                self.tail.extend(Block(after, sequence, self.log.position_of(page.records[index]), block, size))
                block, size, after = [], 0, sequence
        self.tail.extend(Block(after, page.through, page.position, block, size))
        self.through, self.position = page.through, page.position
        if page.records:
            metrics.RECORDS.inc(len(page.records))
            metrics.BATCH_RECORDS.observe(len(page.records))
            metrics.DELIVER_SECONDS.observe(max(0, now - page.records[0].time_ns) / 1e9)
        if self._early:
            self._admit()
        if dirty:
            if self._on_delivery is not None:
                self._on_delivery([record for record in page.records if match(record.subject)])
            self._schedule()

    def join(self, subscription: Subscription) -> Lane:
        """Enter the live lane of its filter, at the hub's own place."""
        pattern = subscription.pattern
        lane = self._lanes.get(pattern)
        if lane is None:
            lane = self._lanes[pattern] = Lane(pattern, self.through, self.position)
            self._trie.add(pattern, lane)
        elif lane.pending or lane.tail.through < self.through:
            lane.cut(self.through, self.position)
        lane.members[subscription] = None
        return lane

    def leave(self, lane: Lane, subscription: Subscription) -> None:
        """Leave a lane; the last one closes it."""
        lane.members.pop(subscription, None)
        if not lane.members and self._lanes.get(lane.pattern) is lane:
            del self._lanes[lane.pattern]
            self._trie.remove(lane.pattern)
            self._dirty.pop(lane, None)

    def await_place(self, subscription: Subscription) -> None:
        """Wake it once the hub has come to where it stands."""
        self._early[subscription] = None

    def forget(self, subscription: Subscription) -> None:
        """It closes: wake it no more."""
        self._early.pop(subscription, None)

    def progress(self) -> None:
        """Tell quiet lanes how far the log has come, so that their members' positions move."""
        for lane in self._lanes.values():
            if not lane.pending and lane.tail.through < self.through:
                lane.cut(self.through, self.position)
                self._dirty[lane] = None
        if self._dirty:
            self._schedule()

    @property
    def lanes(self) -> int:
        """Filters that somebody live is subscribed to."""
        return len(self._lanes)

    def subscribers(self, topic: str) -> int:
        """Live subscriptions that match a topic."""
        return sum(len(lane.members) for lane in self._trie.match(topic))

    def _schedule(self) -> None:
        if self._timer is not None or self._round_size:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next_round:
            self._round()
        else:
            self._timer = loop.call_at(self._next_round, self._round)

    def _round(self) -> None:
        self._timer = None
        dirty, self._dirty = self._dirty, {}
        self._round_bytes = 0
        for lane in dirty:
            if lane.pending:
                lane.cut(self.through, self.position)
            self._round_bytes = max(self._round_bytes, len(lane.tail.data))
            self._waking.extend(lane.members)
        if not self._waking:
            return
        self._round_size = len(self._waking)
        self._round_began = asyncio.get_running_loop().time()
        self._wake_some()

    def _wake_some(self) -> None:
        """Wake a few; the others in the next turn of the loop, so that publishes and answers come in between."""
        waking = self._waking
        for _ in range(min(WOKEN_A_TURN, len(waking))):
            self._wake(waking.popleft())
        # What was woken writes in the turn that begins now; so the last call comes when all have written.
        asyncio.get_running_loop().call_soon(self._wake_some if waking else self._end_round)

    def _end_round(self) -> None:
        """The next round is as far away as this one was expensive, whatever made it so."""
        loop, settings = asyncio.get_running_loop(), self.settings
        now = loop.time()
        # A lone subscriber's next record is not held back at all.
        cost_s = now - self._round_began if self._round_size > 1 else 0.0
        longest_s = settings.max_pause_s * (1 + min(self._round_bytes / BULK_BYTES, BULK_PAUSES))
        self._next_round = now + min(cost_s * settings.pause_factor, longest_s)
        self._round_size = 0
        if self._dirty:
            self._schedule()

    def _wake(self, subscription: Subscription) -> None:
        if subscription.outlet.wake(subscription):
            return
        lane, segment = subscription.lane, subscription.segment
        if lane is not None and segment is not None and lane.tail.total - segment.total > self.settings.buffer_bytes:
            metrics.FALLEN_BEHIND.inc()
            subscription.fall_behind()

    def _admit(self) -> None:
        for subscription in [s for s in self._early if s.through <= self.through]:
            del self._early[subscription]
            subscription.outlet.wake(subscription)

    async def _start_over(self) -> None:
        """The log was replaced, rewound, or retention overtook us: everybody checks its place again."""
        last, position = await self._last_place()
        self.generation += 1
        self.through, self.position = last, position
        self.tail.reset(last)
        self._dirty.clear()
        waiting = [*self._early, *(member for lane in self._lanes.values() for member in lane.members)]
        self._early.clear()
        for subscription in waiting:
            subscription.fall_behind()
            subscription.outlet.wake(subscription)

    async def _last_place(self) -> tuple[int, bytes]:
        """Where the log ends, once it answers: it may be away, or be replaced once more, at this very moment."""
        while True:
            try:
                last = (await self.log.bounds()).last
                return last, await self.log.position(last)
            except (PositionError, Unavailable):
                await asyncio.sleep(RETRY_S)
