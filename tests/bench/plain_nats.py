"""A floor of reading from JetStream: what nats-py itself does in the fewest lines."""

import asyncio
import shutil
import sys

import nats

from tests.bench.harness import Stopwatch


def has_nats() -> bool:
    """Whether there is a nats-server to measure with; says so where there is none."""
    found = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin")
    if not found:
        sys.stderr.write("jetstream: no nats-server on this machine\n")
    return found is not None


async def callbacks(url: str, subject: str, total: int) -> float:
    """Records a second that a plain push subscription's callback is handed, of the first `total` on a subject."""
    client = await nats.connect(url)
    done, seen = asyncio.Event(), 0

    async def on_message(_: object) -> None:
        nonlocal seen
        seen += 1
        if seen == total:
            done.set()

    watch = Stopwatch()
    await client.jetstream().subscribe(
        subject, cb=on_message, ordered_consumer=True, pending_msgs_limit=-1, pending_bytes_limit=-1
    )
    await done.wait()
    rate = watch.rate(total)
    await client.close()
    return rate
