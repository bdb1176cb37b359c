"""The client of the notification service."""

import asyncio
import logging
import weakref
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from uuid import uuid4

import grpc

from protos.notification.v1 import notification_pb2 as npb
from signpost.client import methods
from signpost.client.channels import Channels, TokenSource
from signpost.client.connection import Connection
from signpost.client.errors import CLOSED
from signpost.client.inbox import Inbox, OnGap, start_at
from signpost.client.instruments import Instruments, NoInstruments
from signpost.client.notifications import Presence, Published, Start, Topic, Unsent
from signpost.client.outbox import Outbox, OutboxStatistics
from signpost.client.positions import Position, PositionStore
from signpost.client.reconnect import Reconnector
from signpost.client.retry import Retry
from signpost.client.settings import ClientSettings
from signpost.client.states import StateChange, Status
from signpost.client.subscription import AckMode, Subscription
from signpost.errors import DeadlineExceeded, SignpostError, Unavailable

_log = logging.getLogger("signpost.client")

DEFAULT_TARGET = "localhost:50052"


class NotificationClient:
    """Publishes and subscribes, all on one stream that comes back by itself.

    Everything it raises is a SignpostError (and ValueError for an argument that cannot be sent).
    The stream opens with the first publish or subscription. The same client id with another
    session ends this one for good: SessionFenced. Use it as an async context manager; leaving it
    sends what the outbox holds, within its time, and ends everything.
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        client_id: str = "",
        session_id: str = "",
        credentials: grpc.ChannelCredentials | None = None,
        token: str | TokenSource | None = None,
        settings: ClientSettings | None = None,
        instruments: Instruments | None = None,
        on_state: Callable[[StateChange], None] | None = None,
    ) -> None:
        """`client_id` names the client for presence, durable cursors and fencing; empty: none of these.
        `session_id`: random unless given. The others as of FeatureClient.
        """
        self.settings = settings or ClientSettings()
        self.client_id = client_id
        self.session_id = session_id or (uuid4().hex if client_id else "")
        self.unsent: tuple[Unsent, ...] = ()
        self.status = Status("connect", on_state)
        self._instruments = instruments or NoInstruments()
        self._channels = Channels(
            target, methods.NOTIFICATION_SERVICE, self.settings.channel, credentials=credentials, token=token
        )
        self._retry = Retry(self._channels, self.settings.retry, self.settings.backoff, instruments=self._instruments)
        self._reconnector = Reconnector(
            self._channels,
            self.status,
            backoff=self.settings.backoff,
            settings=self.settings.stream,
            instruments=self._instruments,
        )
        self._outbox = Outbox(self.settings.outbox)
        self._inboxes: dict[str, Inbox] = {}
        self._subscriptions: weakref.WeakSet[Subscription] = weakref.WeakSet()
        self._connection = Connection(self._hello(), self._reconnector, self._outbox, self._inboxes, on_end=self._fail)
        self._loading: set[asyncio.Task[None]] = set()
        self._failure: SignpostError | None = None
        self._prefix = uuid4().hex[:20]
        self._published = 0
        self._named = 0

    async def __aenter__(self) -> "NotificationClient":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    def _hello(self) -> npb.Hello:
        interval_ms = round(self.settings.stream.heartbeat_interval_s * 1000)
        return npb.Hello(
            client_id=self.client_id,
            session_id=self.session_id,
            protocol_features=["credit", "groups"],
            heartbeat_interval_ms=min(3_600_000, max(1000, interval_ms)),
        )

    @property
    def outbox(self) -> OutboxStatistics:
        """What is published and not answered yet."""
        return self._outbox.statistics

    # Publishing

    async def publish(
        self,
        topic: str,
        payload: bytes | str = b"",
        *,
        message_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        ttl_s: float | None = None,
        traceparent: str = "",
        timeout_s: float | None = None,
    ) -> Published:
        """Publish, and return once it is as durable as the server promises.

        While the server is away it waits in the outbox, and while that is full for room there.
        `message_id` makes repeats of your own recognised; by default each publish has a new one, so
        that the library's own repeats are. `ttl_s`: not delivered after that long. `timeout_s`:
        raise DeadlineExceeded by then (None: no bound); whether it was stored is not known then.
        """
        publication = self._publication(
            topic, payload, message_id=message_id, attributes=attributes, ttl_s=ttl_s, traceparent=traceparent
        )
        try:
            async with asyncio.timeout(timeout_s):
                answer = await self._outbox.put(publication)
                return await answer
        except TimeoutError:
            raise DeadlineExceeded(f"{topic}: no answer within {timeout_s} s") from None

    def publish_nowait(
        self,
        topic: str,
        payload: bytes | str = b"",
        *,
        message_id: str | None = None,
        attributes: Mapping[str, str] | None = None,
        ttl_s: float | None = None,
        traceparent: str = "",
    ) -> "asyncio.Future[Published]":
        """Publish without waiting: the future is the answer. Raises OutboxFull where there is no room.

        Cancelling the future takes back what has not been sent.
        """
        publication = self._publication(
            topic, payload, message_id=message_id, attributes=attributes, ttl_s=ttl_s, traceparent=traceparent
        )
        return self._outbox.put_nowait(publication)

    def _publication(
        self,
        topic: str,
        payload: bytes | str,
        *,
        message_id: str | None,
        attributes: Mapping[str, str] | None,
        ttl_s: float | None,
        traceparent: str,
    ) -> npb.Publication:
        self._ensure_running()
        if message_id is None:
            self._published += 1
            message_id = f"{self._prefix}-{self._published}"
        return npb.Publication(
            topic=topic,
            message_id=message_id,
            payload=payload.encode() if isinstance(payload, str) else payload,
            attributes=attributes,
            ttl_ms=0 if ttl_s is None else max(1, round(ttl_s * 1000)),
            traceparent=traceparent or self._instruments.traceparent(),
        )

    async def flush(self) -> None:
        """Return once everything published so far is answered."""
        await self._outbox.flush()

    # Subscribing

    def subscribe(
        self,
        filter: str,
        *,
        start: Start | None = None,
        durable: str = "",
        group: str = "",
        ack: AckMode = "auto",
        on_gap: OnGap = "raise",
        window_bytes: int | None = None,
        ack_wait_s: float = 0.0,
        max_deliveries: int = 0,
        max_in_flight: int = 0,
        position: Position | None = None,
        position_store: PositionStore | None = None,
        name: str = "",
    ) -> Subscription:
        """Subscribe to the topics that match a filter (`*` one token, `>` the rest).

        start: see `Start`; default `cursor` for a durable subscription, otherwise `new`. durable:
        the name of a cursor that the server keeps for this client id. group: share the records
        with the other subscribers of the group, each to one of them; ack_wait_s (0: 30),
        max_deliveries (0: 5) and max_in_flight (0: 256) are the group's. on_gap: see `OnGap`.
        position: go on strictly after it (the same as `start=position`). position_store: keeps
        the position under `name`, and starts from there where it has one.
        """
        self._ensure_running()
        self._named += 1
        frame = npb.SubscribeFrame(
            subscription=durable or name or f"s{self._named}",
            filter=filter,
            window_bytes=window_bytes or self.settings.stream.window_bytes,
            durable=bool(durable),
            group=group,
            ack_wait_ms=round(ack_wait_s * 1000),
            max_deliveries=max_deliveries,
            max_in_flight=max_in_flight,
        )
        if frame.subscription in self._inboxes:
            raise ValueError(f"there is a subscription {frame.subscription!r} already")
        if position_store is not None and not (name or durable):
            raise ValueError("a position store needs the subscription's name")
        # One label for all that have no name: each would be a series more for as long as the process lives.
        inbox = Inbox(frame, on_gap, self._instruments, durable or name or group or "unnamed")
        start_at(inbox, position if position is not None else start)
        self._inboxes[inbox.name] = inbox
        subscription = Subscription(self, inbox, ack=ack, store=position_store)
        self._subscriptions.add(subscription)
        if position_store is not None:
            inbox.held = True
            loading = asyncio.create_task(self._start_stored(inbox, position_store))
            self._loading.add(loading)
            loading.add_done_callback(self._loading.discard)
        else:
            self._start(inbox)
        return subscription

    async def _start_stored(self, inbox: Inbox, store: PositionStore) -> None:
        try:
            position = await store.load(inbox.name)
        except Exception as error:  # whatever a store of the caller's raises: nobody may wait for ever
            inbox.fail(SignpostError(f"the position store: {error}", reason="POSITION_STORE"))
            return
        inbox.held = False
        if position is not None:
            start_at(inbox, position)
        self._start(inbox)

    def _start(self, inbox: Inbox) -> None:
        session = self._connection.session
        if session is not None and self._inboxes.get(inbox.name) is inbox:
            session.subscribe(inbox)

    def send(self, frame: npb.ConnectRequest) -> None:
        """For subscriptions: queue a frame on the current stream, if there is one."""
        if self._connection.session is not None:
            self._connection.session.send(frame)

    def drop(self, inbox: Inbox, *, forget_cursor: bool = False) -> None:
        """For subscriptions: end one."""
        self._inboxes.pop(inbox.name, None)
        if self._connection.session is not None:
            self._connection.session.unsubscribe(inbox, forget_cursor=forget_cursor)

    # Asking

    async def topics(self, filter: str = "", *, page_size: int = 0) -> AsyncIterator[Topic]:
        """The topics that have records, by name. filter "": all but the system's."""
        request = npb.ListTopicsRequest(filter=filter, page_size=page_size)
        while True:
            page = await self._retry.call(methods.LIST_TOPICS, request)
            for t in page.topics:
                yield Topic(t.name, t.first_sequence, t.last_sequence, t.records, t.subscribers)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def presence(self, topic: str = "", *, page_size: int = 0) -> AsyncIterator[Presence]:
        """Who is connected, by client id. topic: only those whose subscriptions match it."""
        request = npb.ListPresenceRequest(topic=topic, page_size=page_size)
        while True:
            page = await self._retry.call(methods.LIST_PRESENCE, request)
            for c in page.clients:
                yield Presence(c.client_id, c.connected_time_ns, tuple(c.filters))
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    # The end

    def _ensure_running(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._connection.start()

    def _fail(self, error: SignpostError) -> None:
        self._failure = error
        self._reconnector.close(None if error.reason == CLOSED else error)
        for inbox in self._inboxes.values():
            inbox.fail(error)
        self.unsent += tuple(self._outbox.close(error))

    async def close(self, *, flush_timeout_s: float | None = None) -> tuple[Unsent, ...]:
        """Send what the outbox holds, within `flush_timeout_s`, then end everything. What could not be
        sent; also in `unsent`, and logged. Safe to repeat. Raises SignpostError / POSITION_STORE, once everything
        has ended, where a position cannot be saved."""
        timeout_s = self.settings.outbox.flush_timeout_s if flush_timeout_s is None else flush_timeout_s
        unsaved: SignpostError | None = None
        for subscription in list(self._subscriptions):
            try:
                await subscription.aclose()
            except SignpostError as error:
                unsaved = error
        try:
            async with asyncio.timeout(timeout_s):
                await self._outbox.flush()
        except TimeoutError:
            _log.warning("%d publishes were not sent", self._outbox.statistics.messages, extra={"stream": "connect"})
        for task in self._loading:
            task.cancel()
        await asyncio.gather(*self._loading, return_exceptions=True)
        await self._connection.close(min(1.0, timeout_s))
        if self._failure is None:
            self._fail(Unavailable("the client is closed", reason=CLOSED))
        await self._channels.close()
        if unsaved is not None:
            raise unsaved
        return self.unsent
