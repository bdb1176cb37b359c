"""Reading what is no longer in memory: a few pull consumers a log, used again by whoever reads on.

A cursor that stands where a reader goes on is taken from the pool; so a replay is one consumer from its
beginning to its end, however many pages it takes. What is asked for is bounded in records and bytes, so
nothing arrives that was not asked for.
"""

import asyncio
import json
from collections import deque
from collections.abc import Mapping
from typing import NamedTuple

from nats.aio.subscription import Subscription

from signpost.errors import LogUnavailable
from signpost.log.base import Record
from signpost.log.jetstream.connection import Link
from signpost.log.jetstream.streams import MAX_MESSAGE_BYTES, Names
from signpost.log.jetstream.wire import delivery_of, record_of

_MAX_OPEN = 8
_IDLE_S = 10.0
_FORGOTTEN_S = 60  # the server drops a consumer that nobody asks for this long
_PULL_RECORDS = 1000
_PULL_BYTES = max(2 * 1024 * 1024, MAX_MESSAGE_BYTES)


class Chunk(NamedTuple):
    """Records in order; `at_end`: the stream had no more that match when it was asked."""

    records: list[Record]
    at_end: bool


class Cursor:
    """One pull consumer. `position` is the sequence after which the next record is to come."""

    def __init__(
        self, link: Link, names: Names, *, stream: str, pattern: str | None, after: int, silence_s: float
    ) -> None:
        self.stream, self.pattern, self.position = stream, pattern, after
        self.used_at = 0.0
        self._link, self._names, self._silence_s = link, names, silence_s
        self._name = ""
        self._received: deque[Record] = deque()
        self._received_bytes = 0
        self._consumer_sequence = 0
        self._inbox = link.client.new_inbox()
        self._subscription: Subscription | None = None
        self._requests = 0
        self._open = ""  # the reply subject of the request that is open
        self._missing = 0
        self._at_end = False
        self._broken = ""
        self._news = asyncio.Event()

    @property
    def is_usable(self) -> bool:
        """Whether it may be read on."""
        return not self._broken and not self._link.lost.is_set()

    async def open(self) -> "Cursor":
        """Make the consumer."""
        config = {
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self.position + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _FORGOTTEN_S * 1_000_000_000,
        }
        if self.pattern is not None:
            config["filter_subject"] = self._names.subject(self.pattern)
        self._link.when_lost(self._news.set)
        answer = await self._link.api(f"CONSUMER.CREATE.{self.stream}", {"stream_name": self.stream, "config": config})
        if "error" in answer:
            raise LogUnavailable(f"stream {self.stream}: {answer['error'].get('description', '')}", retry_after_s=1.0)
        self._name = answer["name"]
        self._subscription = await self._link.subscribe(f"{self._inbox}.*", self._on_message)
        return self

    def close(self) -> None:
        """Let the consumer go."""
        self._link.forget(self._news.set)
        if self._subscription is not None:
            self._link.unsubscribe_soon(self._subscription)
            self._subscription = None
        if self._name and not self._link.lost.is_set():
            self._link.send_soon(f"$JS.API.CONSUMER.DELETE.{self.stream}.{self._name}")
            self._name = ""

    async def fetch(self, limit: int, max_bytes: int) -> Chunk:
        """Up to `limit` records and about `max_bytes` of payload; none only at the end."""
        records: list[Record] = []
        size = 0
        self._at_end = False
        while True:
            while self._received and len(records) < limit:
                size += len(self._received[0].payload)
                if records and size > max_bytes:
                    return Chunk(records, False)
                records.append(self._received.popleft())
                self._received_bytes -= len(records[-1].payload)
                self.position = records[-1].sequence
            if len(records) >= limit:
                return Chunk(records, False)
            if self._at_end:
                return Chunk(records, True)
            if not self._open:
                await self.ask(min(limit, _PULL_RECORDS))
            await self._wait()

    async def ask(self, count: int = _PULL_RECORDS) -> None:
        """Have the server send more, unless it is doing so or enough is here."""
        if self._open or len(self._received) >= _PULL_RECORDS or self._received_bytes >= _PULL_BYTES:
            return
        self._requests += 1
        self._open = f"{self._inbox}.{self._requests}"
        self._missing = count
        request = {"batch": count, "no_wait": True, "max_bytes": _PULL_BYTES}
        await self._link.publish(
            f"$JS.API.CONSUMER.MSG.NEXT.{self.stream}.{self._name}", json.dumps(request).encode(), reply=self._open
        )

    async def _wait(self) -> None:
        self._news.clear()
        if self._received or self._at_end:
            return
        try:
            if self.is_usable:
                async with asyncio.timeout(self._silence_s):
                    await self._news.wait()
        except TimeoutError:
            self._broken = "no answer"
        if not self.is_usable:
            raise LogUnavailable(f"stream {self.stream}: reading broke off: {self._broken}", retry_after_s=0.5)

    def _on_message(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        if reply.startswith("$JS.ACK."):
            delivery = delivery_of(reply)
            self._consumer_sequence += 1
            if delivery.consumer_sequence != self._consumer_sequence:
                self._broken = "a message was lost"
            elif delivery.sequence <= self.position:
                self._broken = "a replica lags behind"  # the server began at its end, not where it was told to
            else:
                subject = subject[len(self._names.subject_prefix) :]
                self._received.append(record_of(delivery.sequence, subject, delivery.time_ns, data))
                self._received_bytes += len(self._received[-1].payload)
            self._missing -= 1
            if not self._missing:
                self._open = ""
        elif subject == self._open:
            status = (headers or {}).get("Status", "")
            description = (headers or {}).get("Description", "")
            if status in ("404", "408"):
                self._at_end = True
            elif status != "409" or "MaxBytes" not in description:
                self._broken = f"{status} {description}"
            self._open = ""
        self._news.set()


class Cursors:
    """One log's cursors: at most 8 at work, the others wait; idle ones are kept for those who read on."""

    def __init__(self, names: Names, silence_s: float) -> None:
        self._names, self._silence_s = names, silence_s
        self._idle: list[Cursor] = []
        self._gate = asyncio.Semaphore(_MAX_OPEN)

    async def fetch(
        self, link: Link, stream: str, pattern: str | None, after: int, *, limit: int, max_bytes: int
    ) -> Chunk:
        """The next records of a stream after a sequence. Raises LogUnavailable where reading breaks off."""
        async with self._gate:
            cursor = self._take(stream, pattern, after)
            reads_on = cursor is not None
            if cursor is None:
                cursor = Cursor(
                    link, self._names, stream=stream, pattern=pattern, after=after, silence_s=self._silence_s
                )
            try:
                if not reads_on:
                    await cursor.open()
                chunk = await cursor.fetch(limit, max_bytes)
                if chunk.at_end:
                    cursor.close()
                else:
                    if reads_on:
                        await cursor.ask()
                    self._keep(cursor)
            except BaseException:
                cursor.close()
                raise
            return chunk

    def close(self) -> None:
        """Let go of all."""
        for cursor in self._idle:
            cursor.close()
        self._idle.clear()

    def _take(self, stream: str, pattern: str | None, after: int) -> Cursor | None:
        oldest = asyncio.get_running_loop().time() - _IDLE_S
        kept: list[Cursor] = []
        taken: Cursor | None = None
        for cursor in self._idle:
            if not cursor.is_usable or cursor.used_at < oldest:
                cursor.close()
            elif taken is None and (cursor.stream, cursor.pattern, cursor.position) == (stream, pattern, after):
                taken = cursor
            else:
                kept.append(cursor)
        self._idle = kept
        return taken

    def _keep(self, cursor: Cursor) -> None:
        cursor.used_at = asyncio.get_running_loop().time()
        self._idle.append(cursor)
        if len(self._idle) > _MAX_OPEN:
            self._idle.pop(0).close()
