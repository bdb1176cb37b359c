"""Leases: one holder at a time, by compare-and-set in the state log.

Guarantees:

- Of all contenders at most one holds the lease, as long as each honours what it is told: a holder
  stops when `lost` is set, which happens by its own clock before anybody else may take over.
- No clocks of different machines are compared. A contender takes over a lease only after it has
  itself seen the record unchanged for the holder's whole time to live, by its own monotonic clock;
  at once where the log is one process's own and the holder was in a process before this one.
- `token` is the sequence of the acquiring record: it rises with each holder, so that a store that
  remembers the highest it has seen can refuse a holder that was overtaken (fencing).

The record's subject is `lease.<name>`, its payload JSON: holder, ttl_s, token (0 in the record that
acquires: its own sequence), `process` (of the holder), and `renewals` so that each renewal is another record.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import NamedTuple
from uuid import uuid4

from signpost.errors import SignpostError, StaleSequence
from signpost.log.base import Append, Log, Record
from signpost.log.subjects import encode_token

RENEW_PART = 1 / 3  # of the time to live, after which a holder renews
SAFETY_PART = 0.9  # of the time to live, after which a holder that could not renew gives up
_PROCESS = uuid4().hex


class Clock(NamedTuple):
    """Monotonic seconds, and a sleep on them."""

    now_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Held(NamedTuple):
    """A lease in hand. `token` fences; once `lost` is set it is somebody else's, or may be any moment."""

    name: str
    token: int
    lost: asyncio.Event


class _Seen(NamedTuple):
    sequence: int
    since_s: float


class Lease:
    """One contender for one lease. `ttl_s`: how long others wait for a holder that went silent; shorter
    moves work sooner after a crash, longer forgives longer pauses. `holder` is unique to this contender."""

    def __init__(self, log: Log, name: str, holder: str, *, ttl_s: float = 10.0, clock: Clock | None = None) -> None:
        self.name = name
        self.holder = holder
        self.ttl_s = ttl_s
        self.token = 0
        self._log = log
        self._subject = f"lease.{encode_token(name)}"
        self._clock = clock or Clock()
        self._seen: _Seen | None = None
        self._held = 0  # sequence of our own last record; 0: not held
        self._valid_until_s = 0.0
        self._renewals = 0

    @property
    def is_held(self) -> bool:
        """Whether it is ours, by our own clock."""
        return self._held > 0 and self._clock.now_s() < self._valid_until_s

    async def try_acquire(self) -> bool:
        """Take the lease if it is free, released, or its holder silent for its time to live; does not wait."""
        if self._held:
            return await self.renew()
        record = await self._log.last(self._subject)
        if record is not None and not record.tombstone and not self._is_silent(record):
            return False
        self._renewals = 0
        standing = 0 if record is None or record.tombstone else record.sequence
        return await self._write(standing, token=0)

    async def acquire(self) -> int:
        """Wait until it is ours; answers the fencing token."""
        while not await self.try_acquire():
            await self._clock.sleep(self.ttl_s * RENEW_PART)
        return self.token

    async def renew(self) -> bool:
        """Keep it for another time to live; False where it is not ours any more."""
        if not self._held:
            return False
        self._renewals += 1
        return await self._write(self._held, token=self.token)

    async def release(self) -> None:
        """Give it back at once; nothing where it is not ours."""
        held, self._held = self._held, 0
        if held and not await self._bury(held):
            # A renewal that nobody waited for any more may have been stored; else it is somebody else's.
            record = await self._log.last(self._subject)
            if record is not None and not record.tombstone:
                written = json.loads(record.payload)
                if (written["holder"], written["token"]) == (self.holder, self.token):
                    await self._bury(record.sequence)

    @contextlib.asynccontextmanager
    async def hold(self) -> AsyncIterator[Held]:
        """Acquire, keep renewing for the block, release. The block watches `lost` and ends when it is set."""
        token = await self.acquire()
        lost = asyncio.Event()
        renewing = asyncio.create_task(self._keep())
        renewing.add_done_callback(lambda _: lost.set())  # however it ended: nobody renews any more
        try:
            yield Held(self.name, token, lost)
        finally:
            renewing.cancel()
            try:
                await asyncio.wait((renewing,))  # not the task itself: its cancellation would hide our own
                if not renewing.cancelled():
                    renewing.result()
            finally:
                with contextlib.suppress(SignpostError):
                    await self.release()

    async def _keep(self) -> None:
        while self._held:
            # A renewal that hangs must not outlive the lease: others may have it by then.
            left_s = self._valid_until_s - self._clock.now_s()
            await self._clock.sleep(max(0.0, min(self.ttl_s * RENEW_PART, left_s)))
            if not self.is_held:
                break
            renewal = asyncio.create_task(self.renew())
            expiry = asyncio.ensure_future(self._clock.sleep(self._valid_until_s - self._clock.now_s()))
            try:
                await asyncio.wait((renewal, expiry), return_when=asyncio.FIRST_COMPLETED)
                if not renewal.done():
                    break
                with contextlib.suppress(SignpostError):  # the engine is away: try again while it is ours
                    if not renewal.result():
                        break
            finally:
                renewal.cancel()
                expiry.cancel()
                await asyncio.gather(renewal, expiry, return_exceptions=True)
        self._held = 0

    async def _bury(self, sequence: int) -> bool:
        try:
            await self._log.append(Append(self._subject, b"", expected_sequence=sequence, tombstone=True))
        except StaleSequence:
            return False
        return True

    def _is_silent(self, record: Record) -> bool:
        written = json.loads(record.payload)
        if self._log.exclusive and written.get("process") != _PROCESS:
            return True
        now_s = self._clock.now_s()
        if self._seen is None or self._seen.sequence != record.sequence:
            self._seen = _Seen(record.sequence, now_s)
        return now_s - self._seen.since_s >= float(written["ttl_s"])

    async def _write(self, expected: int, *, token: int) -> bool:
        # Counted from before the write: a contender starts to count after it.
        start_s = self._clock.now_s()
        payload = {
            "holder": self.holder,
            "process": _PROCESS,
            "ttl_s": self.ttl_s,
            "token": token,
            "renewals": self._renewals,
        }
        entry = Append(self._subject, json.dumps(payload).encode(), expected_sequence=expected)
        try:
            sequence = (await self._log.append(entry)).sequence
        except StaleSequence:
            self._held = 0
            return False
        self._held = sequence
        self.token = token or sequence
        self._valid_until_s = start_s + self.ttl_s * SAFETY_PART
        return True
