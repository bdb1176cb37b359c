"""What it costs to be many: one that stops reading, many topics, many subscriptions, many idle streams.

(e) p99 of the others while one subscriber has stopped, in turns with their p99 while all read; (f) processor
time a publish as topics grow from 10 to 100,000 and subscriptions from 10 to 10,000; memory of an idle
stream, beside raw grpcio's.
"""

import asyncio
import statistics
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from protos.notification.v1 import notification_pb2 as pb
from tests.bench import floor_fanout
from tests.bench.harness import Row
from tests.bench.notification_load import (
    METHOD,
    PAYLOAD,
    PER_CONNECTION,
    Publisher,
    all_of,
    channels,
    cpu_s,
    rss_kb,
    service,
    stopped_subscriber,
    subscribers,
    waits_to_end,
)
from tests.bench.plot import Series, plot
from tests.support.metrics_text import Samples
from tests.support.services import ServiceProcess

IDLE_STREAMS = {1: 2_000, 100: 10_000}
"""By streams a connection: ten thousand connections would measure how fast one client opens them."""
PUBLISHES = 20_000
LISTENERS = 100
RATES = (100, 200, 400)
"""Publishes a second that two cores carry to 100 subscribers with time to spare: at saturation p99 is noise."""
TURN_S, TURNS = 1.0, 3
"""Many short turns: a pause of the machine spoils the p99 of the turn that it falls into, and no other."""
FLOOD = 40_000
"""Records that fill a stopped client's window and then, four times over, what the service holds for it."""
SETTLE_S = 0.2
"""More than a delivery round takes, and than a cancelled stream takes to be gone."""
SIZES = (10, 100, 1_000, 10_000, 100_000)
DOCS = Path(__file__).parents[2] / "docs"


async def rows(repeats: int) -> AsyncIterator[Row]:
    """All rows."""
    alone: list[float] = []
    beside: list[float] = []
    for rate in RATES:
        floor, ours = await stopped_reader(rate, repeats * TURNS)
        alone.append(floor)
        beside.append(ours)
        yield Row(f"p99 of {LISTENERS} subscribers at {rate}/s while one has stopped", ours, "ms", floor)
    lines = [Series("all read, ms", alone), Series("one more has stopped, ms", beside)]
    title = f"p99 from publish to deliver, {LISTENERS} subscribers, by publishes a second"
    (DOCS / "notification-stopped-reader.svg").write_text(plot(title, RATES, lines))
    by_topics: list[float] = []
    by_subscriptions: list[float] = []
    first: float | None = None
    for topics in SIZES:
        cost = statistics.median([await cost_of_topics(topics) for _ in range(repeats)])
        by_topics.append(cost)
        first = first or cost
        yield Row(f"a publish over {topics} topics to 10 wildcard subscriptions", cost, "us cpu", first)
    first = None
    for count in SIZES[:-1]:
        cost = statistics.median([await cost_of_subscriptions(count) for _ in range(repeats)])
        by_subscriptions.append(cost)
        first = first or cost
        yield Row(f"a publish that one of {count} subscriptions matches", cost, "us cpu", first)
    lines = [Series("by topics, µs", by_topics), Series("by subscriptions, µs", by_subscriptions)]
    title = "Processor time of a publish, as topics and subscriptions grow"
    (DOCS / "notification-growth.svg").write_text(plot(title, SIZES, lines))
    for per_connection in (1, 100):
        floor = statistics.median([await _idle_floor(per_connection) for _ in range(repeats)])
        for named in (False, True):
            ours = statistics.median([await _idle(per_connection, named) for _ in range(repeats)])
            name = "an idle subscribed stream with client id and presence" if named else "an idle subscribed stream"
            yield Row(f"{name}, {per_connection} a connection", ours, "KB", floor)


def _p99(waits: list[float]) -> float:
    return sorted(waits)[len(waits) * 99 // 100]


async def stopped_reader(rate: int, turns: int) -> tuple[float, float]:
    """Median p99, in milliseconds, of turns in which all subscribers read, and of those in which one more has stopped.

    Each turn begins with a flood that nobody else hears. Raises RuntimeError where the one that reads nothing kept
    up all the same.
    """
    alone: list[float] = []
    beside: list[float] = []
    async with service() as process, channels(process.target, LISTENERS) as made:
        calls = await subscribers(made, LISTENERS, "bench.t")
        publisher = await Publisher(made[-1]).hello()
        for _ in range(turns):
            await _flood(publisher)
            alone.append(await _turn(publisher, calls, rate))
            fallen = await _fallen_behind(process)
            async with stopped_subscriber(process.target, "bench.*"):
                await _flood(publisher)
                if await _fallen_behind(process) == fallen:
                    raise RuntimeError("the subscriber that reads nothing has not fallen behind")
                beside.append(await _turn(publisher, calls, rate))
        for call in (*calls, publisher):
            call.cancel()
    return statistics.median(alone), statistics.median(beside)


async def _flood(publisher: Publisher) -> None:
    await publisher.send(publisher.frames("bench.flood", FLOOD, 1_000), 20)
    await asyncio.sleep(SETTLE_S)


async def _turn(publisher: Publisher, calls: list[Any], rate: int) -> float:
    _, *waits = await all_of(publisher.at_rate("bench.t", rate, TURN_S), *map(waits_to_end, calls))
    return _p99([wait for each in waits for wait in each])


async def _fallen_behind(process: ServiceProcess) -> float:
    return Samples(await process.metrics()).value("signpost_notification_fallen_behind_total")


async def cost_of_topics(topics: int) -> float:
    """Microseconds of the service's processor time a publish, spread over so many topics."""
    async with service() as process, channels(process.target, 1) as (channel,):
        publisher = await _subscribed(channel, [f"bench.*.{n}" for n in range(10)])
        names = [f"bench.{n}.{n % 10}" for n in range(topics)]
        return await _cost(process.pid, publisher, [names[n * 7 % topics] for n in range(PUBLISHES)])


async def cost_of_subscriptions(count: int) -> float:
    """Microseconds of the service's processor time a publish while so many others subscribe to other topics."""
    async with service("--max-subscriptions=100000") as process, channels(process.target, 1) as (channel,):
        publisher = await _subscribed(channel, [f"bench.{n}.x" for n in range(count)])
        return await _cost(process.pid, publisher, [f"bench.{n % 10}.x" for n in range(PUBLISHES)])


async def _subscribed(channel: Any, patterns: list[str]) -> Any:
    call = channel.stream_stream(METHOD + "Connect")()
    await call.write(pb.ConnectRequest(hello=pb.Hello()).SerializeToString())
    await call.read()
    for number, pattern in enumerate(patterns):
        frame = pb.SubscribeFrame(subscription=str(number), filter=pattern)
        await call.write(pb.ConnectRequest(subscribe=frame).SerializeToString())
        await call.read()
    return call


async def _cost(pid: int, call: Any, topics: list[str]) -> float:
    frames = []
    for at in range(0, len(topics), 100):
        items = [pb.Publication(topic=topic, payload=PAYLOAD) for topic in topics[at : at + 100]]
        frame = pb.PublishFrame(id=at + 1, publications=items)
        frames.append(pb.ConnectRequest(publish=frame).SerializeToString())
    before = cpu_s(pid)
    writing = asyncio.ensure_future(_write(call, frames))
    answered = 0
    while answered < len(frames):
        answered += pb.ConnectResponse.FromString(await call.read()).HasField("published")
    await writing
    call.cancel()
    return (cpu_s(pid) - before) / len(topics) * 1e6


async def _write(call: Any, frames: list[bytes]) -> None:
    for frame in frames:
        await call.write(frame)


async def _idle(per_connection: int, named: bool) -> float:
    """KB a stream that has said hello and subscribed to a topic of its own."""
    async with (
        service() as process,
        channels(process.target, IDLE_STREAMS[per_connection] // per_connection * PER_CONNECTION) as made,
    ):

        async def opened(number: int) -> Any:
            call = made[number % len(made)].stream_stream(METHOD + "Connect")()
            hello = pb.Hello(client_id=f"c{number}", session_id="s") if named else pb.Hello()
            await call.write(pb.ConnectRequest(hello=hello).SerializeToString())
            await call.read()
            frame = pb.SubscribeFrame(subscription="s", filter=f"user.{number}")
            await call.write(pb.ConnectRequest(subscribe=frame).SerializeToString())
            await call.read()
            return call

        before = rss_kb(process.pid)
        calls = await _in_groups(opened, IDLE_STREAMS[per_connection])
        cost = (rss_kb(process.pid) - before) / len(calls)
        for call in calls:
            call.cancel()
        return cost


async def _idle_floor(per_connection: int) -> float:
    async with (
        floor_fanout.server() as (address, pid),
        channels(address, IDLE_STREAMS[per_connection] // per_connection * PER_CONNECTION) as made,
    ):

        async def opened(number: int) -> Any:
            call = made[number % len(made)].stream_stream("/floor/echo")()
            for _ in range(2):
                await call.write(floor_fanout.NOTE)
                await call.read()
            return call

        before = rss_kb(pid)
        calls = await _in_groups(opened, IDLE_STREAMS[per_connection])
        cost = (rss_kb(pid) - before) / len(calls)
        for call in calls:
            call.cancel()
        return cost


async def _in_groups(opened: Any, count: int) -> list[Any]:
    calls: list[Any] = []
    for at in range(0, count, 200):
        calls += await asyncio.gather(*(opened(at + n) for n in range(200)))
    return calls
