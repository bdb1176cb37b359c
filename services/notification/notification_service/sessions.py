"""Sessions: which stream speaks for a client id, on whatever replica it is.

Promises:

- The same client id with another session takes over: the older stream is ended with SESSION_FENCED,
  on this replica at once, on others as soon as they see the state log move. Which one is older is
  decided by compare-and-set there, never by clocks.
- A session that was fenced is refused, so that two programs with one client id do not evict each
  other for ever.
- The same client id with the same session is a handover: the newer stream is welcomed, then the older
  one on this replica ends with OK.
"""

import asyncio
import time
from collections.abc import Callable
from typing import NamedTuple, Protocol

from signpost.errors import PositionError, SessionFenced, SignpostError, StaleSequence
from signpost.log.base import Append, Log, Record
from signpost.log.subjects import decode_token, encode_token

from protos.storage.v1.storage_pb2 import SessionRecord

FORMAT = 1
MAX_FENCED = 16
KEEP_NS = 24 * 3600 * 1_000_000_000
SWEEP_INTERVAL_S = 3600.0
_PREFIX = "session."


class Stream(Protocol):
    """What speaks for a client: a Connect stream."""

    session_id: str

    def end(self, error: SignpostError | None) -> None:
        """End it, with an error or with OK; answers that are due go out first."""


class _Known(NamedTuple):
    session_id: str
    fenced: tuple[str, ...]
    since_ns: int
    sequence: int


def session_key(client_id: str) -> str:
    """The session's subject in the state log."""
    return _PREFIX + encode_token(client_id)


class Sessions:
    """The sessions of all replicas, and the streams of this one."""

    def __init__(self, state: Log, *, clock: Callable[[], int] = time.time_ns) -> None:
        self._state = state
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._streams: dict[str, Stream] = {}
        self._caught_up = asyncio.Event()

    async def run(self) -> None:
        """Follow the state log for ever; `caught_up` tells when the table is whole."""
        while True:
            head = self._state.head
            self._seen(0, head)
            try:
                async for page in self._state.follow(0, subjects=f"{_PREFIX}>", allow_gaps=True):
                    for record in page.records:
                        self._apply(record)
                    self._seen(page.through, head)
            except PositionError:
                self._known.clear()

    async def caught_up(self) -> None:
        """Return once everything that the state log held at the start is known."""
        await self._caught_up.wait()

    async def claim(self, client_id: str, session_id: str, stream: Stream) -> Stream | None:
        """Make a stream the client's; answers the older one of the same session, to be ended after the welcome.

        Raises SessionFenced for a session that was taken from; LogUnavailable and StorageFull as `append`.
        """
        key = session_key(client_id)
        while True:
            known = self._known.get(client_id)
            if known is not None and session_id in known.fenced:
                raise _fenced(client_id)
            if known is not None and known.session_id == session_id:
                break
            fenced = () if known is None else (known.session_id, *known.fenced)[:MAX_FENCED]
            now = self._clock()
            record = _record(session_id, fenced, now)
            try:
                expected = 0 if known is None else known.sequence
                appended = await self._state.append(Append(key, record, expected_sequence=expected))
            except StaleSequence:
                last = await self._state.last(key)
                if last is not None:
                    self._apply(last)
                continue
            claimed = _Known(session_id, fenced, now, appended.sequence)
            if self._known.get(client_id) == claimed:
                # `run` was faster: its copies of the strings go, the stream has them too.
                del self._known[client_id]
            self._learn(client_id, claimed)
        older = self._streams.get(client_id)
        self._streams[client_id] = stream
        return older

    def release(self, client_id: str, stream: Stream) -> bool:
        """The stream is over; True where no other one speaks for the client here."""
        if self._streams.get(client_id) is not stream:
            return False
        del self._streams[client_id]
        return True

    async def sweep(self) -> None:
        """Forget, for ever, sessions older than a day that have no stream here; run it hourly.

        Those that have one are kept young, or other replicas would forget whom a newer session takes over from.
        """
        now = self._clock()
        for client_id, known in list(self._known.items()):
            if client_id in self._streams:
                if known.since_ns < now - KEEP_NS // 2:
                    again = Append(
                        session_key(client_id),
                        _record(known.session_id, known.fenced, now),
                        expected_sequence=known.sequence,
                    )
                    (answer,) = await self._state.append_many([again])
                    if not isinstance(answer, SignpostError):
                        self._learn(client_id, known._replace(since_ns=now, sequence=answer.sequence))
            elif known.since_ns < now - KEEP_NS:
                gone = Append(session_key(client_id), b"", expected_sequence=known.sequence, tombstone=True)
                (answer,) = await self._state.append_many([gone])
                if not isinstance(answer, SignpostError):
                    self._known.pop(client_id, None)

    def _seen(self, through: int, head: int) -> None:
        if through >= head:
            self._caught_up.set()

    def _apply(self, record: Record) -> None:
        client_id = decode_token(record.subject.removeprefix(_PREFIX))
        if record.tombstone:
            known = self._known.get(client_id)
            if known is not None and known.sequence < record.sequence:
                del self._known[client_id]
            return
        stored = SessionRecord.FromString(record.payload)
        self._learn(
            client_id,
            _Known(stored.session_id, tuple(stored.fenced_session_ids), stored.since_time_ns, record.sequence),
        )

    def _learn(self, client_id: str, session: _Known) -> None:
        known = self._known.get(client_id)
        if known is not None and known.sequence >= session.sequence:
            return
        self._known[client_id] = session
        stream = self._streams.get(client_id)
        if stream is not None and stream.session_id != session.session_id:
            del self._streams[client_id]
            stream.end(_fenced(client_id))


def _record(session_id: str, fenced: tuple[str, ...], since_ns: int) -> bytes:
    record = SessionRecord(format=FORMAT, session_id=session_id, since_time_ns=since_ns, fenced_session_ids=fenced)
    return record.SerializeToString()


def _fenced(client_id: str) -> SessionFenced:
    return SessionFenced(f"client {client_id!r} is connected with another session", metadata={"clientId": client_id})
