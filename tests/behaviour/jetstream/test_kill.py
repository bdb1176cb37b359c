"""FAULTS 22 and 26 under load: nats-server killed at random moments, and the nodes of a cluster."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import nats.errors
import nats.js.errors
import pytest
from signpost.errors import LogUnavailable, SignpostError
from signpost.log import Append, Appended, Log, LogSettings, LogState, Store
from signpost.log.jetstream import JetStreamSettings, JetStreamStore

from tests.support.nats import NatsCluster, NatsServer

LOGS = [LogSettings("notes")]
QUICK = JetStreamSettings(heartbeat_s=0.3, request_timeout_s=2.0, publish_timeout_s=15.0, reconnect_max_s=0.2)
BATCH = 50


class Load:
    """Publishers that never pause and a follower that never looks away; `judge` compares what they saw."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.acknowledged: dict[bytes, int] = {}
        self.unknown: set[bytes] = set()
        self.followed: list[tuple[int, bytes]] = []
        self.slowest_s = 0.0
        self._number = 0
        self._stopping = asyncio.Event()

    async def publish(self) -> None:
        """Keep two batches in flight until told to stop."""
        while not self._stopping.is_set():
            payloads = [b"%d" % (self._number + i) for i in range(BATCH)]
            self._number += BATCH
            # Half with a message id, half without: neither may double.
            entries = [
                Append(f"s.{i % 7}", payload, payload.decode() if i % 2 else "") for i, payload in enumerate(payloads)
            ]
            started = time.monotonic()
            answers = await self._log.append_many(entries)
            self.slowest_s = max(self.slowest_s, time.monotonic() - started)
            for payload, answer in zip(payloads, answers, strict=True):
                self._note(payload, answer)

    def _note(self, payload: bytes, answer: Appended | SignpostError) -> None:
        if isinstance(answer, Appended):
            self.acknowledged[payload] = answer.sequence
        else:
            assert isinstance(answer, LogUnavailable), answer
            self.unknown.add(payload)

    async def follow(self) -> None:
        """Note every record."""
        async for page in self._log.follow(0):
            self.followed += [(record.sequence, record.payload) for record in page.records]

    def stop(self) -> None:
        self._stopping.set()

    async def judge(self, settings: JetStreamSettings) -> None:
        """Everything acknowledged is there once, where it was said to be; the follower saw just that."""
        last = (await self._log.bounds()).last
        await eventually(lambda: bool(self.followed) and self.followed[-1][0] >= last)
        assert [sequence for sequence, _ in self.followed] == list(range(1, last + 1))
        stored = {payload: sequence for sequence, payload in self.followed}
        twice = [payload for payload, count in Counter(p for _, p in self.followed).items() if count > 1]
        assert not twice
        wrong = {payload for payload, sequence in self.acknowledged.items() if stored.get(payload) != sequence}
        assert not wrong
        assert set(stored) <= set(self.acknowledged) | self.unknown
        assert self.slowest_s < settings.publish_timeout_s + 15  # answered by its deadline, on a machine that stalls


async def eventually(holds: Callable[[], bool]) -> None:
    """Return once it holds; fail after 20 s."""
    deadline = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


async def under_load(store: Store, disturb: "asyncio.Task[None]", load: Load) -> None:
    async with asyncio.TaskGroup() as tasks:
        following = tasks.create_task(load.follow())
        publishing = [tasks.create_task(load.publish()) for _ in range(2)]
        await disturb
        load.stop()
        await asyncio.gather(*publishing)
        await eventually(lambda: store.state is LogState.WRITABLE)
        await load.judge(QUICK)
        following.cancel()


async def kill_rounds(tmp_path: Path, rounds: int, seed: int) -> None:
    generator = random.Random(seed)
    server = NatsServer(tmp_path / "nats")
    server.start()

    async def disturb() -> None:
        for _ in range(rounds):
            await asyncio.sleep(generator.uniform(0.05, 0.5))
            server.kill()
            await asyncio.sleep(generator.uniform(0.0, 0.3))
            await asyncio.to_thread(server.start)
        await asyncio.sleep(0.3)

    try:
        async with await JetStreamStore.open(server.url, LOGS, QUICK) as store:
            load = Load(store["notes"])
            await under_load(store, asyncio.create_task(disturb()), load)
            assert len(load.acknowledged) > rounds * BATCH
            assert not load.unknown
    finally:
        server.kill()


async def test_fault_22_the_server_is_killed_under_load(tmp_path: Path) -> None:
    await kill_rounds(tmp_path, rounds=4, seed=1)


@pytest.mark.long
async def test_fault_22_the_server_is_killed_again_and_again(tmp_path: Path) -> None:
    await kill_rounds(tmp_path, rounds=50, seed=2)


async def leader_of(stream: str, url: str) -> str:
    """The name of the node that leads a stream."""
    client = await nats.connect(url.replace(",", ",nats://").split(","))
    try:
        async with asyncio.timeout(20):
            while True:
                with contextlib.suppress(nats.errors.Error, nats.js.errors.Error):
                    cluster = (await client.jetstream().stream_info(stream)).cluster
                    if cluster is not None and cluster.leader:
                        return cluster.leader
    finally:
        await client.close()


@pytest.mark.long
async def test_fault_26_the_leader_of_a_cluster_is_killed_under_load(tmp_path: Path) -> None:
    cluster = NatsCluster(tmp_path)
    cluster.start()
    settings = JetStreamSettings(
        replicas=3, heartbeat_s=0.3, request_timeout_s=2.0, publish_timeout_s=20.0, reconnect_max_s=0.2
    )

    async def disturb() -> None:
        for _ in range(3):
            await asyncio.sleep(1.0)
            leader = cluster.node_named(await leader_of("signpost-notes", cluster.url))
            leader.kill()
            await asyncio.sleep(2.0)
            await asyncio.to_thread(leader.start)
            await asyncio.sleep(2.0)

    try:
        async with await JetStreamStore.open(cluster.url, LOGS, settings) as store:
            load = Load(store["notes"])
            await under_load(store, asyncio.create_task(disturb()), load)
            assert len(load.acknowledged) > 1000
    finally:
        cluster.stop()
