"""Presence: which clients are connected, on any replica, with the filters that they are subscribed to.

Promises:

- A client is present while any living replica has a stream of its, and for `grace_s` after the last
  one; so a reconnect within that, and a handover from one replica to another, is neither joined nor left.
- A replica that dies takes its clients along once it has been silent for `lease_s`, but for those that
  are connected elsewhere by then. No clocks of different machines are compared.
- Every replica comes to the same table, through the state log, and tells its own subscribers.
- Streams without a client id cost nothing. Others cost a write when they come, when their filters
  change and when they have gone; writes that fall together go as one.

Each replica writes only records of its own, `presence.client.<client>.<replica>`, so there is nothing
to race for. Whoever sees a replica fall silent removes its records; one that was only slow writes its
clients again as soon as it sees that.
"""

import asyncio
import secrets
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from signpost.errors import PositionError, SignpostError
from signpost.log.base import Append, Log, Record
from signpost.log.subjects import decode_token, encode_token

from notification_service import metrics
from notification_service.topics import matches
from protos.storage.v1.storage_pb2 import PresenceRecord, ReplicaRecord

FORMAT = 1
MAX_FILTERS = 1000
WRITE_INTERVAL_S = 0.1
RETRY_S = 1.0
MAX_WRITES = 1000
BEATS_A_LEASE = 3
_CLIENT, _REPLICA, _ALL = "presence.client.", "presence.replica.", "presence.>"


class Stream(Protocol):
    """A Connect stream of a client that has a name."""

    client_id: str
    session_id: str
    connected_ns: int

    def filters(self) -> list[str]:
        """What it is subscribed to now, sorted, each once."""


class Change(NamedTuple):
    """A client joined or left, at `time_ns`, Unix nanoseconds of this replica."""

    client_id: str
    joined: bool
    time_ns: int
    filters: Sequence[str]


class Present(NamedTuple):
    """A client that is there."""

    client_id: str
    connected_ns: int
    filters: Sequence[str]


class _Entry(NamedTuple):
    """A client on a replica."""

    replica: str
    connected_ns: int
    filters: tuple[str, ...]


class _Own:
    """A client of this replica: its stream, or until when it may come back without having left."""

    __slots__ = ("connected_ns", "gone_at", "session_id", "stream", "written")

    def __init__(self, stream: Stream) -> None:
        self.stream: Stream | None = stream
        self.session_id = stream.session_id
        self.connected_ns = stream.connected_ns
        self.gone_at = 0.0
        self.written: _Entry | None = None


class Presence:
    """The table of all replicas, and this one's part in it. `run` follows, `write` and `beat` tell."""

    def __init__(
        self,
        state: Log,
        changed: Callable[[Change], None],
        *,
        grace_s: float,
        lease_s: float,
        now_s: Callable[[], float] = time.monotonic,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.replica = secrets.token_hex(6)
        self._state = state
        self._changed = changed
        self._grace_s = grace_s
        self._lease_s = lease_s
        self._now_s = now_s
        self._clock = clock
        self._table: dict[str, tuple[_Entry, ...]] = {}  # by client; one for each replica that has it
        self._names: list[str] | None = None  # the table's keys, sorted, while nobody comes or goes
        self._heard: dict[str, float] = {}  # replica -> when it gave its last sign of life
        self._own: dict[str, _Own] = {}
        self._leaving: dict[str, None] = {}  # clients of ours without a stream, the first first
        self._dirty: dict[str, None] = {}
        self._work = asyncio.Event()
        self._caught_up = asyncio.Event()

    # What the streams tell. None of it waits.

    def opened(self, stream: Stream) -> None:
        """A client's stream was welcomed; another of the same client may still be there."""
        own = self._own.get(stream.client_id)
        if own is None:
            own = self._own[stream.client_id] = _Own(stream)
        elif own.session_id != stream.session_id:
            own.session_id, own.connected_ns = stream.session_id, stream.connected_ns
        own.stream = stream
        self._leaving.pop(stream.client_id, None)
        self._touch(stream.client_id)

    def updated(self, stream: Stream) -> None:
        """A stream's filters have changed."""
        own = self._own.get(stream.client_id)
        if own is not None and own.stream is stream:
            self._touch(stream.client_id)

    def closed(self, stream: Stream) -> None:
        """A stream is over."""
        own = self._own.get(stream.client_id)
        if own is not None and own.stream is stream:
            own.stream = None
            own.gone_at = self._now_s() + self._grace_s
            self._leaving[stream.client_id] = None

    # What callers ask.

    def page(self, topic: str, after: str, limit: int) -> tuple[list[Present], bool]:
        """Clients by id, strictly after one, that match a topic (empty: all); and whether there are more."""
        if self._names is None:
            self._names = sorted(self._table)
        names = self._names
        found: list[Present] = []
        for at in range(bisect_right(names, after), len(names)):
            one = self._present(names[at])
            if not topic or any(matches(pattern, topic) for pattern in one.filters):
                if len(found) == limit:
                    return found, True
                found.append(one)
        return found, False

    async def caught_up(self) -> None:
        """Return once everything that the state log held at the start is known."""
        await self._caught_up.wait()

    # The tasks.

    async def run(self) -> None:
        """Follow the state log for ever."""
        while True:
            head = self._state.head
            self._seen(0, head)
            try:
                async for page in self._state.follow(0, subjects=_ALL, allow_gaps=True):
                    for record in page.records:
                        self._apply(record)
                    self._seen(page.through, head)
            except PositionError:  # another log: everybody tells it anew
                self._table.clear()
                self._heard.clear()
                self._names = None
                for client_id, own in self._own.items():
                    own.written = None
                    self._touch(client_id)

    async def write(self) -> None:
        """For ever: write what has changed here, once for what falls together."""
        while True:
            await self._work.wait()
            await asyncio.sleep(WRITE_INTERVAL_S)
            self._work.clear()
            while self._dirty:
                clients = list(self._dirty)[:MAX_WRITES]
                for client_id in clients:
                    del self._dirty[client_id]
                if not await self._write(clients):
                    await asyncio.sleep(RETRY_S)

    async def leave(self) -> None:
        """For ever: let go of the clients that did not come back in time."""
        tick_s = max(0.02, min(0.5, self._grace_s / 4))
        while True:
            await asyncio.sleep(tick_s)
            now = self._now_s()
            while self._leaving and self._own[client_id := next(iter(self._leaving))].gone_at <= now:
                del self._leaving[client_id]
                self._touch(client_id)

    async def beat(self) -> None:
        """For ever, while anybody is present: give a sign of life, and look who gives none."""
        interval_s = self._lease_s / BEATS_A_LEASE
        last, renewals = self._now_s(), 0
        while True:
            await asyncio.sleep(interval_s)
            if not self._table and not self._heard.keys() - {self.replica}:
                last = self._now_s()
                continue
            renewals += 1
            record = ReplicaRecord(format=FORMAT, renewals=renewals).SerializeToString()
            (answer,) = await self._append([Append(_REPLICA + self.replica, record)])
            now = self._now_s()
            if isinstance(answer, SignpostError):
                continue
            if now - last > 2 * interval_s:
                # The log was away, or we were: the others' silence proves nothing.
                self._heard = dict.fromkeys(self._heard, now)
            last = now
            await self._bury([r for r, at in self._heard.items() if r != self.replica and at + self._lease_s < now])

    def _touch(self, client_id: str) -> None:
        self._dirty[client_id] = None
        self._work.set()

    async def _write(self, clients: Sequence[str]) -> bool:
        """Tell what is so of these clients of ours; False where some of it is to be told again."""
        now = self._now_s()
        entries: list[Append] = []
        told: list[tuple[str, _Own, _Entry | None, _Entry | None]] = []
        for client_id in clients:
            own = self._own.get(client_id)
            if own is None:
                continue
            entry: _Entry | None
            if own.stream is not None:
                entry = _Entry(self.replica, own.connected_ns, tuple(own.stream.filters()[:MAX_FILTERS]))
            elif own.gone_at > now:
                continue
            else:
                entry = None
            if entry != own.written:
                told.append((client_id, own, entry, own.written))
                entries.append(self._record(client_id, entry))
                own.written = entry  # before it is in the table, so that this holds the same one
            elif entry is None:
                self._forget(client_id)
        if not entries:
            return True
        answers = await self._append(entries)
        whole = True
        for (client_id, own, entry, before), answer in zip(told, answers, strict=True):
            if isinstance(answer, SignpostError):
                if own.written is entry:
                    own.written = before
                self._touch(client_id)
                whole = False
                continue
            if own.stream is None and entry is None and self._own.get(client_id) is own:
                self._forget(client_id)
        return whole

    def _forget(self, client_id: str) -> None:
        del self._own[client_id]
        self._leaving.pop(client_id, None)

    def _record(self, client_id: str, entry: _Entry | None) -> Append:
        key = f"{_CLIENT}{encode_token(client_id)}.{self.replica}"
        if entry is None:
            return Append(key, b"", tombstone=True)
        record = PresenceRecord(format=FORMAT, connected_time_ns=entry.connected_ns, filters=entry.filters)
        return Append(key, record.SerializeToString())

    async def _append(self, entries: Sequence[Append]) -> "Sequence[object]":
        try:
            return await self._state.append_many(entries)
        except SignpostError as error:
            return [error] * len(entries)

    async def _bury(self, replicas: Sequence[str]) -> None:
        """These have been silent for too long: nobody is connected there."""
        for replica in replicas:
            del self._heard[replica]
            clients = [c for c, entries in self._table.items() if any(entry.replica == replica for entry in entries)]
            keys = [f"{_CLIENT}{encode_token(client_id)}.{replica}" for client_id in clients]
            for client_id in clients:
                self._set(client_id, replica, None)
            gone = [Append(key, b"", tombstone=True) for key in [*keys, _REPLICA + replica]]
            for at in range(0, len(gone), MAX_WRITES):
                await self._append(gone[at : at + MAX_WRITES])

    # The table.

    def _seen(self, through: int, head: int) -> None:
        if through >= head and not self._caught_up.is_set():
            self._caught_up.set()
            self._heard = dict.fromkeys(self._heard, self._now_s())

    def _apply(self, record: Record) -> None:
        if record.subject.startswith(_REPLICA):
            replica = record.subject.removeprefix(_REPLICA)
            if not record.tombstone:
                self._heard[replica] = self._now_s()
            return
        client, _, replica = record.subject.removeprefix(_CLIENT).partition(".")
        client_id = decode_token(client)
        own = self._own.get(client_id)
        if record.tombstone:
            self._set(client_id, replica, None)
            if replica == self.replica and own is not None and own.stream is not None:
                own.written = None  # we were taken for dead
                self._touch(client_id)
            return
        stored = PresenceRecord.FromString(record.payload)
        replica = sys.intern(replica)
        self._heard[replica] = self._now_s()
        entry = _Entry(replica, stored.connected_time_ns, tuple(stored.filters))
        if own is not None and own.stream is not None:
            # Of most clients there is one copy of each string: the stream's.
            client_id = own.stream.client_id
            entry = own.written if own.written == entry else entry
        self._set(client_id, replica, entry)

    def _set(self, client_id: str, replica: str, entry: _Entry | None) -> None:
        entries = self._table.get(client_id, ())
        others = tuple(other for other in entries if other.replica != replica)
        if entry is not None:
            self._table[client_id] = (*others, entry)
            if not entries:
                self._announce(client_id, joined=True, filters=entry.filters)
        elif len(others) < len(entries):
            filters = self._present(client_id).filters
            if others:
                self._table[client_id] = others
            else:
                del self._table[client_id]
                self._announce(client_id, joined=False, filters=filters)

    def _announce(self, client_id: str, *, joined: bool, filters: Sequence[str]) -> None:
        self._names = None
        metrics.PRESENT.set(len(self._table))
        if self._caught_up.is_set():
            self._changed(Change(client_id, joined, self._clock(), filters))

    def _present(self, client_id: str) -> Present:
        entries = self._table[client_id]
        filters = entries[0].filters if len(entries) == 1 else sorted({f for e in entries for f in e.filters})
        return Present(client_id, max(entry.connected_ns for entry in entries), filters)
