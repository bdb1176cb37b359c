"""What the notification benchmarks are made of: a service, subscribers that count, a publisher that packs."""

import asyncio
import itertools
import math
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc

from protos.notification.v1 import notification_pb2 as pb
from tests.bench.harness import Stopwatch
from tests.support.services import ServiceProcess, running

OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1)]
STOPPED = [*OWN_CONNECTION, ("grpc.http2.lookahead_bytes", 65_536), ("grpc.http2.bdp_probe", 0)]
"""A client that takes about 128 KB that nobody reads: by default it is 4 to 12 MB, and nothing ever stops."""
PER_CONNECTION = 50
METHOD = "/notification.v1.NotificationService/"
PAYLOAD = b"x" * 64
END = b"END!" * 16


@asynccontextmanager
async def service(*args: str, log: str | None = None) -> AsyncIterator[ServiceProcess]:
    """The notification service in a process, on SQLite in a directory of its own."""
    with tempfile.TemporaryDirectory() as directory:
        async with running("notification_service", Path(directory), args=args, log=log) as process:
            yield process


@asynccontextmanager
async def channels(target: str, streams: int) -> AsyncIterator[list[Any]]:
    """Channels with a connection each, enough for so many streams."""
    made: list[Any] = [
        grpc.aio.insecure_channel(target, options=OWN_CONNECTION) for _ in range(max(1, streams // PER_CONNECTION))
    ]
    try:
        yield made
    finally:
        await asyncio.gather(*(channel.close() for channel in made))


async def subscribe(channel: Any, pattern: str, start: pb.Start | None = None) -> Any:
    """A Subscribe call whose messages are raw bytes, once it has started."""
    request = pb.SubscribeRequest(filter=pattern, start=start).SerializeToString()
    call = channel.unary_stream(METHOD + "Subscribe")(request)
    await call.read()
    return call


async def subscribers(made: Sequence[Any], count: int, pattern: str) -> list[Any]:
    """So many of them, spread over the channels."""
    return list(await asyncio.gather(*(subscribe(made[n % len(made)], pattern) for n in range(count))))


async def count_to_end(call: Any) -> int:
    """Read up to the record that says so; answers the bytes received."""
    total = 0
    while True:
        message = await call.read()
        total += len(message)
        if END in message:
            return total


async def decode_to_end(call: Any) -> int:
    """As `count_to_end`, but every record is decoded and its payload looked at; answers how many."""
    total = 0
    while True:
        for notification in pb.SubscribeResponse.FromString(await call.read()).delivery.notifications:
            total += 1
            if notification.payload == END:
                return total


async def waits_to_end(call: Any) -> list[float]:
    """Milliseconds from publish to delivery of what `Publisher.at_rate` sends, up to its end."""
    waits: list[float] = []
    while True:
        message = await call.read()
        now = time.perf_counter_ns()
        for notification in pb.SubscribeResponse.FromString(message).delivery.notifications:
            if notification.payload == END:
                return waits
            waits.append((now - int.from_bytes(notification.payload[:8], "big")) / 1e6)


@asynccontextmanager
async def stopped_subscriber(target: str, pattern: str) -> AsyncIterator[None]:
    """A subscriber that reads nothing once it has started."""
    async with grpc.aio.insecure_channel(target, options=STOPPED) as channel:
        call = await subscribe(channel, pattern)
        try:
            yield
        finally:
            call.cancel()


class Publisher:
    """One Connect stream that publishes frames, so many in flight."""

    def __init__(self, channel: Any) -> None:
        self._call = channel.stream_stream(METHOD + "Connect")()
        self._ids = itertools.count(1)

    async def hello(self) -> "Publisher":
        await self._call.write(pb.ConnectRequest(hello=pb.Hello()).SerializeToString())
        await self._call.read()
        return self

    def frames(self, topic: str, records: int, per_frame: int, *, end: bool = True) -> list[bytes]:
        """Encoded beforehand: what is measured is the service. The last record says that it is the last."""
        made = []
        for at in range(0, records, per_frame):
            items = [pb.Publication(topic=topic, payload=PAYLOAD) for _ in range(min(per_frame, records - at))]
            if end and at + per_frame >= records:
                items[-1].payload = END
            frame = pb.PublishFrame(id=next(self._ids), publications=items)
            made.append(pb.ConnectRequest(publish=frame).SerializeToString())
        return made

    async def send(self, frames: Sequence[bytes], in_flight: int, *, limit_s: float = math.inf) -> int:
        """Send all, or what there is time for; answers how many frames were answered."""
        watch = Stopwatch()
        sent = answered = 0
        for frame in frames:
            if watch.elapsed_s > limit_s:
                break
            if sent - answered == in_flight:
                await self._call.read()
                answered += 1
            await self._call.write(frame)
            sent += 1
        for _ in range(sent - answered):
            await self._call.read()
        return sent

    async def at_rate(self, topic: str, rate: int, seconds: float) -> None:
        """Publish so many a second, each with the time of its publish in its payload, then the end."""
        started = time.perf_counter()
        count = int(rate * seconds)
        answers = asyncio.ensure_future(self._answers(count + 1))
        for number in range(count):
            due = started + number / rate
            if (pause_s := due - time.perf_counter()) > 0:
                await asyncio.sleep(pause_s)
            payload = time.perf_counter_ns().to_bytes(8, "big") + PAYLOAD[8:]
            await self._publish(topic, payload)
        await self._publish(topic, END)
        await answers

    async def _answers(self, count: int) -> None:
        for _ in range(count):
            await self._call.read()

    async def _publish(self, topic: str, payload: bytes) -> None:
        frame = pb.PublishFrame(id=next(self._ids), publications=[pb.Publication(topic=topic, payload=payload)])
        await self._call.write(pb.ConnectRequest(publish=frame).SerializeToString())

    def cancel(self) -> None:
        self._call.cancel()


async def all_of(*work: Awaitable[Any]) -> list[Any]:
    """Everything at once, in a task each."""
    return list(await asyncio.gather(*work))


def rss_kb(pid: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4.0


def cpu_s(pid: int) -> float:
    """Processor time that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100
