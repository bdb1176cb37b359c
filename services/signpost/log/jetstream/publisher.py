"""Appends on their way: many in flight, each answered, none stored twice.

Each entry goes out with a `Nats-Msg-Id`: its dedupe key, or a random one where it has no message id. So
what is unanswered after a lost link, or for too long, is simply sent again, as long as the server remembers that id.
At its deadline an entry that is still unanswered is answered LogUnavailable; it may have been stored. A time in which
this process was stopped does not count towards it.
"""

import asyncio
import itertools
import json
import os
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from operator import attrgetter
from typing import Any

from signpost.errors import LogUnavailable, ResourceExhausted, SignpostError, StorageFull, TooLarge
from signpost.log.admission import dedupe_key, fault_of
from signpost.log.base import MAX_RECORD_BYTES, Append, Appended
from signpost.log.jetstream.clock import RunningClock
from signpost.log.jetstream.connection import FAILURES, Connection, Link, unavailable
from signpost.log.jetstream.settings import JetStreamSettings
from signpost.log.jetstream.streams import Names
from signpost.log.jetstream.tasks import keep_running, stop
from signpost.log.jetstream.wire import MAX_MESSAGE_ID_BYTES, WRONG_LAST_SEQUENCE, error_of, frame, stored_at

Answers = list[Appended | SignpostError]
_TICK_S = 0.1
_STOPPED_S = 1.0  # a tick that is later than this: the process was stopped
_RESEND_S = 3.0  # a record lost with a cluster's leader is sent again after this
_RETRY_S = 0.1  # after an answer that says: not now
_FULL_S = 5.0
_MAX_BYTES_IN_FLIGHT = 8 * 1024 * 1024
_NUMBER = attrgetter("number")


class Batch:
    """The answers of one submission; the future is done with the last of them."""

    __slots__ = ("answers", "future", "missing")

    def __init__(self, size: int, loop: asyncio.AbstractEventLoop) -> None:
        self.answers: list[Any] = [None] * size
        self.missing = size
        self.future: asyncio.Future[Answers] = loop.create_future()

    def put(self, index: int, answer: Appended | SignpostError) -> None:
        """One entry's answer."""
        self.answers[index] = answer
        self.missing -= 1
        if not self.missing and not self.future.done():
            self.future.set_result(self.answers)


class Pending:
    """One entry that is not answered. `expected` is what the wire says, which may differ from the entry's."""

    __slots__ = ("batch", "deadline", "due", "entry", "expected", "index", "key", "number", "sent_at", "size")

    def __init__(self, number: int, entry: Append, batch: Batch, index: int, deadline: float) -> None:
        self.number, self.entry, self.batch, self.index, self.deadline = number, entry, batch, index, deadline
        named = entry.message_id
        key = dedupe_key(entry.principal, entry.subject, named) if named else os.urandom(16)
        self.key = key.hex()
        self.expected = entry.expected_sequence
        self.size = len(entry.payload)
        self.due = 0.0
        self.sent_at = 0.0  # for the first time, by the loop's clock: the server's is not stopped with this process


class Publisher:
    """One log's appends.

    `settle` decides about an entry with an expected sequence that the stream refused, `prepare` about one that
    expects none before it goes out: each answers the sequence to expect on the wire, the answer, or the error.
    `window_s`: how long the stream remembers a `Nats-Msg-Id`; what was sent that long ago is not sent again, which
    might store it twice.
    """

    def __init__(
        self,
        connection: Connection,
        settings: JetStreamSettings,
        names: Names,
        *,
        window_s: float,
        prepare: Callable[[Append], Awaitable[int | SignpostError]] | None,
        settle: Callable[[Append, str], Awaitable[int | Appended | SignpostError]],
    ) -> None:
        self._connection, self._settings, self._names = connection, settings, names
        self._prepare, self._settle = prepare, settle
        self._window_s = window_s
        self._loop = asyncio.get_running_loop()
        self._clock = RunningClock(self._loop.time, _STOPPED_S)
        self._numbers = itertools.count(1)
        self._queue: deque[Pending] = deque()
        self._in_flight: dict[int, Pending] = {}
        self._deciding: dict[int, tuple[Pending, asyncio.Task[None]]] = {}
        self._bytes = 0
        self._bytes_in_flight = 0
        self._wake = asyncio.Event()
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._full_until = 0.0
        self.acknowledged = 0  # highest sequence that an answer named
        self._tasks = [
            keep_running(self._run, f"publish {names.stream}"),
            keep_running(self._watch, f"publish deadlines {names.stream}"),
        ]

    @property
    def is_full(self) -> bool:
        """Whether NATS has refused a record for want of room in the last seconds."""
        return self._full_until > self._clock()

    @property
    def waiting(self) -> int:
        """Entries that are not answered."""
        return len(self._queue) + len(self._in_flight) + len(self._deciding)

    def submit(self, entries: Sequence[Append]) -> asyncio.Future[Answers]:
        """`Log.submit`."""
        size = sum([len(entry.payload) for entry in entries])
        if not self._has_room(len(entries), size):
            raise ResourceExhausted("too many appends wait for NATS", reason="LOG_BUSY", retry_after_s=0.1)
        batch = Batch(len(entries), self._loop)
        if not entries:
            batch.future.set_result([])
        deadline = self._clock() + self._settings.publish_timeout_s
        for index, entry in enumerate(entries):
            fault = fault_of(entry) or _id_fault(entry)
            if fault is not None or self._closed:
                batch.put(index, fault or LogUnavailable("the log is closed"))
                continue
            pending = Pending(next(self._numbers), entry, batch, index, deadline)
            self._bytes += pending.size
            self._queue.append(pending)
        if self._queue:
            self._idle.clear()
            self._wake.set()
        return batch.future

    async def append_many(self, entries: Sequence[Append]) -> Answers:
        """`Log.append_many`."""
        size = sum([len(entry.payload) for entry in entries])
        while not self._has_room(len(entries), size):
            self._room.clear()
            await self._room.wait()
        return await self.submit(entries)

    async def close(self) -> None:
        """Answer what waits, at the latest at its deadline, then stop."""
        self._closed = True
        await self._idle.wait()
        await stop(*self._tasks)

    def _has_room(self, count: int, size: int) -> bool:
        waiting = self.waiting
        return not waiting or (
            waiting + count <= self._settings.max_queue_records and self._bytes + size <= self._settings.max_queue_bytes
        )

    async def _run(self) -> None:
        while True:
            link = await self._connection.wait_link()
            try:
                await self._serve(link)
            except LogUnavailable:
                continue
            except FAILURES as error:
                link.drop(f"cannot publish: {error}")

    async def _serve(self, link: Link) -> None:
        """Send on one link until it is lost: first again what was on its way."""
        inbox = link.client.new_inbox() + "."
        skip = len(inbox)

        def on_answer(subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
            self._on_answer(int(subject[skip:]), data)

        await link.subscribe(inbox + "*", on_answer)
        # In the order of the calls: some may have been sent again, or were about to be, while others were not.
        unanswered = sorted([*self._in_flight.values(), *self._queue], key=_NUMBER)
        self._queue.clear()
        self._queue.extend(unanswered)
        self._in_flight.clear()
        self._bytes_in_flight = 0
        publish, prefix, limit = link.client.publish, self._names.subject_prefix, self._settings.max_in_flight
        queue, in_flight = self._queue, self._in_flight
        link.when_lost(self._wake.set)
        while not link.lost.is_set():
            while queue and len(in_flight) < limit and (not in_flight or self._bytes_in_flight < _MAX_BYTES_IN_FLIGHT):
                pending = queue.popleft()
                if pending.expected == 0 and self._prepare is not None and not pending.due:
                    self._decide(pending, self._prepare(pending.entry))
                    continue
                now = self._loop.time()
                pending.sent_at = pending.sent_at or now
                if now - pending.sent_at >= self._window_s:
                    self._answer(pending, unavailable())  # its answer was lost with the link that it was sent on
                    continue
                entry = pending.entry
                in_flight[pending.number] = pending
                self._bytes_in_flight += pending.size
                pending.due = self._clock() + _RESEND_S
                headers = {"Nats-Msg-Id": pending.key}
                if pending.expected is not None:
                    headers["Nats-Expected-Last-Subject-Sequence"] = str(pending.expected)
                await publish(
                    prefix + entry.subject,
                    frame(entry.payload, entry.message_id, entry.tombstone),
                    reply=f"{inbox}{pending.number}",
                    headers=headers,
                )
                if link.lost.is_set():
                    return
            self._wake.clear()
            if not link.lost.is_set():
                await self._wake.wait()

    def _on_answer(self, number: int, data: bytes) -> None:
        pending = self._in_flight.get(number)
        if pending is None:
            return
        if not data:  # no stream takes the subject, or not now
            self._later(pending)
            return
        if sequence := stored_at(data, self._names.stream):
            self._on_stored(pending, sequence, duplicate=False)
            return
        answer = json.loads(data)
        error = answer.get("error")
        if error is None and (answer["stream"] != self._names.stream or not answer["seq"]):
            # Somebody else's stream has taken our subjects; or, in a cluster, its like is still on its way.
            self._later(pending)
        elif error is None:
            self._on_stored(pending, answer["seq"], duplicate=answer.get("duplicate", False))
        elif error.get("err_code") in WRONG_LAST_SEQUENCE:
            self._forget(pending)
            self._decide(pending, self._settle(pending.entry, pending.key))
        elif (fault := error_of(answer)) is None:
            self._later(pending)
        else:
            if isinstance(fault, TooLarge):
                fault = TooLarge("a record", pending.size, MAX_RECORD_BYTES)
            if isinstance(fault, StorageFull):
                self._full_until = self._clock() + _FULL_S
            self._answer(pending, fault)

    def _on_stored(self, pending: Pending, sequence: int, *, duplicate: bool) -> None:
        self.acknowledged = max(self.acknowledged, sequence)
        self._full_until = 0.0
        # Without a message id a duplicate is our own second sending.
        self._answer(pending, Appended(sequence, duplicate and bool(pending.entry.message_id)))

    def _later(self, pending: Pending) -> None:
        pending.due = self._clock() + _RETRY_S

    def _forget(self, pending: Pending) -> None:
        if self._in_flight.pop(pending.number, None) is not None:
            self._bytes_in_flight -= pending.size
            if self._queue:
                self._wake.set()

    def _answer(self, pending: Pending, answer: Appended | SignpostError) -> None:
        self._forget(pending)
        self._bytes -= pending.size
        pending.batch.put(pending.index, answer)
        self._room.set()
        if not (self._in_flight or self._queue or self._deciding):
            self._idle.set()

    def _decide(self, pending: Pending, decision: Awaitable[int | Appended | SignpostError]) -> None:
        task = asyncio.create_task(self._on_decision(pending, decision))
        self._deciding[pending.number] = pending, task

    async def _on_decision(self, pending: Pending, decision: Awaitable[int | Appended | SignpostError]) -> None:
        """Send it with the sequence that was decided on, or answer it. Unavailable: decide again."""
        try:
            decided = await decision
        except LogUnavailable:
            await asyncio.sleep(_RETRY_S)
            decided = pending.expected or 0
            pending.due = 0.0
        else:
            pending.due = self._clock()
        if self._deciding.pop(pending.number, None) is None:
            return
        if isinstance(decided, SignpostError):
            self._answer(pending, decided)
        elif isinstance(decided, Appended):
            self._on_stored(pending, decided.sequence, duplicate=True)
        else:
            pending.expected = decided
            self._queue.appendleft(pending)
            self._wake.set()

    async def _watch(self) -> None:
        """Answer what is past its deadline; send again what has waited long for its answer."""
        while True:
            await asyncio.sleep(_TICK_S)
            now = self._clock()
            # The oldest are in front: an entry that is sent again goes to the front.
            while self._queue and self._queue[0].deadline <= now:
                self._answer(self._queue.popleft(), unavailable())
            if self._connection.is_linked:
                remembered = self._loop.time() - self._window_s
                again = [p for p in self._in_flight.values() if p.due <= now and p.sent_at > remembered]
                for pending in reversed(again):
                    self._forget(pending)
                    self._queue.appendleft(pending)
                if again:
                    self._wake.set()
            for pending in [p for p in self._in_flight.values() if p.deadline <= now]:
                self._answer(pending, unavailable())
            for pending, task in [d for d in self._deciding.values() if d[0].deadline <= now]:
                del self._deciding[pending.number]
                task.cancel()
                self._answer(pending, unavailable())


def _id_fault(entry: Append) -> SignpostError | None:
    if len(entry.message_id) * 4 <= MAX_MESSAGE_ID_BYTES:
        return None
    size = len(entry.message_id.encode())
    return TooLarge("a message id", size, MAX_MESSAGE_ID_BYTES) if size > MAX_MESSAGE_ID_BYTES else None
