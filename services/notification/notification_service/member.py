"""A member of a queue group: one subscription of one stream that shares the group's records.

It asks the group for records only while it has room: fewer than `max_in_flight` unacknowledged, all that
it has are on their way, and a window above 0. So it holds one batch at most, whatever the client does.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from typing import Any, NamedTuple, Protocol

from signpost.errors import SignpostError, TooLarge
from signpost.log.group import Delivered, Group
from signpost.wire import varint

from notification_service import metrics
from notification_service.codec import delivery_frame, encode_records, field, footer
from notification_service.groups import DEAD, Groups, MemberSettings, dead_entry
from notification_service.hub import Hub
from notification_service.lane import BATCH_BYTES
from notification_service.subscription import CONNECT_WIRE
from protos.notification.v1 import notification_pb2 as pb

RETRY_S = 1.0
MAX_LAPSED = 4096
"""Records whose time was over before they were acknowledged, by number. A client may acknowledge them still; behind a
restore its acknowledgement of one that is older than so many counts for the new record of the same sequence."""


class MemberOutlet(Protocol):
    """Where deliveries go: a stream's outbox."""

    def wake(self, source: "Member") -> bool:
        """There may be something to `take`."""

    def failed(self, source: "Member", error: SignpostError) -> None:
        """The member cannot go on."""


class _Pending(NamedTuple):
    """A record that is ours and not on its way: until `deadline`."""

    sequence: int
    tries: int
    data: bytes
    deadline: float


class _Held(NamedTuple):
    """A record that is not acknowledged; the time tells it from another of its sequence, in a log made anew."""

    deadline: float
    time_ns: int


class Member:
    """One member. `join`, then `begin`; `close` gives everything back. For the event loop's thread."""

    __slots__ = (
        "_changed",
        "_closed",
        "_group",
        "_groups",
        "_held",
        "_lapsed",
        "_name_field",
        "_pending",
        "_replaced",
        "_settings",
        "_spawn",
        "_task",
        "hub",
        "name",
        "outlet",
        "pattern",
        "queued",
        "window",
    )

    def __init__(
        self,
        hub: Hub,
        outlet: MemberOutlet,
        name: str,
        pattern: str,
        *,
        groups: Groups,
        settings: MemberSettings,
        window: int | None,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self.hub = hub
        self.outlet = outlet
        self.name = name
        self.pattern = pattern
        self.window = window
        self.queued = False
        self._groups = groups
        self._settings = settings
        self._spawn = spawn
        self._group: Group | None = None
        self._task: asyncio.Task[None] | None = None
        self._name_field = field(1, name.encode())
        self._pending: deque[_Pending] = deque()
        self._held: dict[int, _Held] = {}  # in the order of their deadlines
        self._lapsed: dict[int, int] = {}  # the time of each record that it no longer holds, and that has no answer
        self._replaced: set[int] = set()  # sequences whose next acknowledgement is about a record of before
        self._changed = asyncio.Event()
        self._closed = False

    async def join(self, start_after: int) -> None:
        """Become a member; a group that is new starts after this sequence."""
        settings = self._settings
        self._group = await self._groups.join(settings.group, self.pattern, start_after, settings.ack_wait_s)
        metrics.GROUP_MEMBERS.inc()

    def begin(self) -> None:
        """Take part from now on."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def credit(self, size: int) -> None:
        """More window."""
        if self.window is not None:
            self.window += size
            self._changed.set()
            self.outlet.wake(self)

    def ack(self, frame: pb.AckFrame) -> None:
        """Done with some, and some back for another try. What is not held any more is passed over."""
        if self._group is not None:
            done, back = self._meant(frame.sequences), self._meant(frame.rejected_sequences)
            self._let_go([*done, *back])
            self._group.ack(self, done)
            self._group.reject(self, back)

    def close(self) -> None:
        """Leave: what is held goes to others at once. Safe to repeat."""
        if self._closed or self._group is None:
            return
        self._closed = True
        if self._task is not None:
            self._task.cancel()
        self._pending.clear()
        self._let_go(list(self._held))
        metrics.GROUP_MEMBERS.dec()
        self._spawn(self._groups.leave(self._settings.group, self.pattern, self))

    def take(self) -> bytes | None:
        """The next frame, if there is one now. Otherwise the outlet is woken when there is."""
        pending, window = self._pending, self.window
        if not pending or (window is not None and window <= 0):
            return None
        limit = BATCH_BYTES if window is None else min(BATCH_BYTES, window)
        now = asyncio.get_running_loop().time()
        parts: list[bytes] = []
        tries: list[int] = []
        size = 0
        while pending and (not parts or size + len(pending[0].data) <= limit):
            item = pending.popleft()
            if item.deadline > now:  # otherwise it is another member's by now
                parts.append(item.data)
                tries.append(item.tries)
                size += len(item.data)
        if not pending:
            self._changed.set()
        if not parts:
            return None
        redeliveries = field(6, b"".join(map(varint, tries))) if any(tries) else b""
        hub = self.hub
        end = redeliveries + footer(hub.through, hub.through, hub.position)
        frame, cost = delivery_frame(CONNECT_WIRE.delivery, self._name_field, parts, end)
        if window is not None:
            self.window = window - cost
        return frame

    async def _run(self) -> None:
        assert self._group is not None, "joined first"  # noqa: S101 - the order that the class promises
        try:
            while True:
                room = await self._room()
                window = self.window
                most = BATCH_BYTES if window is None else min(BATCH_BYTES, window)
                delivered = await self._group.fetch(self, room, most)
                await self._sort(delivered)
        except SignpostError as error:
            self.outlet.failed(self, error)

    async def _room(self) -> int:
        """Wait until there is room for records; answers for how many."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            lapsed = []
            for sequence, held in self._held.items():
                if held.deadline > now:
                    break
                lapsed.append(sequence)
            self._lapse(lapsed)
            room = self._settings.max_in_flight - len(self._held)
            if room > 0 and not self._pending and (self.window is None or self.window > 0):
                return room
            self._changed.clear()
            first = next(iter(self._held.values()), None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(first.deadline if first else None):
                    await self._changed.wait()

    async def _sort(self, delivered: list[Delivered]) -> None:
        """Expired records are done, poison is buried, the others go out."""
        now_ns = self.hub.clock()
        deadline = asyncio.get_running_loop().time() + self._settings.ack_wait_s
        expired: list[int] = []
        dead: list[Delivered] = []
        again = 0
        encoded = encode_records([one.record for one in delivered])
        for one, (sequence, _, data, expires) in zip(delivered, encoded, strict=True):
            if expires and expires <= now_ns:
                expired.append(sequence)
            elif one.tries >= self._settings.max_deliveries:
                dead.append(one)
            else:
                self._hold(sequence, _Held(deadline, one.record.time_ns))
                self._pending.append(_Pending(sequence, one.tries, data, deadline))
                again += one.tries > 0
        metrics.GROUP_REDELIVERED.inc(again)
        if self._pending:
            self.outlet.wake(self)
        assert self._group is not None  # noqa: S101 - as in `_run`
        self._group.ack(self, expired)
        for one in dead:
            await self._bury(self._group, one)

    async def _bury(self, group: Group, poison: Delivered) -> None:
        """Copy a record under `_dead`, then be done with it; the log's absence only delays that."""
        record, log, name = poison.record, self.hub.log, self._settings.group
        whole = True
        while not record.subject.startswith(f"{DEAD}."):  # a copy that is poison too stays where it is
            try:
                await log.append(
                    dead_entry(record, poison.tries, group=name, pattern=self.pattern, epoch=log.epoch, whole=whole)
                )
                break
            except TooLarge:
                whole = False  # what the copy adds was too much: the original has the payload and the attributes
            except SignpostError:
                await asyncio.sleep(RETRY_S)
        group.ack(self, [record.sequence])
        metrics.GROUP_DEAD.inc()

    def _hold(self, sequence: int, record: _Held) -> None:
        before = self._held.pop(sequence, None)
        if before is None:
            metrics.GROUP_IN_FLIGHT.inc()
        if self._lapsed.pop(sequence, before.time_ns if before else record.time_ns) != record.time_ns:
            self._replaced.add(sequence)
        self._held[sequence] = record

    def _lapse(self, sequences: list[int]) -> None:
        """Their time is over: others have them, and the client may acknowledge them still."""
        for sequence in sequences:
            self._lapsed[sequence] = self._held[sequence].time_ns
        while len(self._lapsed) > MAX_LAPSED:
            del self._lapsed[next(iter(self._lapsed))]
        self._let_go(sequences)

    def _meant(self, sequences: Iterable[int]) -> list[int]:
        """Those that are about what is held now. A client that has records of before and after a restore
        acknowledges both of a sequence, the older one first."""
        meant = []
        for sequence in sequences:
            self._lapsed.pop(sequence, None)
            if sequence in self._replaced:
                self._replaced.remove(sequence)
            else:
                meant.append(sequence)
        return meant

    def _let_go(self, sequences: Iterable[int]) -> None:
        count = sum(self._held.pop(sequence, None) is not None for sequence in sequences)
        if count:
            metrics.GROUP_IN_FLIGHT.dec(count)
            self._changed.set()
