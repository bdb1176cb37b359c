"""Replay: records a second from the log through a stream, and 1,000 clients that resume at once.

From SQLite (a service that has just started has nothing in memory) and from the tail in memory. The floor
of the resumes is the same number of streams on raw grpcio that get as many bytes, ready made, at once.
"""

import asyncio
import statistics
from collections.abc import AsyncIterator

from protos.notification.v1 import notification_pb2 as pb
from tests.bench.harness import Row, Stopwatch
from tests.bench.notification_load import METHOD, Publisher, channels, count_to_end, service

EARLIEST = pb.Start(earliest=pb.StartEarliest())
RECORDS = 200_000
CLIENTS = 1_000
AWAY = 1_000
"""Records that each of the resuming clients has missed."""


async def rows(repeats: int) -> AsyncIterator[Row]:
    """All rows."""
    from_log, from_tail, resumes = [], [], []
    for _ in range(repeats):
        async with service() as process:
            async with channels(process.target, 1) as (channel,):
                publisher = await Publisher(channel).hello()
                await publisher.send(publisher.frames("bench.t", RECORDS, 1_000), 8)
                publisher.cancel()
                from_tail.append(await _replay(process.target, EARLIEST, RECORDS))
                head = await _head(process.target)
                resumes.append(await _resumes(process.target, head))
            process.kill()
            await process.start()
            from_log.append(await _replay(process.target, EARLIEST, RECORDS))
    yield Row("replay of one reader from SQLite", statistics.median(from_log), "records/s")
    yield Row("replay of one reader from the tail in memory", statistics.median(from_tail), "records/s")
    yield Row(f"{CLIENTS} clients that resume {AWAY} records each", statistics.median(resumes), "records/s")


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
