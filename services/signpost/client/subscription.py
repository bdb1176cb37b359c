"""A subscription, as the caller has it."""

import asyncio
import weakref
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Literal, Protocol

from protos.notification.v1 import notification_pb2 as npb
from signpost.client.inbox import Inbox
from signpost.client.notifications import Gap, Notification, NotificationBatch
from signpost.client.positions import Position, PositionStore
from signpost.errors import SignpostError

AckMode = Literal["auto", "manual"]

SAVE_INTERVAL_S = 0.5
"""A durable cursor is moved, and a position stored, at most this often, in seconds, and at the end."""


class Hub(Protocol):
    """What a subscription needs of its client."""

    def send(self, frame: npb.ConnectRequest) -> None:
        """Queue a frame on the current stream, if there is one."""

    def drop(self, inbox: Inbox, *, forget_cursor: bool = False) -> None:
        """End a subscription."""


def _abandon(loop: asyncio.AbstractEventLoop, hub: Hub, inbox: Inbox) -> None:
    """For the garbage collector, which runs in any thread: end a subscription soon."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(hub.drop, inbox)


class Subscription:
    """An async iterator over the records of a filter; never ends by itself, but when it or its client is closed.

    Guarantees: log order; each record once (queue groups: at least once, in no order); memory for
    one window at most, however slow the caller; a slow caller holds up nobody else.

    `position` is that of the last record handed over. What is *handled* comes one step later: a
    record counts as handled when the next one is asked for, or when `ack` says so. With
    `ack="auto"` that moves the durable cursor (and acknowledges a group's records); a caller that
    raises has not handled its record, and gets it again after a restart. A position store keeps
    the same. With `ack="manual"` only `ack` and `reject` do.
    Use it as an async context manager: entering waits until the server has started it.
    """

    def __init__(self, hub: Hub, inbox: Inbox, *, ack: AckMode, store: PositionStore | None) -> None:
        self._hub = hub
        self._inbox = inbox
        # Who keeps no cursor has nothing to acknowledge.
        self._auto = ack == "auto" and (inbox.is_group or inbox.frame.durable or store is not None)
        self._store = store
        self._batch: NotificationBatch | None = None
        self._records: Iterator[Notification] = iter(())
        self._last: Notification | None = None  # handed over one by one, not handled yet
        self._handed: Position | None = None  # after what was handed over as a batch
        self._handed_gaps = self._saved_gaps = 0  # gaps before that, and before what is to be saved
        self._saved: Position | None = None
        self._save_timer: asyncio.TimerHandle | None = None
        self._unstored: Position | None = None  # for the store, once the save before is through
        self._saving: asyncio.Task[None] | None = None
        # Group: turn and sequence of what was handed over since the last acknowledgement.
        self._unacked: list[tuple[int, int]] = []
        self._finalizer = weakref.finalize(self, _abandon, asyncio.get_running_loop(), hub, inbox)
        self._finalizer.atexit = False

    @property
    def name(self) -> str:
        """Its name on the stream, and that of its durable cursor."""
        return self._inbox.name

    @property
    def position(self) -> Position | None:
        """After the last record handed over; before the first one, where the subscription started, as
        far as that is known. Store it, and hand it to `subscribe(start=...)` after a restart."""
        handed = self._handed if self._last is None else self._last.position
        if handed is not None:
            return handed
        return Position(self._inbox.token, self._inbox.covered or 0) if self._inbox.token else None

    @property
    def last_gap(self) -> Gap | None:
        """The last gap, if there was one."""
        return self._inbox.last_gap

    @property
    def buffered_bytes(self) -> int:
        """What waits for the caller, in bytes; never more than the window and one record."""
        return self._inbox.buffered_bytes

    async def started(self) -> None:
        """Return once the server has started it: what is published from then on is delivered."""
        await self._inbox.started.wait()
        if self._inbox.failure is not None:
            raise self._inbox.failure

    def __aiter__(self) -> "Subscription":
        return self

    async def __anext__(self) -> Notification:
        # What is left of a group's batch goes with the stream that brought it.
        is_ours = self._batch is None or self._batch.turn == self._inbox.turn
        record = next(self._records, None) if is_ours else None
        if record is None:
            batch = await self._turn()
            if batch is None:
                raise StopAsyncIteration
            self._records = iter(batch)
            record = next(self._records)
        elif self._auto:
            self.ack()
        self._last = record
        if self._inbox.is_group:
            self._unacked.append((record.batch.turn, record.sequence))
        return record

    async def batches(self) -> AsyncIterator[NotificationBatch]:
        """The records as they came over the wire, decoded when they are read. A batch counts as
        handled when the next one is asked for."""
        while (batch := await self._turn()) is not None:
            self._handed = batch.position
            if self._inbox.is_group:
                self._unacked += [(batch.turn, n.sequence) for n in batch.message.notifications]
            yield batch

    async def _turn(self) -> NotificationBatch | None:
        """Give back the batch that is done, wait for the next; None once it is closed."""
        self._records = iter(())
        if self._batch is not None:
            if self._auto:
                self.ack()
            self._inbox.handled(self._batch)
            self._handed, self._last, self._batch = self.position, None, None
        try:
            self._batch = await self._inbox.take()
        except SignpostError:
            if self._finalizer.alive:
                raise
            return None
        self._handed_gaps = self._batch.gaps
        self._inbox.report_lag(self._batch)
        return self._batch

    def ack(self, *records: Notification) -> None:
        """Mark as handled: these records (of a group), or everything handed over so far."""
        if self._inbox.is_group:
            self._ack_group(accepted=[(r.batch.turn, r.sequence) for r in records] or self._unacked)
        elif (position := records[-1].position if records else self.position) is not None:
            self._save_soon(position, records[-1].batch.gaps if records else self._handed_gaps)

    def reject(self, *records: Notification) -> None:
        """Give records of a group back at once, for another try elsewhere."""
        self._ack_group(rejected=[(r.batch.turn, r.sequence) for r in records])

    def _ack_group(self, accepted: Iterable[tuple[int, int]] = (), rejected: Iterable[tuple[int, int]] = ()) -> None:
        """What another stream brought went with it: under its numbers others may stand by now."""
        turn, gone = self._inbox.turn, {*accepted, *rejected}
        frame = npb.AckFrame(
            subscription=self.name,
            sequences=[s for t, s in accepted if t == turn],
            rejected_sequences=[s for t, s in rejected if t == turn],
        )
        self._unacked = [one for one in self._unacked if one[0] == turn and one not in gone]
        if frame.sequences or frame.rejected_sequences:
            self._hub.send(npb.ConnectRequest(ack=frame))

    def _save_soon(self, position: Position, gaps: int) -> None:
        if not self._finalizer.alive or (self._store is None and not self._inbox.frame.durable):
            return
        self._saved, self._saved_gaps = position, gaps
        if self._save_timer is None:
            loop = asyncio.get_running_loop()
            self._save_timer = loop.call_later(SAVE_INTERVAL_S, self._save_now)

    def _save_now(self) -> None:
        self._save_timer = None
        position, self._saved = self._saved, None
        if position is None:
            return
        # A number from before a gap may be of another log, and stand for records there that nobody has seen.
        if self._inbox.frame.durable and self._saved_gaps == self._inbox.gaps:
            # The token may stand before the position: a plain number says it exactly.
            exact = position.token and position.sequence == self._inbox.covered
            through = position.to_proto() if exact else npb.Position(sequence=position.sequence)
            self._hub.send(npb.ConnectRequest(ack=npb.AckFrame(subscription=self.name, through=through)))
        if self._store is not None:
            self._unstored = position
            if self._saving is None or self._saving.done():
                self._saving = asyncio.create_task(self._save(self._store))

    async def _save(self, store: PositionStore) -> None:
        """One at a time: an older position must not come last."""
        while (position := self._unstored) is not None:
            self._unstored = None
            try:
                await store.save(self.name, position)
            except Exception as error:  # whatever a store of the caller's raises
                if self._unstored is None:
                    raise SignpostError(f"the position store: {error}", reason="POSITION_STORE") from error

    async def aclose(self, *, forget_cursor: bool = False) -> None:
        """End the subscription; what was handled is saved first. `forget_cursor`: the durable cursor too.
        Raises SignpostError / POSITION_STORE where it cannot be saved; the subscription has ended all the same."""
        if self._save_timer is not None:
            self._save_timer.cancel()
        self._save_now()
        saving, self._saving = self._saving, None
        try:
            if saving is not None:
                await saving
        finally:
            if self._finalizer.detach() is not None:
                self._hub.drop(self._inbox, forget_cursor=forget_cursor)
                self._records = iter(())
                self._inbox.close()

    async def __aenter__(self) -> "Subscription":
        await self.started()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
