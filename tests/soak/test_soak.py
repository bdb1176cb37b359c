"""Ten minutes of cuts, kills and restarts under load: nothing lost, nothing twice, memory flat.

`make soak` runs it; SIGNPOST_SOAK_S sets its length in seconds. Random cuts every 0.2 to 2 s, kill -9 or
SIGTERM and a restart every 5 to 20 s, 20 publishers, 20 subscribers, each with a connection of its own.
The figures go to docs/client.md by hand, from the line that the run prints.
"""

import asyncio
import gc
import json
import os
import random
from array import array
from collections import Counter
from pathlib import Path

import pytest
from signpost.client import Backoff, ClientSettings, NotificationClient, RetrySettings, State, StreamSettings

from tests.support.proxy import FaultProxy
from tests.support.services import ServiceProcess, running

PAIRS = 20
SETTINGS = ClientSettings(
    backoff=Backoff(first_s=0.05, cap_s=1.0),
    retry=RetrySettings(timeout_s=60.0),
    stream=StreamSettings(heartbeat_interval_s=2.0, connect_timeout_s=3.0),
)


class Tally:
    """What was acknowledged, and what each subscriber got."""

    def __init__(self) -> None:
        self.acknowledged: set[int] = set()
        self.duplicates = 0
        self.got = [array("Q") for _ in range(PAIRS)]
        self.faults: Counter[str] = Counter()

    def held_mib(self) -> float:
        """What the test itself keeps: a word for each record got, a set's slot and an integer for each publish."""
        return (8 * sum(map(len, self.got)) + 100 * len(self.acknowledged)) / (1 << 20)


async def _publish(client: NotificationClient, number: int, tally: Tally, stop: asyncio.Event) -> None:
    sent = 0
    while not stop.is_set():
        mark = number * 10**9 + sent
        answer = await client.publish(f"soak.{number}", str(mark))
        assert answer.sequence not in tally.acknowledged, f"{answer.sequence} was answered twice"
        tally.acknowledged.add(answer.sequence)
        tally.duplicates += answer.duplicate
        sent += 1
        await asyncio.sleep(random.uniform(0, 0.02))


async def _subscribe(client: NotificationClient, number: int, tally: Tally) -> None:
    got = tally.got[number]
    async for batch in client.subscribe("soak.>", start="earliest").batches():
        got.extend(notification.sequence for notification in batch.message.notifications)


async def _cut(proxy: FaultProxy, tally: Tally) -> None:
    while True:
        await asyncio.sleep(random.uniform(0.2, 2))
        for connection in random.sample(sorted(proxy.connections, key=id), k=len(proxy.connections) // 4):
            connection.reset()
            tally.faults["connections cut"] += 1


async def _restart(service: ServiceProcess, tally: Tally) -> None:
    while True:
        await asyncio.sleep(random.uniform(5, 20))
        if random.random() < 0.5:
            service.kill()
            tally.faults["kill -9"] += 1
        else:
            assert await service.terminate() == 0
            tally.faults["SIGTERM"] += 1
        await service.start()


async def _be_up(service: ServiceProcess) -> None:
    """The breaking may have been stopped half-way through a restart."""
    service.kill()
    await service.start()


def _own_tasks() -> int:
    """Tasks but for the proxy's, which end when gRPC's core gives up what it was connecting to."""
    return sum("FaultProxy" not in repr(task.get_coro()) for task in asyncio.all_tasks())


def _rss_mib() -> float:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / (1 << 20)


@pytest.mark.soak
async def test_soak(tmp_path: Path) -> None:
    length_s = float(os.environ.get("SIGNPOST_SOAK_S", "600"))
    tally, stop = Tally(), asyncio.Event()
    arguments = ["--heartbeat-s=2", "--drain-s=1", "--stop-s=1"]
    async with running("notification_service", tmp_path, args=arguments) as service, FaultProxy(service.port) as proxy:
        publishers = [NotificationClient(proxy.target, settings=SETTINGS) for _ in range(PAIRS)]
        subscribers = [NotificationClient(proxy.target, settings=SETTINGS) for _ in range(PAIRS)]
        publishing = [asyncio.create_task(_publish(c, n, tally, stop)) for n, c in enumerate(publishers)]
        reading = [asyncio.create_task(_subscribe(c, n, tally)) for n, c in enumerate(subscribers)]
        await asyncio.gather(*[client.status.wait_for(State.CONNECTED) for client in (*publishers, *subscribers)])
        await asyncio.sleep(2)
        tasks_before = _own_tasks()
        breaking = [asyncio.create_task(_cut(proxy, tally)), asyncio.create_task(_restart(service, tally))]
        await asyncio.sleep(length_s * 0.2)
        early_mib, early_held_mib = _rss_mib(), tally.held_mib()
        await asyncio.sleep(length_s * 0.8)
        for task in breaking:
            task.cancel()
        for ended in await asyncio.gather(*breaking, return_exceptions=True):
            assert isinstance(ended, asyncio.CancelledError), f"the breaking broke: {ended!r}"
        await _be_up(service)
        stop.set()
        async with asyncio.timeout(60):
            await asyncio.gather(*publishing)
            expected = sorted(tally.acknowledged)
            while any(len(got) < len(expected) for got in tally.got):
                for task in reading:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.1)
        await asyncio.sleep(2)
        late_mib, late_held_mib, tasks_after = _rss_mib(), tally.held_mib(), _own_tasks()
        for task in reading:
            task.cancel()
        await asyncio.gather(*reading, return_exceptions=True)
        for client in (*publishers, *subscribers):
            assert await client.close() == ()
    for got in tally.got:
        assert got.tolist() == expected, "lost, doubled or out of order"
    grew_mib = late_mib - early_mib - (late_held_mib - early_held_mib)
    figures = {
        "seconds": length_s,
        "published": len(expected),
        "delivered": len(expected) * PAIRS,
        "answered as duplicates": tally.duplicates,
        **tally.faults,
        "client memory grew by MiB": round(grew_mib, 1),
        "tasks before and after": [tasks_before, tasks_after],
    }
    print("\nsoak:", json.dumps(figures))  # noqa: T201 - the figures for docs/client.md
    assert grew_mib < 40
    assert tasks_after <= tasks_before
