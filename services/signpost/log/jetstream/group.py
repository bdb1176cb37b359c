"""Queue groups on JetStream: a durable pull consumer that every replica shares.

The server knows what is held, for how long, and how often it was tried; a process only deals what it
pulled to its members. Acknowledgements are confirmed by the server and sent again until they are.
"""

import asyncio
import contextlib
import hashlib
import json
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from nats.aio.subscription import Subscription

from signpost.errors import LogUnavailable
from signpost.log.base import Record
from signpost.log.group import MAX_FETCH_BYTES, Delivered, Group, GroupSettings
from signpost.log.jetstream import streams
from signpost.log.jetstream.connection import FAILURES, Connection, Link
from signpost.log.jetstream.streams import MAX_MESSAGE_BYTES, Names
from signpost.log.jetstream.tasks import keep_running, stop
from signpost.log.jetstream.wire import CONSUMER_NOT_FOUND, delivery_of, record_of, tries_of
from signpost.log.subjects import matcher

_MAX_HELD = 20_000  # in all members of all processes
_MAX_PULL = 256
_EXPIRES_S = 2.0
_PATIENCE_S = _EXPIRES_S + 3.0
_UNCLAIMED_PART = 0.8  # of the waiting time, after which what nobody here takes goes back
_IDLE_S = 0.5
_DRAIN_S = 1.0
_RETRY_S = 0.1
_CLOSE_S = 2.0
_INSIST_S = 60.0  # for so long the server is told; by then it is gone, or its stream is
_ACK, _NAK = b"+ACK", b"-NAK"


class _Offer(NamedTuple):
    """A record that was pulled: `reply` acknowledges it, until `deadline` it is ours."""

    record: Record
    tries: int
    reply: str
    came_at: float
    deadline: float


class JetStreamGroup(Group):
    """This process's part in a group."""

    def __init__(self, connection: Connection, names: Names, settings: GroupSettings) -> None:
        self._connection, self._names, self._settings = connection, names, settings
        self._consumer = ""
        self._skip = len(names.subject_prefix)
        self._match = matcher(settings.subjects)
        self._loop = asyncio.get_running_loop()
        self._ready: deque[_Offer] = deque()
        self._held: dict[int, tuple[object, _Offer]] = {}
        self._wanted = self._wanted_bytes = 0
        self._abandoned = False
        self._wants = asyncio.Event()
        self._news = asyncio.Event()
        self._open_request = ""
        self._missing = 0
        self._unsent: dict[str, tuple[bytes, float]] = {}  # what the server is to be told until when, by reply subject
        self._to_send = asyncio.Event()
        self._all_sent = asyncio.Event()
        self._all_sent.set()
        self._made_before = False
        self._created = ""  # when the stream was made: its identity
        self._closed = False
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> "JetStreamGroup":
        """Make the consumer, or join it, and start."""
        await self._join(self._connection.link())
        self._tasks = [
            keep_running(self._pull, f"group {self._settings.name} puller"),
            keep_running(self._send, f"group {self._settings.name} sender"),
        ]
        return self

    async def fetch(self, member: object, limit: int, max_bytes: int = MAX_FETCH_BYTES) -> list[Delivered]:
        self._wanted += limit
        self._wanted_bytes += max_bytes
        self._wants.set()
        try:
            while not self._ready and not self._closed:
                self._news.clear()
                await self._news.wait()
        except asyncio.CancelledError:
            # The member goes: what was asked for must not come here any more.
            self._abandoned = True
            self._wants.set()
            raise
        finally:
            self._wanted -= limit
            self._wanted_bytes -= max_bytes
        if self._closed:
            raise LogUnavailable("the group is closed", retry_after_s=1.0)
        # No await from here on: a cancelled fetch has taken nothing.
        taken: list[Delivered] = []
        size = 0
        while self._ready and len(taken) < limit:
            offer = self._ready[0]
            size += len(offer.record.payload)
            if taken and size > max_bytes:
                break
            self._ready.popleft()
            self._held.pop(offer.record.sequence, None)  # the order of the deadlines is the order of arrival
            # The server keeps the payload for another try.
            self._held[offer.record.sequence] = member, offer._replace(record=offer.record._replace(payload=b""))
            taken.append(Delivered(offer.record, offer.tries))
        return taken

    def ack(self, member: object, sequences: Iterable[int]) -> None:
        self._tell(member, sequences, _ACK)

    def reject(self, member: object, sequences: Iterable[int]) -> None:
        self._tell(member, sequences, _NAK)

    def release(self, member: object) -> None:
        self._tell(member, [sequence for sequence, held in self._held.items() if held[0] == member], _NAK)

    async def close(self) -> None:
        self._closed = True
        self._news.set()
        puller, sender = self._tasks
        await stop(puller)  # first, or the server deals to us again what we give back
        for offer in [*(offer for _, offer in self._held.values()), *self._ready]:
            self._say(offer, _NAK)
        self._held.clear()
        self._ready.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_S):
                await self._all_sent.wait()
        await stop(sender)

    def _tell(self, member: object, sequences: Iterable[int], what: bytes) -> None:
        now = self._loop.time()
        for sequence in sequences:
            held = self._held.get(sequence)
            if held is None or held[0] != member:
                continue
            del self._held[sequence]
            if held[1].deadline > now:
                self._say(held[1], what)

    def _say(self, offer: _Offer, what: bytes) -> None:
        self._unsent[offer.reply] = what, self._loop.time() + _INSIST_S
        self._all_sent.clear()
        self._to_send.set()

    async def _join(self, link: Link) -> None:
        """The consumer as set: made, or with its waiting time brought up to date.

        Its name is of this stream alone. An acknowledgement names its consumer and a sequence: one on its way when the
        stream was made anew would settle what stands there now, were the new stream's consumer called the same.
        """
        stream, settings = self._names.stream, self._settings
        state = await streams.state(link, stream)
        if state is None:
            raise LogUnavailable(f"stream {stream} is not there", retry_after_s=1.0)
        self._meet(state.created)
        for consumer in (self._called(), self._called(state.created)):  # the first is one of earlier releases
            found = await link.api(f"CONSUMER.INFO.{stream}.{consumer}")
            if found.get("error", {}).get("err_code") != CONSUMER_NOT_FOUND:
                break
        self._consumer = consumer
        ack_wait = int(settings.ack_wait_s * 1e9)
        if "error" not in found:
            config: dict[str, Any] = found["config"]
            if config["ack_wait"] == ack_wait:
                return
            config["ack_wait"] = ack_wait
        elif found["error"].get("err_code") == CONSUMER_NOT_FOUND:
            config = {
                "durable_name": consumer,
                "filter_subject": self._names.subject(settings.subjects),
                "ack_policy": "explicit",
                "ack_wait": ack_wait,
                "max_deliver": -1,
                "max_ack_pending": _MAX_HELD,
                "replay_policy": "instant",
                "deliver_policy": "all",
            }
            if not self._made_before:
                # One that is missing later went with its stream: the new one is dealt from its beginning.
                config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": settings.start_after + 1}
        else:
            raise LogUnavailable(f"stream {stream}: {found['error'].get('description', '')}", retry_after_s=1.0)
        request = f"CONSUMER.DURABLE.CREATE.{stream}.{consumer}"
        answer = await link.api(request, {"stream_name": stream, "config": config})
        if "error" in answer:
            raise LogUnavailable(f"stream {stream}: {answer['error'].get('description', '')}", retry_after_s=1.0)
        self._made_before = True

    def _called(self, *created: str) -> str:
        named = "\n".join([self._settings.name, self._settings.subjects, *created])
        return f"group-{hashlib.sha256(named.encode()).hexdigest()[:32]}"

    def _meet(self, created: str) -> None:
        """Forget what was dealt of another stream: under its sequences stand other records now."""
        if self._created not in {"", created}:
            self._held.clear()
            self._ready.clear()
            self._unsent.clear()
        self._created = created

    async def _pull(self) -> None:
        """Have a request open for as long as members wait."""
        while True:
            link = await self._connection.wait_link()
            subscription: Subscription | None = None
            try:
                await self._join(link)
                inbox = link.client.new_inbox()
                subscription = await link.subscribe(f"{inbox}.*", self._on_message)
                await self._pull_on(link, inbox)
            except LogUnavailable:
                await asyncio.sleep(_RETRY_S)
            finally:
                link.forget(self._wants.set)
                if subscription is not None:
                    await self._let_go(link, subscription)

    async def _let_go(self, link: Link, subscription: Subscription) -> None:
        """Withdraw the open request; return once what was on its way has come, and is given back if nobody wants it."""
        with contextlib.suppress(LogUnavailable, *FAILURES):
            async with asyncio.timeout(_DRAIN_S):
                await subscription.unsubscribe()
                # What the server sent before it took that comes before this answer.
                await link.api(f"CONSUMER.INFO.{self._names.stream}.{self._consumer}")
        link.unsubscribe_soon(subscription)
        self._open_request = ""
        self._abandoned = False
        if not self._wanted:
            while self._ready:
                self._say(self._ready.popleft(), _NAK)

    async def _pull_on(self, link: Link, inbox: str) -> None:
        """Ask again and again on one link; return on any doubt."""
        number = 0
        link.when_lost(self._wants.set)
        while not link.lost.is_set() and not self._gone():
            if not self._wanted or self._ready:
                self._wants.clear()
                await self._idle()
                continue
            number += 1
            self._missing = min(self._wanted, _MAX_PULL)
            self._open_request = f"{inbox}.{number}"
            # No more than the members can take now, but for one record, which may be of any size.
            most = max(self._wanted_bytes, MAX_MESSAGE_BYTES)
            request = {"batch": self._missing, "expires": int(_EXPIRES_S * 1e9), "max_bytes": most}
            subject = f"$JS.API.CONSUMER.MSG.NEXT.{self._names.stream}.{self._consumer}"
            await link.publish(subject, json.dumps(request).encode(), reply=self._open_request)
            give_up_at = self._loop.time() + _PATIENCE_S
            while self._open_request and not link.lost.is_set() and not self._gone():
                self._wants.clear()
                await self._idle()
                if self._loop.time() > give_up_at:
                    return

    def _gone(self) -> bool:
        """Whether whom the open request was for has gone."""
        self._abandoned = self._abandoned and not self._wanted
        return self._abandoned

    async def _idle(self) -> None:
        """Wait for something to do; give back what nobody took."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_IDLE_S):
                await self._wants.wait()
        now = self._loop.time()
        # Soon would be kinder to other processes, but each time counts as a try that no member has seen.
        unclaimed_s = self._settings.ack_wait_s * _UNCLAIMED_PART
        while self._ready and self._ready[0].came_at < now - unclaimed_s:
            self._say(self._ready.popleft(), _NAK)
        while self._held and next(iter(self._held.values()))[1].deadline < now:
            del self._held[next(iter(self._held))]  # the server gives it to another

    def _on_message(self, subject: str, reply: str, data: bytes, headers: Mapping[str, str] | None) -> None:
        if not reply.startswith("$JS.ACK."):
            if subject == self._open_request and (headers or {}).get("Status") != "100":
                self._open_request = ""
                self._wants.set()
            return
        delivery = delivery_of(reply)
        now = self._loop.time()
        record = record_of(delivery.sequence, subject[self._skip :], delivery.time_ns, data)
        offer = _Offer(record, tries_of(reply), reply, now, now + self._settings.ack_wait_s)
        if self._match(record.subject):
            self._ready.append(offer)
        else:
            self._say(offer, _ACK)  # a wildcard in the first place is narrower here than on NATS
        self._missing -= 1
        if not self._missing:
            self._open_request = ""
            self._wants.set()
        self._news.set()

    async def _send(self) -> None:
        """Tell the server what was acknowledged and given back, until it confirms or the stream is another."""
        failed = False
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            link = await self._connection.wait_link()
            told: dict[str, tuple[bytes, float]] = {}
            try:
                if failed:
                    await self._join(link)
                told = dict(self._unsent)
                if not told:
                    failed = False
                    self._all_sent.set()
                    continue
                *first, last = told
                for reply in first:
                    await link.publish(reply, told[reply][0])
                # One consumer's acknowledgements are taken in order: the answer to the last is for all.
                await link.request(last, told[last][0])
                failed = False
            except LogUnavailable:
                failed = True
                now = self._loop.time()
                told = {reply: what for reply, what in self._unsent.items() if what[1] < now}
                await asyncio.sleep(_RETRY_S)
            for reply in told:
                self._unsent.pop(reply, None)
            if self._unsent:
                self._to_send.set()
            else:
                self._all_sent.set()
