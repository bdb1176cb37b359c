"""Fan-out, latency and publishing of the notification service, durable log included.

(a) fan-out of 64-byte payloads, beside raw grpcio's joined fan-out and nats-server's without a log;
(b) publish to deliver at 1,000/s to 100 subscribers, beside one round of raw grpcio's ping-pong;
(c) acknowledged publishes, one and many in flight, from one client and from a hundred.
"""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from typing import Any

from protos.notification.v1 import notification_pb2 as pb
from tests.bench import floor_fanout
from tests.bench.harness import Row, Stopwatch
from tests.bench.notification_load import (
    END,
    Publisher,
    all_of,
    channels,
    count_to_end,
    decode_to_end,
    service,
    subscribers,
)

LISTENERS = 100
IN_FLIGHT = 60
"""Frames of a hundred that wait for their answer: nats-server's publisher waits for none."""
LIMIT_S = 5.0
"""A run of acknowledged publishes sends no more after this: it ends on the busiest machine too."""


async def rows(repeats: int) -> AsyncIterator[Row]:
    """All rows."""
    for count, messages in ((100, 20_000), (1_000, 6_000)):
        async for row in _fan_out(count, messages, repeats):
            yield row
    async for row in _latency(repeats):
        yield row
    for clients, per_frame, in_flight, frames in (
        (1, 1, 1, 300),
        (1, 1, 100, 3_000),
        (1, 100, 20, 1_000),
        (100, 1, 1, 30),
        (100, 100, 4, 20),
    ):
        rates = [await _publishes(clients, per_frame, in_flight, frames) for _ in range(repeats)]
        name = f"publishes: {clients} clients, {per_frame} a frame, {in_flight} frames in flight"
        yield Row(name, statistics.median(rates), "publishes/s")


async def _fan_out(count: int, messages: int, repeats: int) -> AsyncIterator[Row]:
    figures: dict[str, list[float]] = {}

    def note(**values: float) -> None:
        for key, value in values.items():
            figures.setdefault(key, []).append(value)

    for _ in range(repeats):
        rate, size = await floor_fanout.fan_out(count, messages)
        note(floor_rate=rate, floor_bytes=size, nats=await floor_fanout.nats_fan_out(count, messages))
        rate, size = await _deliver(count, messages, count_to_end)
        decoded, _ = await _deliver(count, messages // 4, decode_to_end)
        note(rate=rate, bytes=size, decoded=decoded)
    median = {key: statistics.median(values) for key, values in figures.items()}
    yield Row(f"fan-out to {count}: deliveries", median["rate"], "1/s", median["floor_rate"])
    yield Row(f"fan-out to {count}: bytes", median["bytes"], "B/s", median["floor_bytes"])
    yield Row(f"fan-out to {count}: bytes, beside nats-server's", median["bytes"], "B/s", median["nats"])
    yield Row(f"fan-out to {count}: deliveries, decoded by Python clients", median["decoded"], "1/s")


async def _deliver(count: int, messages: int, read: Any) -> tuple[float, float]:
    """Deliveries and bytes a second from the first publish to the last delivery."""
    async with service() as process, channels(process.target, count) as made:
        calls = await subscribers(made, count, "bench.t")
        publisher = await Publisher(made[0]).hello()
        frames = publisher.frames("bench.t", messages, 100)
        watch = Stopwatch()
        _, *read_totals = await all_of(publisher.send(frames, IN_FLIGHT), *map(read, calls))
        seconds = watch.elapsed_s
        for call in (*calls, publisher):
            call.cancel()
        return count * messages / seconds, sum(read_totals) / seconds


async def _latency(repeats: int) -> AsyncIterator[Row]:
    p50: list[float] = []
    p99: list[float] = []
    floor: list[float] = []
    for _ in range(repeats):
        floor.append(await floor_fanout.ping_pong())
        waits = sorted(await latencies())
        p50.append(waits[len(waits) // 2])
        p99.append(waits[len(waits) * 99 // 100])
    name = f"publish to deliver at 1,000/s to {LISTENERS}"
    yield Row(f"{name}: p50", statistics.median(p50), "ms", statistics.median(floor))
    yield Row(f"{name}: p99", statistics.median(p99), "ms", statistics.median(floor))


async def latencies(seconds: float = 3.0, rate: int = 1_000) -> list[float]:
    """Milliseconds from publish to delivery at every subscriber."""
    async with service() as process, channels(process.target, LISTENERS) as made:
        calls = await subscribers(made, LISTENERS, "bench.t")
        waits: list[float] = []

        async def read(call: Any) -> None:
            while True:
                message = await call.read()
                now = time.perf_counter_ns()
                for notification in pb.SubscribeResponse.FromString(message).delivery.notifications:
                    if notification.payload == END:
                        return
                    waits.append((now - int.from_bytes(notification.payload[:8], "big")) / 1e6)

        reading = [asyncio.ensure_future(read(call)) for call in calls]
        publisher = await Publisher(made[-1]).hello()
        await publisher.at_rate("bench.t", rate, seconds)
        await asyncio.gather(*reading)
        for call in (*calls, publisher):
            call.cancel()
        return waits


async def _publishes(clients: int, per_frame: int, in_flight: int, frames: int) -> float:
    """Acknowledged publishes a second while `LISTENERS` subscribers listen."""
    async with (
        service() as process,
        channels(process.target, LISTENERS) as made,
        channels(process.target, clients) as theirs,
    ):
        calls = await subscribers(made, LISTENERS, "bench.>")
        readers = [asyncio.ensure_future(_read_on(call)) for call in calls]
        publishers = [await Publisher(theirs[n % len(theirs)]).hello() for n in range(clients)]
        work = [p.frames(f"bench.{n}", frames * per_frame, per_frame, end=False) for n, p in enumerate(publishers)]
        watch = Stopwatch()
        answered = await asyncio.gather(
            *(p.send(made_, in_flight, limit_s=LIMIT_S) for p, made_ in zip(publishers, work, strict=True))
        )
        rate = watch.rate(sum(answered) * per_frame)
        for reader in readers:
            reader.cancel()
        for call in (*calls, *publishers):
            call.cancel()
        return rate


async def _read_on(call: Any) -> None:
    while True:
        await call.read()
