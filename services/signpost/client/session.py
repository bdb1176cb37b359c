"""One Connect stream, from hello to its end: frames out, frames in, heartbeats."""

import asyncio
import logging
from collections import deque
from typing import Any, NamedTuple

import grpc

from protos.notification.v1 import notification_pb2 as npb
from signpost.client.channels import Channels
from signpost.client.errors import is_final
from signpost.client.inbox import Inbox
from signpost.client.instruments import Instruments
from signpost.client.link import Link, open_link
from signpost.client.methods import CONNECT
from signpost.client.outbox import Outbox, error_of
from signpost.client.settings import StreamSettings
from signpost.errors import Draining, Internal, SignpostError, Unavailable

_log = logging.getLogger("signpost.client")


class SizedFrame(NamedTuple):
    """A server's frame, and the bytes that its content took: asking protobuf would encode it again."""

    frame: npb.ConnectResponse
    size: int


def parse_frame(data: bytes) -> SizedFrame:
    """A frame of the wire. Its content is one field: a tag of one byte, a length, that many bytes."""
    length_bytes = 1
    while length_bytes < 5 and (len(data) - 1 - length_bytes) >> (7 * length_bytes):
        length_bytes += 1
    return SizedFrame(npb.ConnectResponse.FromString(data), max(0, len(data) - 1 - length_bytes))


ConnectLink = Link[npb.ConnectRequest, Any]


class ConnectSession:
    """A stream that has been welcomed. Reads always, so that answers and heartbeats never wait
    behind a caller; what it reads is bounded by the windows of the subscriptions.

    `moving` is set when the server drains. `ended` is done when the stream is over, with what
    ended it.
    """

    def __init__(self, link: ConnectLink, welcome: npb.Welcome, outbox: Outbox, settings: StreamSettings) -> None:
        self.link = link
        self.welcome = welcome
        self.settled = asyncio.Event()  # every subscription that was asked for has started
        self.moving = asyncio.Event()
        self.drain_deadline_s = 0.0
        interval_s = settings.heartbeat_interval_s
        if welcome.heartbeat_interval_ms:
            interval_s = min(interval_s, welcome.heartbeat_interval_ms / 1000)
        self._interval_s = interval_s
        self._outbox = outbox
        self._publishes = False
        self._control: deque[npb.ConnectRequest] = deque()
        self._inboxes: dict[str, Inbox] = {}
        self._starting: set[str] = set()
        self._asked: dict[str, int] = {}  # `subscribe` frames that have no answer yet, by name
        self._work = asyncio.Event()
        self._finishing = False
        self.ended: asyncio.Task[SignpostError] = asyncio.create_task(self._run())

    def send(self, frame: npb.ConnectRequest) -> None:
        """Queue a frame; does not wait."""
        self._control.append(frame)
        self._work.set()

    def subscribe(self, inbox: Inbox) -> None:
        """Start a subscription here, from where it is."""
        self._inboxes[inbox.name] = inbox
        self._starting.add(inbox.name)
        self._asked[inbox.name] = self._asked.get(inbox.name, 0) + 1
        self.settled.clear()
        inbox.session = self
        self.send(inbox.subscribe_frame())

    def unsubscribe(self, inbox: Inbox, *, forget_cursor: bool) -> None:
        """End a subscription here."""
        if self._inboxes.pop(inbox.name, None) is not None:
            self._started(inbox.name)
            frame = npb.UnsubscribeFrame(subscription=inbox.name, forget_cursor=forget_cursor)
            self.send(npb.ConnectRequest(unsubscribe=frame))

    def all_asked(self) -> None:
        """No subscription was asked for that has to start first."""
        if not self._starting:
            self.settled.set()

    def publish_here(self) -> None:
        """The outbox is sent on this stream from now on."""
        self._outbox.take_back()
        self._outbox.max_record_bytes = self.welcome.max_record_bytes or self._outbox.max_record_bytes
        self._outbox.wake = self._work.set
        self._publishes = True
        self._work.set()

    def publish_no_more(self) -> None:
        """Send nothing more of the outbox; the answers that are due still come."""
        self._publishes = False

    def finish(self) -> None:
        """Half-close once everything queued is out; the server then ends the stream."""
        self._finishing = True
        self._work.set()

    async def close(self) -> None:
        """End the stream now."""
        self.link.cancel()
        self.ended.cancel()
        await asyncio.gather(self.ended, return_exceptions=True)

    async def _run(self) -> SignpostError:
        tasks = [asyncio.create_task(work()) for work in (self._write, self._beat)]
        try:
            await self._read()
        except SignpostError as error:
            return error
        else:
            return Unavailable("the server ended the stream", reason="ENDED")
        finally:
            self.link.cancel()
            for inbox in self._inboxes.values():
                inbox.left(self)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _beat(self) -> None:
        number = 0
        while True:
            await asyncio.sleep(self._interval_s)
            number += 1
            self.send(npb.ConnectRequest(ping=npb.Ping(id=number)))

    async def _write(self) -> None:
        try:
            while True:
                if self._control:
                    frame = self._control.popleft()
                elif self._publishes and (
                    publish := self._outbox.next_frame((self.welcome.max_message_bytes or 1 << 22) - 1024)
                ):
                    frame = npb.ConnectRequest(publish=publish)
                elif self._finishing:
                    return await self.link.done_writing()
                else:
                    self._work.clear()
                    await self._work.wait()
                    continue
                await self.link.write(frame)
        except SignpostError:
            return  # the reader gets the same, and tells it

    async def _read(self) -> None:
        silence_s = 2 * self._interval_s
        while (sized := await self.link.read(silence_s=silence_s)) is not None:
            message = sized.frame
            kind = message.WhichOneof("frame")
            if kind == "delivery":
                inbox = self._inbox(message.delivery.subscription)
                if inbox is not None:
                    inbox.delivered(message.delivery, sized.size, self)
            elif kind == "published":
                self._outbox.answered(message.published)
            elif kind == "subscribed":
                self._subscribed(message.subscribed)
            elif kind == "ping":
                self.send(npb.ConnectRequest(pong=npb.Pong(id=message.ping.id)))
            elif kind == "gap":
                inbox = self._inbox(message.gap.subscription)
                if inbox is not None:
                    inbox.gap(message.gap)
            elif kind == "draining":
                self.drain_deadline_s = message.draining.deadline_ms / 1000
                self.moving.set()
            elif kind == "error":
                self._error(message.error)

    def _inbox(self, name: str) -> Inbox | None:
        """Whose deliveries come under a name: nobody's before its last `subscribe` is answered, for they are still
        those of a subscription of that name that has ended."""
        return None if name in self._asked else self._inboxes.get(name)

    def _answered(self, name: str) -> bool:
        """A `subscribe` is answered; False where a later one of the same name is not."""
        left = self._asked.pop(name, 1) - 1
        if left:
            self._asked[name] = left
        return not left

    def _subscribed(self, frame: npb.Subscribed) -> None:
        if self._answered(frame.subscription):
            inbox = self._inboxes.get(frame.subscription)
            if inbox is not None:
                inbox.subscribed(frame)
            self._started(frame.subscription)

    def _started(self, name: str) -> None:
        self._starting.discard(name)
        self.all_asked()

    def _error(self, frame: npb.ErrorFrame) -> None:
        error = error_of(frame.error)
        if frame.publish_id:
            self._outbox.refused(frame.publish_id, error)
        # An ack or credit that crossed the end of its subscription is nobody's loss.
        if error.reason == "SUBSCRIPTION_UNKNOWN":
            return
        asked = frame.subscription in self._asked
        if asked and not self._answered(frame.subscription):
            return
        inbox = self._inboxes.get(frame.subscription)
        if inbox is None:
            return
        if is_final(error) or isinstance(error, Internal):
            self._inboxes.pop(frame.subscription)
            self._started(frame.subscription)
            inbox.fail(error)
        elif asked:
            delay_s = error.retry_after_s or 0.5
            asyncio.get_running_loop().call_later(delay_s, self._subscribe_again, inbox)
        else:  # an ack that could not be stored: the subscription lives, and the next one says as much
            _log.warning("%s: %s", frame.subscription, error, extra={"stream": frame.subscription})

    def _subscribe_again(self, inbox: Inbox) -> None:
        if self._inboxes.get(inbox.name) is inbox and not self.ended.done():
            self.subscribe(inbox)


async def open_session(
    channels: Channels,
    hello: npb.Hello,
    outbox: Outbox,
    settings: StreamSettings,
    instruments: Instruments,
    *,
    channel: grpc.aio.Channel,
) -> ConnectSession:
    """A stream that the server has welcomed."""
    link: ConnectLink = await open_link(
        channels, CONNECT, npb.ConnectRequest(hello=hello), instruments, channel=channel, parse=parse_frame
    )
    try:
        sized = await link.read(silence_s=settings.connect_timeout_s)
        if sized is None:
            raise Unavailable("the server ended the stream before its welcome", reason="ENDED")
        first = sized.frame
        kind = first.WhichOneof("frame")
        if kind == "draining":
            raise Draining("the server is going away")
        if kind != "welcome":
            raise Internal(f"the stream began with {kind}, not with welcome")
    except BaseException:
        link.cancel()
        raise
    return ConnectSession(link, first.welcome, outbox, settings)
