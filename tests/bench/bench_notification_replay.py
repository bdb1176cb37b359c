"""Replay: records a second from the log through a stream, and 1,000 clients that resume at once.

On both engines: from the log (a service that has just started has nothing in memory), and from the tail in
memory. The floor of the replay on JetStream is nats-py's callback for the same records, and of the resumes
there the same on SQLite: from the tail no engine is asked. Of the replay from SQLite it is a plain cursor in
this process, which does no more than fetch as many rows.
"""

import asyncio
import statistics
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

from protos.notification.v1 import notification_pb2 as pb
from tests.bench.bench_log import PlainSQLite
from tests.bench.harness import Row, Stopwatch
from tests.bench.notification_load import METHOD, Publisher, channels, count_to_end, service
from tests.bench.plain_nats import callbacks, has_nats
from tests.support.nats import NatsServer

EARLIEST = pb.Start(earliest=pb.StartEarliest())
RECORDS = 200_000
ON_JETSTREAM = "signpost.notifications."
"""What a topic's subject begins with there."""
CLIENTS = 1_000
AWAY = 1_000
"""Records that each of the resuming clients has missed."""


class Run(NamedTuple):
    """Records a second."""

    from_log: float
    from_tail: float
    resumes: float
    cursor: float
    """A plain cursor over as many rows; 0 on JetStream."""


async def rows(repeats: int) -> AsyncIterator[Row]:
    """All rows."""
    on_jetstream = has_nats()
    sqlite: list[Run] = []
    jetstream: list[Run] = []
    plain: list[float] = []
    for _ in range(repeats):
        sqlite.append(await _run(None))
        if on_jetstream:
            async with _nats() as url:
                jetstream.append(await _run(url))
                plain.append(await callbacks(url, f"{ON_JETSTREAM}bench.>", RECORDS))
    embedded = _medians(sqlite)
    yield Row("replay of one reader from SQLite", embedded.from_log, "records/s", embedded.cursor)
    yield Row("replay of one reader from the tail in memory", embedded.from_tail, "records/s")
    yield Row(f"{CLIENTS} clients that resume {AWAY} records each", embedded.resumes, "records/s")
    if on_jetstream:
        shared = _medians(jetstream)
        yield Row("replay of one reader from JetStream", shared.from_log, "records/s", statistics.median(plain))
        name = f"{CLIENTS} clients that resume {AWAY} records each, on JetStream"
        yield Row(name, shared.resumes, "records/s", embedded.resumes)


def _medians(runs: list[Run]) -> Run:
    return Run(*map(statistics.median, zip(*runs, strict=True)))


@asynccontextmanager
async def _nats() -> AsyncIterator[str]:
    """A nats-server's URL."""
    with tempfile.TemporaryDirectory() as directory:
        server = NatsServer(Path(directory))
        server.start()
        try:
            yield server.url
        finally:
            server.kill()


async def _run(log: str | None) -> Run:
    """All figures of one engine."""
    async with service(log=log) as process:
        async with channels(process.target, 1) as (channel,):
            publisher = await Publisher(channel).hello()
            await publisher.send(publisher.frames("bench.t", RECORDS, 1_000), 8)
            publisher.cancel()
        from_tail = await _replay(process.target, EARLIEST, RECORDS)
        resumes = await _resumes(process.target, await _head(process.target))
        process.kill()
        await process.start()
        from_log = await _replay(process.target, EARLIEST, RECORDS)
        cursor = 0.0 if log else await asyncio.to_thread(PlainSQLite(process.directory).read, RECORDS)
    return Run(from_log, from_tail, resumes, cursor)


async def _replay(target: str, start: pb.Start, records: int) -> float:
    """Records a second of one reader that counts bytes."""
    async with channels(target, 1) as (channel,):
        watch = Stopwatch()
        call = channel.unary_stream(METHOD + "Subscribe")(
            pb.SubscribeRequest(filter="bench.>", start=start).SerializeToString()
        )
        await count_to_end(call)
        rate = watch.rate(records)
        call.cancel()
        return rate


async def _resumes(target: str, head: int) -> float:
    """Records a second over all clients that come back at once."""
    start = pb.Start(after=pb.Position(sequence=head - AWAY))
    async with channels(target, CLIENTS) as made:
        request = pb.SubscribeRequest(filter="bench.>", start=start).SerializeToString()
        await asyncio.gather(*(channel.channel_ready() for channel in made))
        watch = Stopwatch()
        calls = [made[n % len(made)].unary_stream(METHOD + "Subscribe")(request) for n in range(CLIENTS)]
        await asyncio.gather(*map(count_to_end, calls))
        rate = watch.rate(CLIENTS * AWAY)
        for call in calls:
            call.cancel()
        return rate


async def _head(target: str) -> int:
    """The log's last sequence."""
    async with channels(target, 1) as (channel,):
        request = pb.PublishRequest(topic="other").SerializeToString()
        answer = await channel.unary_unary(METHOD + "Publish")(request)
        return pb.PublishResponse.FromString(answer).sequence - 1
