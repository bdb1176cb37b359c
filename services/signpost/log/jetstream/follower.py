"""The one follower of a log in this process: it feeds the shared tail.

It is a plain push consumer of ours, checked at every message: the consumer's count has no hole, and the
stream's sequences go on where the tail ends. On any doubt (a hole, silence, a lost link) it is thrown away, the
stream is looked at, and a new one begins after the last record that the tail has. Nothing is dropped: the
server sends no more than the flow control that we answer allows.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from nats.aio.subscription import Subscription

from signpost.errors import LogUnavailable
from signpost.log.base import Record
from signpost.log.jetstream import lookup, streams
from signpost.log.jetstream.connection import Connection, Link
from signpost.log.jetstream.settings import JetStreamSettings
from signpost.log.jetstream.streams import Names
from signpost.log.jetstream.tasks import keep_running, stop
from signpost.log.jetstream.wire import delivery_of, record_of
from signpost.log.tail import Tail

_log = logging.getLogger(__name__)
_PAUSE_S = 0.1
_MAX_BATCH = 1000
_MISSED_HEARTBEATS = 3


class Follower:
    """Feeds `tail` for as long as it runs. `verify` looks at the stream before each new beginning: it resets
    the tail where the stream is another one, or has been rewound."""

    def __init__(
        self,
        connection: Connection,
        settings: JetStreamSettings,
        names: Names,
        tail: Tail,
        verify: Callable[[Link], Awaitable[None]],
    ) -> None:
        self._connection, self._settings, self._names, self._tail, self._verify = (
            connection,
            settings,
            names,
            tail,
            verify,
        )
        self.following = asyncio.Event()
        self._run: _Run | None = None
        self._task = keep_running(self._keep_following, f"follow {names.stream}")

    def doubt(self) -> None:
        """Somebody saw something odd: look at the stream again."""
        if self._run is not None:
            self._run.doubt("asked to look again")

    async def close(self) -> None:
        """Stop."""
        await stop(self._task)

    async def _keep_following(self) -> None:
        while True:
            link = await self._connection.wait_link()
            run = _Run(link, self._settings, self._names, self._tail)
            try:
                await self._verify(link)
                await run.start()
                self._run = run
                self.following.set()
                await run.until_doubt()
                self.following.clear()
                await run.explain_hole()
            except LogUnavailable as error:
                _log.info("following %s begins again: %s", self._names.stream, error)
            finally:
                self.following.clear()
                self._run = None
                run.stop()
            await asyncio.sleep(_PAUSE_S)


class _Run:
    """One consumer, from its making to the first doubt."""

    def __init__(self, link: Link, settings: JetStreamSettings, names: Names, tail: Tail) -> None:
        self._link, self._names, self._tail = link, names, tail
        self._skip = len(names.subject_prefix)
        self._heartbeat_s = settings.heartbeat_s
        self._loop = asyncio.get_running_loop()
        self._consumer = ""
        self._consumer_sequence = 0
        self._sequence = 0  # of the last record that came
        self._hole_ends_at = 0
        self._batch: list[Record] = []
        self._heard_at = self._loop.time()
        self._doubt = asyncio.Event()
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Make the consumer, from the end of the tail on."""
        self._sequence = self._tail.head
        self._link.when_lost(self._doubt.set)
        subject = self._link.client.new_inbox()
        self._subscription = await self._link.subscribe(subject, self._on_message)
        config = {
            "deliver_subject": subject,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": self._sequence + 1,
            "ack_policy": "none",
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(self._heartbeat_s * 1e9),
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": int(10 * self._heartbeat_s * 1e9),
        }
        stream = self._names.stream
        answer = await self._link.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
        if "error" in answer:
            raise LogUnavailable(f"stream {stream}: {answer['error'].get('description', '')}", retry_after_s=1.0)
        self._consumer = answer["name"]

    async def until_doubt(self) -> None:
        """Return at the first doubt."""
        patience_s = _MISSED_HEARTBEATS * self._heartbeat_s
        while not self._doubt.is_set():
            try:
                async with asyncio.timeout(self._heartbeat_s):
                    await self._doubt.wait()
            except TimeoutError:
                if self._loop.time() - self._heard_at > patience_s:
                    self.doubt(f"silent for {patience_s} s")

    async def explain_hole(self) -> None:
        """Records that were deleted one by one leave a hole that stays: go on behind it.

        Where retention has taken them, the next look at the stream says so.
        """
        if not self._hole_ends_at or self._tail.head != self._sequence:
            return
        state = await streams.state(self._link, self._names.stream)
        if state is None or state.first > self._sequence + 1:
            return
        record = await lookup.first_after(self._link, self._names, self._names.stream, self._sequence)
        if record is not None and self._tail.head == self._sequence:
            self._tail.extend((), record.sequence - 1)

    def stop(self) -> None:
        """Let the consumer go."""
        self._link.forget(self._doubt.set)
        if self._subscription is not None:
            self._link.unsubscribe_soon(self._subscription)
        if self._consumer and not self._link.lost.is_set():
            self._link.send_soon(f"$JS.API.CONSUMER.DELETE.{self._names.stream}.{self._consumer}")

    def doubt(self, why: str) -> None:
        """End this run."""
        if not self._doubt.is_set():
            _log.info("the follower of %s is in doubt: %s", self._names.stream, why)
            self._doubt.set()

    def _on_message(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        if self._doubt.is_set():
            return
        self._heard_at = self._loop.time()
        if not reply.startswith("$JS.ACK."):
            self._on_control(reply, headers or {})
            return
        delivery = delivery_of(reply)
        if delivery.consumer_sequence != self._consumer_sequence + 1:
            self.doubt(f"message {self._consumer_sequence + 1} is missing")
            return
        self._consumer_sequence += 1
        if delivery.sequence != self._sequence + 1:
            self._hole_ends_at = delivery.sequence
            self._flush()
            self.doubt(f"record {self._sequence + 1} is missing")
            return
        self._sequence = delivery.sequence
        if not self._batch:
            self._loop.call_soon(self._flush)
        self._batch.append(record_of(delivery.sequence, subject[self._skip :], delivery.time_ns, data))
        if len(self._batch) >= _MAX_BATCH:
            self._flush()

    def _on_control(self, reply: str, headers: Mapping[str, str]) -> None:
        """Flow control is answered after what came before it was taken; a heartbeat says what should have come."""
        if reply:
            self._link.send_soon(reply)
        elif stalled := headers.get("Nats-Consumer-Stalled"):
            self._link.send_soon(stalled)
        elif (count := headers.get("Nats-Last-Consumer")) and int(count) != self._consumer_sequence:
            self.doubt(f"the server has sent {count} messages, {self._consumer_sequence} came")

    def _flush(self) -> None:
        """Hand on what has come, if the tail still ends where this run believes."""
        batch, self._batch = self._batch, []
        if not batch:
            return
        if self._tail.head == batch[0].sequence - 1:
            self._tail.extend(batch, batch[-1].sequence)
        else:
            self.doubt("the tail has moved")
