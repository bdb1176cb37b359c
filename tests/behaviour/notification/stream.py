"""A Connect stream over plain stubs: what any client in any language does, frame by frame."""

import asyncio
import itertools
from collections.abc import Iterable
from types import TracebackType
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from protos.notification.v1 import notification_pb2 as pb
from protos.notification.v1.notification_pb2_grpc import NotificationServiceStub

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.initial_reconnect_backoff_ms", 50)]
NEW = pb.Start(new=pb.StartNew())
EARLIEST = pb.Start(earliest=pb.StartEarliest())
CURSOR = pb.Start(cursor=pb.StartCursor())
LAST_OF_EACH = pb.Start(last_of_each=pb.StartLastOfEach())


def after(token: bytes) -> pb.Start:
    return pb.Start(after=pb.Position(token=token))


def stub_of(channel: grpc.aio.Channel) -> Any:
    """The generated stub, whose types leave out what may be left out."""
    return NotificationServiceStub(channel)


class Stream:
    """One Connect call. Pings are answered while it reads; `frames` holds what `read` passed over."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.channel = channel
        self.stub = stub_of(channel)
        self.call: Any = self.stub.Connect()
        self.frames: list[pb.ConnectResponse] = []
        self._ids = itertools.count(1)

    async def __aenter__(self) -> "Stream":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.call.cancel()

    async def send(self, **frame: Any) -> None:
        await self.call.write(pb.ConnectRequest(**frame))

    async def hello(self, client: str = "", session: str = "", **fields: Any) -> pb.Welcome:
        await self.send(hello=pb.Hello(client_id=client, session_id=session, **fields))
        frame = await self.read("welcome")
        return frame.welcome

    async def subscribe(
        self, pattern: str, start: pb.Start = NEW, *, name: str = "s", **fields: Any
    ) -> pb.ConnectResponse:
        """Subscribe; answers the `subscribed` or the `error` frame."""
        await self.send(subscribe=pb.SubscribeFrame(subscription=name, filter=pattern, start=start, **fields))
        return await self.read("subscribed", "error")

    async def publish(self, *items: pb.Publication, **fields: Any) -> pb.Published:
        """Publish a frame and wait for its answer."""
        frame_id = next(self._ids)
        await self.send(publish=pb.PublishFrame(id=frame_id, publications=items, **fields))
        frame = await self.read("published")
        assert frame.published.id == frame_id
        return frame.published

    async def read(self, *kinds: str, timeout_s: float = 10.0) -> pb.ConnectResponse:
        """The next frame of one of the kinds; others are kept in `frames`."""
        for index, kept in enumerate(self.frames):
            if kept.WhichOneof("frame") in kinds:
                return self.frames.pop(index)
        while True:
            frame = await self.next(timeout_s)
            if frame.WhichOneof("frame") in kinds:
                return frame
            self.frames.append(frame)

    async def next(self, timeout_s: float = 10.0) -> pb.ConnectResponse:
        """The next frame of any kind but `ping`. A time limit that passes ends the call."""
        while True:
            try:
                async with asyncio.timeout(timeout_s):
                    frame: Any = await self.call.read()
            except TimeoutError:
                raise AssertionError(f"no frame within {timeout_s} s") from None
            if frame is grpc.aio.EOF:  # type: ignore[attr-defined] # the stubs lack it
                raise EOFError
            if frame.WhichOneof("frame") != "ping":
                response: pb.ConnectResponse = frame
                return response
            await self.send(pong=pb.Pong(id=frame.ping.id))

    async def records(self, count: int) -> list[pb.Notification]:
        """The next records of all subscriptions, at least so many; progress is passed over."""
        found: list[pb.Notification] = []
        while len(found) < count:
            found += (await self.read("delivery")).delivery.notifications
        return found


def notes(topic: str, payloads: Iterable[bytes | str]) -> list[pb.Publication]:
    """Publications of one topic."""
    return [pb.Publication(topic=topic, payload=p.encode() if isinstance(p, str) else p) for p in payloads]


def reason_of(error: grpc.aio.AioRpcError) -> str:
    """The reason in a status's ErrorInfo."""
    info = error_details_pb2.ErrorInfo()
    return str(info.reason) if any(detail.Unpack(info) for detail in _details_of(error)) else ""


def violations_of(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """What a status's BadRequest says of each field."""
    bad = error_details_pb2.BadRequest()
    named = bad.field_violations if any(detail.Unpack(bad) for detail in _details_of(error)) else ()
    return {violation.field: violation.description for violation in named}


def _details_of(error: grpc.aio.AioRpcError) -> list[Any]:
    metadata: Any = error.trailing_metadata() or ()
    packed = next((value for key, value in metadata if key == "grpc-status-details-bin"), b"")
    return list(status_pb2.Status.FromString(packed).details)
