"""`python -m tests.bench.watch_load TARGET WATCHES KIND`: so many watches of one place, in a process of their own.

Prints a line once all are live; then, for each burst, once all have its last change, when that was and how many
messages that took them. Nothing is decoded: what is measured is the service.
"""

import asyncio
import gc
import sys
import time
from typing import Any

import grpc
import uvloop

from protos.feature.v1 import feature_pb2 as pb

CENTER = pb.Point(latitude=450_000_000, longitude=50_000_000)
RADIUS_M = 50_000.0
END = "the-end-of-a-burst"
_PER_CONNECTION = 50


def request(number: int, kind: str) -> bytes:
    """`equal`: all watch the same; `unequal`: each a circle of its own, which holds every change too."""
    made = pb.WatchFeaturesRequest()
    radius_m = RADIUS_M + (number if kind == "unequal" else 0)
    made.area.circle.CopyFrom(pb.Circle(center=CENTER, radius_m=radius_m))
    return made.SerializeToString()


class Watch:
    """One of them."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self.messages = 0

    async def live(self) -> None:
        """Read the snapshot."""
        while not pb.WatchFeaturesResponse.FromString(await self._call.read()).HasField("caught_up"):
            pass

    async def end_of_burst(self) -> None:
        """Read up to the change that says so."""
        end = END.encode()
        while True:
            message = await self._call.read()
            self.messages += 1
            if end in message:
                return


async def main(target: str, count: int, kind: str) -> None:
    """Until killed."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels: list[Any] = [
        grpc.aio.insecure_channel(target, options=options) for _ in range(-(-count // _PER_CONNECTION))
    ]
    watches = [
        Watch(channels[n % len(channels)].unary_stream("/feature.v1.FeatureService/WatchFeatures")(request(n, kind)))
        for n in range(count)
    ]
    for n in range(0, count, _PER_CONNECTION):
        await asyncio.gather(*(watch.live() for watch in watches[n : n + _PER_CONNECTION]))
    print("live", flush=True)  # noqa: T201 - the benchmark reads it
    while True:
        await asyncio.gather(*(watch.end_of_burst() for watch in watches))
        print(time.perf_counter(), sum(watch.messages for watch in watches), flush=True)  # noqa: T201
        for watch in watches:
            watch.messages = 0


if __name__ == "__main__":
    gc.set_threshold(50_000, 20, 100)
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
