"""A client that comes back, in the fewest lines: what it received is contiguous, what it published is there once."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.stream import NEW, OWN_CONNECTION, Stream, after

BROKEN = (grpc.aio.AioRpcError, EOFError, AssertionError, asyncio.InvalidStateError)


class Resuming:
    """Keeps one subscription over any number of streams, each on a connection of its own.

    The position moves with the delivery; the next stream starts strictly after it. Each delivery is checked
    against the one before: the intervals touch, whatever happened in between.
    """

    def __init__(
        self, target: str | Callable[[], str], pattern: str, *, start: pb.Start = NEW, client: str = ""
    ) -> None:
        self._target = target if callable(target) else lambda: target
        self._pattern, self._start, self._client = pattern, start, client
        self._through: int | None = None
        self.records: list[pb.Notification] = []
        self.gaps: list[pb.Gap] = []
        self.streams = 0
        self.subscribed = asyncio.Event()
        self.reasons: list[str] = []
        self.draining = asyncio.Event()

    async def run(self) -> None:
        """For ever: connect, subscribe from where we are, read."""
        while True:
            try:
                await self._once()
            except BROKEN as error:
                code = error.code().name if isinstance(error, grpc.aio.AioRpcError) else type(error).__name__
                self.reasons.append(code)
                await asyncio.sleep(0.02)

    async def _once(self) -> None:
        async with (
            grpc.aio.insecure_channel(self._target(), options=OWN_CONNECTION) as channel,
            Stream(channel) as stream,
        ):
            self.streams += 1
            await stream.hello(self._client, "s" if self._client else "")
            answer = await stream.subscribe(self._pattern, self._start)
            assert answer.HasField("subscribed"), answer
            if self._through is None:
                self._start = after(answer.subscribed.position.token)
            self.subscribed.set()
            while True:
                self._frame(await stream.next())

    def _frame(self, frame: pb.ConnectResponse) -> None:
        if frame.HasField("gap"):
            self.gaps.append(frame.gap)
            self._through = None
        elif frame.HasField("draining"):
            self.draining.set()
            raise EOFError
        elif frame.HasField("delivery"):
            delivery = frame.delivery
            assert self._through in (None, delivery.after), "the intervals touch"
            self._through, self._start = delivery.through, after(delivery.position.token)
            self.records += delivery.notifications

    @property
    def payloads(self) -> list[bytes]:
        return [n.payload for n in self.records]

    async def until(self, count: int, timeout_s: float = 30.0) -> None:
        """Return once so many records are there."""
        try:
            async with asyncio.timeout(timeout_s):
                while len(self.records) < count:  # noqa: ASYNC110 - frames set no event
                    await asyncio.sleep(0.01)
        except TimeoutError:
            raise AssertionError(
                f"{len(self.records)} of {count} records; {self.streams} streams; {self.reasons[-9:]}"
            ) from None


@contextlib.asynccontextmanager
async def resuming(
    target: str | Callable[[], str], pattern: str, *, start: pb.Start = NEW, client: str = ""
) -> AsyncIterator[Resuming]:
    """A client that has subscribed, and keeps at it until the end of the block."""
    made = Resuming(target, pattern, start=start, client=client)
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(20):
            await made.subscribed.wait()
        yield made
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def publish_all(
    target: str | Callable[[], str], items: list[pb.Publication], *, frame: int = 20, client: str = "publisher"
) -> list[int]:
    """Publish everything, in order, over any number of streams: what is not answered is sent again.

    Answers the sequences. Every publication needs a message id.
    """
    where = target if callable(target) else lambda: target
    sequences: dict[str, int] = {}
    while pending := [item for item in items if item.message_id not in sequences]:
        try:
            async with (
                grpc.aio.insecure_channel(where(), options=OWN_CONNECTION) as channel,
                Stream(channel) as stream,
            ):
                await stream.hello(client, "s")
                for at in range(0, len(pending), frame):
                    batch = pending[at : at + frame]
                    published = await stream.publish(*batch)
                    for item, result in zip(batch, published.results, strict=True):
                        if result.sequence:
                            sequences[item.message_id] = result.sequence
        except BROKEN:
            await asyncio.sleep(0.02)
    return [sequences[item.message_id] for item in items]


def numbered(topic: str, count: int, *, prefix: str = "m", size: int = 0) -> list[pb.Publication]:
    """Publications with message ids and rising payloads."""
    return [
        pb.Publication(topic=topic, message_id=f"{prefix}{n}", payload=b"%d" % n + b"." * size) for n in range(count)
    ]
