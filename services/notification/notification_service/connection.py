"""One Connect stream: its frames, in the order in which they come.

`serve_connect` is a stream's life, and its only task while it is idle; the outbox writes. A frame that is
wrong by itself is answered by an `error` frame and the stream lives; what ends the stream is raised, and
becomes its status.

Presence hears at `Registry` who said hello and which subscriptions there are (`opened`, `closed`,
`subscribed`, `unsubscribed`). A subscription with a group is a `Member`, one without a `Subscription`.
"""

import asyncio
import secrets
import time
from typing import Any

import grpc
from signpost.errors import (
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    SignpostError,
    Violation,
)
from signpost.log.base import MAX_RECORD_BYTES
from signpost.server.context import EOF

from notification_service import metrics
from notification_service.codec import field
from notification_service.cursors import Cursor, cursor_key
from notification_service.groups import member_settings
from notification_service.member import Member
from notification_service.outbox import Outbox
from notification_service.publisher import Publisher
from notification_service.publishing import MAX_ID_BYTES, error_message
from notification_service.registry import Registry
from notification_service.starting import check_window, find_place, snapshot_frames
from notification_service.subscription import CONNECT_WIRE, Subscription, gap_frame
from notification_service.topics import check_filter, shown
from protos.notification.v1 import notification_pb2 as pb

PROTOCOL_FEATURES = ("credit", "durable", "groups", "last_of_each", "presence")
MAX_HEARTBEAT_MS = 3_600_000
_check_filter = check_filter.__wrapped__
"""Without its cache, which would hold the filter of every idle stream: a stream asks once for each of its own."""
MAX_ECHO = 64 * 1024
WIND_UP_S = 5.0
"""How long the answers that are due at the end of a stream may take."""


class Connection:
    """A Connect stream from its first frame to its end."""

    __slots__ = (
        "_cursors",
        "_failure",
        "_publisher",
        "_registry",
        "_task",
        "client_id",
        "connected_ns",
        "draining",
        "ended",
        "heartbeat_s",
        "last_heard",
        "named",
        "outbox",
        "pinged",
        "principal",
        "session_id",
        "subscriptions",
    )

    def __init__(self, registry: Registry, context: "grpc.aio.ServicerContext[Any, Any]", principal: str = "") -> None:
        self._registry = registry
        self._task = asyncio.current_task()
        self.ended = False
        self._failure: SignpostError | None = None
        self._cursors: dict[str, Cursor] | None = None
        self._publisher: Publisher | None = None
        self.outbox = Outbox(context, self)
        self.subscriptions: dict[str, Subscription | Member] = {}
        self.principal = principal
        self.client_id = ""
        self.session_id = ""
        self.named = False
        self.connected_ns = 0
        self.heartbeat_s = registry.settings.heartbeat_s
        self.last_heard = time.monotonic()
        self.pinged = False
        self.draining = False

    async def wind_up(self) -> None:
        """No more deliveries; what is due goes out, as far as the client reads it. Raises what ended the stream."""
        self._task = None  # nothing cuts this short: gRPC sends no status for a handler that we have cancelled
        for subscription in self.subscriptions.values():
            subscription.close()
        try:
            async with asyncio.timeout(WIND_UP_S):
                await self.outbox.flushed()
        except TimeoutError:
            pass
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Let go of everything; cursors are written in the background."""
        self._registry.remove(self)
        for subscription in self.subscriptions.values():
            subscription.close()
        self.outbox.close()
        if self._cursors is not None:
            for cursor in self._cursors.values():
                self._registry.spawn(cursor.close())

    def end(self, error: SignpostError | None) -> None:
        """End the stream from outside its handler; None: as if the client had closed its side."""
        if not self.ended:
            self.ended = True
            self._failure = error
            if self._task is not None:
                self._task.cancel()

    def filters(self) -> list[str]:
        """What it is subscribed to now, sorted, each once."""
        return sorted({subscription.pattern for subscription in self.subscriptions.values()})

    def drain(self, deadline_s: float) -> None:
        """Ask the client to move."""
        if not self.draining:
            self.draining = True
            frame = pb.Draining(deadline_ms=round(deadline_s * 1000)).SerializeToString()
            self.outbox.put(field(6, frame))

    def ping(self) -> None:
        """Ask for a sign of life."""
        self.pinged = True
        self.outbox.put(field(7, pb.Ping(id=1).SerializeToString()))

    async def frame(self, request: pb.ConnectRequest) -> None:
        """Do what a frame asks; what is wrong with it alone is answered. Raises what ends the stream."""
        self.last_heard = time.monotonic()
        self.pinged = False
        if not self.connected_ns:
            if (kind := request.WhichOneof("frame")) != "hello":
                came = f"`{kind}`" if kind else "a frame that this server does not know"
                raise InvalidArgument.of("hello", f"must be the first frame, in place of {came}", "HELLO_EXPECTED")
            await self._hello(request.hello)
            return
        match request.WhichOneof("frame"):
            case "publish":
                if self._publisher is None:
                    self._publisher = Publisher(self._registry, self.outbox, self.principal)
                try:
                    await self._publisher.publish(request.publish)
                except SignpostError as error:
                    self.refuse(error, publish_id=request.publish.id)
            case "ack":
                self._guard(self._ack, request.ack, request.ack.subscription)
            case "credit":
                self._guard(self._credit, request.credit, request.credit.subscription)
            case "ping":
                self.outbox.put(field(8, pb.Pong(id=request.ping.id).SerializeToString()) or b"\x42\x00")
            case "pong":
                pass
            case "subscribe":
                try:
                    await self._subscribe(request.subscribe)
                except SignpostError as error:
                    self.refuse(error, subscription=request.subscribe.subscription)
            case "unsubscribe":
                try:
                    await self._unsubscribe(request.unsubscribe)
                except SignpostError as error:
                    self.refuse(error, subscription=request.unsubscribe.subscription)
            case "hello":
                self.refuse(InvalidArgument.of("hello", "must come first, and once", "HELLO_REPEATED"))
            case _:
                self.refuse(InvalidArgument.of("frame", "must be one that this server knows", "FRAME_UNKNOWN"))

    async def _hello(self, hello: pb.Hello) -> None:
        violations = _hello_violations(hello)
        if violations:
            raise InvalidArgument("`hello` is wrong", violations=violations)
        registry = self._registry
        if hello.heartbeat_interval_ms:
            self.heartbeat_s = min(self.heartbeat_s, hello.heartbeat_interval_ms / 1000)
        self.client_id = hello.client_id or secrets.token_hex(8)
        self.named = bool(hello.client_id)
        self.session_id = hello.session_id or secrets.token_hex(8)
        older = None
        if self.named:
            # Each look at a field of `hello` makes a string anew: one copy serves all tables.
            self.principal = self.principal or self.client_id
            older = await registry.sessions.claim(self.client_id, self.session_id, self)
        self.connected_ns = registry.clock()
        hub = registry.hub
        welcome = pb.Welcome(
            client_id=self.client_id,
            session_id=self.session_id,
            protocol_features=PROTOCOL_FEATURES,
            heartbeat_interval_ms=round(registry.settings.heartbeat_s * 1000),
            max_message_bytes=registry.settings.max_message_bytes,
            max_record_bytes=MAX_RECORD_BYTES,
            max_subscriptions=registry.settings.max_subscriptions,
            head=pb.Position(token=hub.position),
        )
        self.outbox.put(field(1, welcome.SerializeToString()))
        if older is not None:
            older.end(None)
        registry.opened(self)

    async def _subscribe(self, frame: pb.SubscribeFrame) -> None:
        registry, hub = self._registry, self._registry.hub
        name, settings = frame.subscription, registry.settings
        if not 1 <= len(name.encode()) <= MAX_ID_BYTES:
            raise InvalidArgument.of("subscription", f"must be 1 to {MAX_ID_BYTES} bytes")
        if name in self.subscriptions:
            raise InvalidArgument.of(
                "subscription", f"must be a new name: {name!r} is there already", "SUBSCRIPTION_EXISTS"
            )
        if len(self.subscriptions) >= settings.max_subscriptions:
            raise ResourceExhausted(
                f"a stream holds at most {settings.max_subscriptions} subscriptions", reason="TOO_MANY_SUBSCRIPTIONS"
            )
        pattern = _check_filter(frame.filter)
        window = check_window("window_bytes", frame.window_bytes) if frame.HasField("window_bytes") else None
        if frame.group:
            await self._join(frame, pattern, window)
            return
        cursor = await self._open_cursor(name) if frame.durable else None
        place = await find_place(hub, frame.start, cursor)
        subscription = registry.presence_events.subscription(
            hub, self.outbox, CONNECT_WIRE, name, pattern, window=window
        )
        begin = place
        if place.snapshot:
            begin, frames = await snapshot_frames(hub, CONNECT_WIRE, name, pattern, place, window=window)
            subscription.prepend(frames)
        if cursor is not None:
            await cursor.begin(begin.position, begin.sequence)
            self._cursors = {**(self._cursors or {}), name: cursor}
        started = pb.Subscribed(subscription=name, position=pb.Position(token=begin.position))
        self.outbox.put(field(2, started.SerializeToString()))
        if place.lost is not None:
            metrics.GAPS.inc()
            self.outbox.put(gap_frame(CONNECT_WIRE, name, *place.lost))
        self.subscriptions[name] = subscription
        registry.subscribed(self, subscription)
        subscription.begin(place.sequence, place.position)

    async def _join(self, frame: pb.SubscribeFrame, pattern: str, window: int | None) -> None:
        """Subscribe as a member of a queue group: where that is new it starts where the frame says."""
        registry, name = self._registry, frame.subscription
        wanted = member_settings(frame)
        place = await find_place(registry.hub, frame.start, None)
        member = Member(
            registry.hub,
            self.outbox,
            name,
            pattern,
            groups=registry.groups,
            settings=wanted,
            window=window,
            spawn=registry.spawn,
        )
        await member.join(place.sequence)
        started = pb.Subscribed(subscription=name, position=pb.Position(token=place.position))
        self.outbox.put(field(2, started.SerializeToString()))
        self.subscriptions[name] = member
        registry.subscribed(self, member)
        member.begin()

    async def _open_cursor(self, name: str) -> Cursor:
        if not self.named:
            raise InvalidArgument.of("durable", "needs a client id in `hello`")
        registry = self._registry
        key = cursor_key(self.client_id, name)
        return await Cursor.open(
            registry.state, registry.hub.log, key, lambda error: self.refuse(error, subscription=name)
        )

    async def _unsubscribe(self, frame: pb.UnsubscribeFrame) -> None:
        subscription = self._find(frame.subscription)
        del self.subscriptions[frame.subscription]
        subscription.close()
        self._registry.unsubscribed(self, subscription)
        cursor = self._cursors.pop(frame.subscription, None) if self._cursors else None
        if cursor is not None:
            await (cursor.forget() if frame.forget_cursor else cursor.close())

    def _ack(self, frame: pb.AckFrame) -> None:
        subscription = self._find(frame.subscription)
        if isinstance(subscription, Member):
            subscription.ack(frame)
            return
        cursor = self._cursors.get(frame.subscription) if self._cursors else None
        if cursor is None:
            raise InvalidArgument.of("subscription", "is neither durable nor of a group")
        if not frame.HasField("through"):
            raise InvalidArgument.of("through", "is needed for a durable subscription")
        cursor.ack(frame.through)

    def _credit(self, frame: pb.CreditFrame) -> None:
        self._find(frame.subscription).credit(check_window("bytes", frame.bytes))

    def _guard(self, handle: Any, frame: Any, subscription: str) -> None:
        try:
            handle(frame)
        except SignpostError as error:
            self.refuse(error, subscription=subscription)

    def _find(self, name: str) -> Subscription | Member:
        try:
            return self.subscriptions[name]
        except KeyError:
            raise NotFound(f"no subscription {shown(name)} on this stream", reason="SUBSCRIPTION_UNKNOWN") from None

    def refuse(self, error: SignpostError, *, subscription: str = "", publish_id: int = 0) -> None:
        """Answer with an `error` frame."""
        if len(subscription) > MAX_ECHO:
            subscription = ""  # no name, and with the text of the error more than a message holds
        frame = pb.ErrorFrame(subscription=subscription, publish_id=publish_id, error=error_message(error))
        self.outbox.put(field(9, frame.SerializeToString()))


async def serve_connect(registry: Registry, requests: object, context: "grpc.aio.ServicerContext[Any, Any]") -> None:
    """One Connect stream, from its first frame to its end. Flat: each call on the stack costs every idle stream."""
    connection = Connection(registry, context)
    registry.add(connection)
    try:
        try:
            while True:
                try:
                    request = await context.read()
                except SignpostError as error:
                    connection.refuse(error)
                else:
                    if request is EOF:
                        break
                    await connection.frame(request)
                    del request  # a stream that waits holds no message
                await connection.outbox.room()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not connection.ended or task is None:
                raise
            task.uncancel()
        await connection.wind_up()
    finally:
        connection.close()


def _hello_violations(hello: pb.Hello) -> list[Violation]:
    found = []
    if len(hello.client_id.encode()) > MAX_ID_BYTES:
        found.append(Violation("client_id", f"must be at most {MAX_ID_BYTES} bytes"))
    if len(hello.session_id.encode()) > MAX_ID_BYTES or (hello.client_id and not hello.session_id):
        found.append(Violation("session_id", f"must be 1 to {MAX_ID_BYTES} bytes with a client id"))
    interval = hello.heartbeat_interval_ms
    if interval and not 1000 <= interval <= MAX_HEARTBEAT_MS:
        found.append(Violation("heartbeat_interval_ms", f"must be 1000 to {MAX_HEARTBEAT_MS}, or 0"))
    return found
