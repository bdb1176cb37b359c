"""Queue groups on an engine that has none of its own: one process deals the records out.

The group's place (a floor, what is done above it, what was tried) is one record in the state log,
written whenever it has changed and the write before is through, less often the larger it is. A crash
therefore forgets the last moment's acknowledgements (of seconds, where tens of thousands are done above
one that is not), never a record.
"""

import asyncio
import hashlib
import heapq
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import NamedTuple

from protos.storage.v1 import storage_pb2
from signpost.errors import LogUnavailable, PositionCompacted, PositionError, SignpostError, StaleSequence, Unavailable
from signpost.log.base import Append, Log, Page, Record
from signpost.log.group import MAX_FETCH_BYTES, Delivered, Group, GroupSettings

SAVE_INTERVAL_S = 0.1
SAVE_BYTES_S = 32 * 1024
"""The state log keeps what is written for its whole history; more here forgets less in a crash."""
MAX_TIMER_S = 0.5
MAX_DONE = 100_000
"""Records that may be done above one that is not; then reading waits. Bounds the memory and the kept place."""
_RETRY_S = 0.2
_LAST_SAVES = 3


class _Held(NamedTuple):
    member: object
    deadline: float


class LocalGroup(Group):
    """Deals out the records of `log` and keeps its place in `state`. One a process and group.

    Memory is bounded: a page or two of records that wait for a member, and for each record that is held
    or done out of order its number. What comes back is read from the log again.
    """

    def __init__(
        self, log: Log, state: Log, settings: GroupSettings, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._log, self._state, self._settings, self._clock = log, state, settings, clock
        digest = hashlib.sha256(f"{settings.name}\n{settings.subjects}".encode()).hexdigest()[:32]
        self._subject = f"group.{digest}"
        self._saved_sequence = 0
        self._epoch = log.epoch  # of the log that all below is about, until the reader meets another one
        self._floor = settings.start_after
        self._through = settings.start_after
        self._done: set[int] = set()
        self._tries: dict[int, int] = {}
        self._ready: list[tuple[int, Record, int]] = []  # heap by sequence: the oldest goes first
        self._held: dict[int, _Held] = {}  # in the order of their deadlines
        self._again: list[int] = []  # heap of sequences that came back and are to be read
        self._waiting = 0  # members that want records now
        self._changed = asyncio.Event()  # the place has moved and is not saved
        self._room = asyncio.Event()  # reading may go on
        self._returned = asyncio.Event()  # there is something in `_again`
        self._available = asyncio.Event()  # something is ready
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> "LocalGroup":
        """Take up the kept place, if there is one of this log, and start."""
        kept = await self._state.last(self._subject)
        if kept is not None:
            self._saved_sequence = kept.sequence
            self._load(storage_pb2.GroupState.FromString(kept.payload))
        self._tasks = [
            asyncio.create_task(coroutine, name=f"group {self._settings.name} {what}")
            for what, coroutine in (
                ("reader", self._read()),
                ("second reader", self._read_again()),
                ("timer", self._expire()),
                ("saver", self._save()),
            )
        ]
        return self

    def _load(self, kept: storage_pb2.GroupState) -> None:
        if kept.epoch != self._log.epoch or kept.floor > self._log.head:
            return
        self._floor = self._through = sequence = kept.floor
        for delta in kept.done_deltas:
            sequence += delta
            self._done.add(sequence)
        self._tries = dict(zip(kept.tried, kept.tries, strict=True))

    async def fetch(self, member: object, limit: int, max_bytes: int = MAX_FETCH_BYTES) -> list[Delivered]:
        self._waiting += 1
        self._room.set()
        try:
            while not self._ready and not self._closed:
                self._available.clear()
                await self._available.wait()
        finally:
            self._waiting -= 1
        if self._closed:
            raise LogUnavailable("the group is closed", retry_after_s=1.0)
        # No await from here on: a cancelled fetch has taken nothing.
        deadline = self._clock() + self._settings.ack_wait_s
        taken: list[Delivered] = []
        size = 0
        while self._ready and len(taken) < limit:
            size += len(self._ready[0][1].payload)
            if taken and size > max_bytes:
                break
            sequence, record, tries = heapq.heappop(self._ready)
            self._held[sequence] = _Held(member, deadline)
            self._tries[sequence] = tries + 1
            taken.append(Delivered(record, tries))
        self._changed.set()
        return taken

    def ack(self, member: object, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            if self._holds(member, sequence):
                del self._held[sequence]
                self._finish(sequence)
        self._advance()

    def reject(self, member: object, sequences: Iterable[int]) -> None:
        for sequence in sequences:
            if self._holds(member, sequence):
                self._give_back(sequence)

    def release(self, member: object) -> None:
        for sequence in [s for s, held in self._held.items() if held.member == member]:
            self._give_back(sequence)

    async def close(self) -> None:
        self._closed = True
        self._available.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        for _ in range(_LAST_SAVES):  # more than one where a save was on its way; at most the last moment comes again
            if self._changed.is_set():
                await self._save_once()

    def _holds(self, member: object, sequence: int) -> bool:
        held = self._held.get(sequence)
        return held is not None and held.member == member

    def _give_back(self, sequence: int) -> None:
        del self._held[sequence]
        heapq.heappush(self._again, sequence)
        self._returned.set()

    def _finish(self, sequence: int) -> None:
        self._tries.pop(sequence, None)
        self._done.add(sequence)

    def _offer(self, record: Record) -> None:
        heapq.heappush(self._ready, (record.sequence, record, self._tries.get(record.sequence, 0)))
        self._available.set()

    def _advance(self) -> None:
        """Move the floor to just before the oldest record that is not done."""
        oldest = min(self._held, default=self._through + 1)
        if self._ready:
            oldest = min(oldest, self._ready[0][0])
        if self._again:
            oldest = min(oldest, self._again[0])
        floor = oldest - 1
        if floor > self._floor:
            self._floor = floor
            self._done = {s for s in self._done if s > floor}
        self._room.set()
        self._changed.set()

    async def _wait_for_room(self) -> None:
        while not self._waiting or self._ready:
            self._room.clear()
            await self._room.wait()

    async def _read(self) -> None:
        """Take a page at a time, when a member wants records and there are none."""
        while True:
            try:
                async for page in self._log.follow(self._through, subjects=self._settings.subjects):
                    self._take(page)
                    await self._wait_for_room()
                    while len(self._done) >= MAX_DONE and self._log.epoch == self._epoch:
                        self._room.clear()
                        await self._room.wait()
            except PositionCompacted as error:
                # Retention has overtaken the group: go on with what is there. What is held may still be rejected.
                self._through = error.first_available - 1
                self._advance()
                self._tries = {s: tries for s, tries in self._tries.items() if s > self._floor}
            except PositionError as error:
                # It is another log by now.
                self._epoch = self._log.epoch
                self._through = self._floor = error.first_available - 1
                for kept in (self._done, self._tries, self._held, self._ready, self._again):
                    kept.clear()
            except Unavailable as error:
                await asyncio.sleep(error.retry_after_s or _RETRY_S)

    def _take(self, page: Page) -> None:
        for record in page.records:
            if record.sequence not in self._done:
                self._offer(record)
        self._through = page.through
        if not self._ready and not self._held:
            self._advance()

    async def _read_again(self) -> None:
        """What came back, oldest first. What retention has taken meanwhile is done."""
        while True:
            if not self._again:
                self._returned.clear()
                await self._returned.wait()
            await self._wait_for_room()
            if not self._again:
                continue
            if self._log.epoch != self._epoch:
                self._room.set()  # for the first reader, which starts over
                await asyncio.sleep(_RETRY_S)
                continue
            first = self._again[0]
            try:
                page = await self._log.read(first - 1, subjects=self._settings.subjects, allow_gaps=True)
            except PositionError:
                await asyncio.sleep(_RETRY_S)  # the first reader meets it too, and starts over
                continue
            except Unavailable as error:
                await asyncio.sleep(error.retry_after_s or _RETRY_S)
                continue
            found = {record.sequence: record for record in page.records}
            while self._again and first <= self._again[0] <= page.through:
                sequence = heapq.heappop(self._again)
                if sequence in found:
                    self._offer(found[sequence])
                else:
                    self._finish(sequence)
            self._advance()

    async def _expire(self) -> None:
        """Give back what was held too long."""
        longest_s = max(0.01, min(MAX_TIMER_S, self._settings.ack_wait_s / 4))
        while True:
            now = self._clock()
            while self._held and (oldest := next(iter(self._held.items())))[1].deadline <= now:
                self._give_back(oldest[0])
            await asyncio.sleep(longest_s)

    async def _save(self) -> None:
        while True:
            await self._changed.wait()
            size = await self._save_once()
            await asyncio.sleep(max(SAVE_INTERVAL_S, size / SAVE_BYTES_S))

    async def _save_once(self) -> int:
        """Write the place; answers its size."""
        self._changed.clear()
        done = sorted(self._done)
        place = storage_pb2.GroupState(
            epoch=self._epoch,
            floor=self._floor,
            done_deltas=[b - a for a, b in pairwise([self._floor, *done])],
            tried=list(self._tries),
            tries=list(self._tries.values()),
        )
        entry = Append(self._subject, place.SerializeToString(), expected_sequence=self._saved_sequence)
        try:
            self._saved_sequence = (await self._state.append(entry)).sequence
        except StaleSequence as error:
            # Our own append whose answer was lost; one process owns a local group.
            self._saved_sequence = error.actual
            self._changed.set()
        except SignpostError:
            self._changed.set()  # a full or absent engine: keep trying, acknowledgements stay in memory
        except asyncio.CancelledError:
            self._changed.set()  # whether it is stored is not known
            raise
        return len(entry.payload)
