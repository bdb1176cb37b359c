"""Presence over several processes: handover, a replica that dies, a restart."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import pytest

from tests.behaviour.notification.presence import connected, event, events, names, until_names
from tests.behaviour.notification.stream import Stream
from tests.support.nats import NatsServer
from tests.support.services import ServiceProcess, running

MODULE = "notification_service"
QUICK = ("--presence-grace-s=2", "--presence-lease-s=4")  # a slow machine reconnects, and renews, within them


@pytest.fixture
def nats(tmp_path: Path) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path / "nats")
    server.start()
    yield server
    server.kill()


@asynccontextmanager
async def replicas(nats: NatsServer, directory: Path) -> AsyncIterator[tuple[ServiceProcess, ServiceProcess]]:
    async with (
        running(MODULE, directory / "a", log=nats.url, args=QUICK) as one,
        running(MODULE, directory / "b", log=nats.url, args=QUICK) as other,
    ):
        yield one, other


@pytest.mark.long
async def test_presence_is_one_over_replicas(nats: NatsServer, tmp_path: Path) -> None:
    """Everybody sees everybody; a move from one replica to another is no event, whichever way it goes."""
    async with (
        replicas(nats, tmp_path) as (one, other),
        connected(one.target, "", "", "_presence.>") as here,
        connected(other.target, "", "", "_presence.>") as there,
    ):
        async with connected(one.target, "alice", "1", "a"):
            assert await event(here) == await event(there) == ("alice", True, ["a"])
            assert await names(one.target, "a") == await names(other.target, "a") == ["alice"]
            async with connected(other.target, "alice", "1", "a"):  # make before break
                await asyncio.sleep(0.3)
        async with connected(one.target, "alice", "1", "a"):  # break before make, within the grace
            await asyncio.sleep(2.5)
            assert await names(other.target) == ["alice"]
            async with connected(other.target, "mark"):
                assert await event(here) == await event(there) == ("mark", True, [])
            assert await event(here) == await event(there) == ("mark", False, [])
        assert await event(here) == await event(there) == ("alice", False, ["a"])


@pytest.mark.long
async def test_fault_22_a_killed_replicas_clients_leave(nats: NatsServer, tmp_path: Path) -> None:
    """kill -9: those who come back to another replica have not left, the others have."""
    async with replicas(nats, tmp_path) as (one, other), connected(other.target, "", "", "_presence.>") as watching:
        async with connected(one.target, "comes-back"), connected(one.target, "stays-away"):
            await until_names(other.target, "", ["comes-back", "stays-away"])
            assert len(await events(watching, 2)) == 2
            one.kill()
        async with connected(other.target, "comes-back"):
            assert await event(watching) == ("stays-away", False, [])
            assert await names(other.target) == ["comes-back"]
            await one.start()
            await until_names(one.target, "", ["comes-back"])
        assert await event(watching) == ("comes-back", False, [])


@pytest.mark.long
async def test_fault_05_a_frozen_replicas_clients_leave_and_join_again(nats: NatsServer, tmp_path: Path) -> None:
    """SIGSTOP longer than the lease: taken for dead; when it goes on, its clients are there again."""
    async with (
        replicas(nats, tmp_path) as (one, other),
        connected(other.target, "", "", "_presence.>") as watching,
        connected(one.target, "frozen"),
    ):
        assert await event(watching) == ("frozen", True, [])
        one.freeze()
        assert await event(watching) == ("frozen", False, [])
        one.thaw()
        assert await event(watching) == ("frozen", True, [])
        await asyncio.sleep(2.5)
        assert await names(other.target) == await names(one.target) == ["frozen"]


@pytest.mark.long
async def test_fault_26_presence_while_nats_is_away(nats: NatsServer, tmp_path: Path) -> None:
    """The log's absence, longer than the lease, is nobody's silence."""
    async with (
        replicas(nats, tmp_path) as (one, other),
        connected(other.target, "", "", "_presence.>") as watching,
        connected(one.target, "alice"),
    ):
        assert await event(watching) == ("alice", True, [])
        nats.kill()
        await asyncio.sleep(6.0)
        nats.start()
        await one.wait_serving()
        await other.wait_serving()
        async with connected(other.target, "mark"):
            assert await event(watching) == ("mark", True, [])
        assert await event(watching) == ("mark", False, [])
        assert await names(other.target) == ["alice"]


@pytest.mark.long
async def test_fault_22_presence_over_a_restart(tmp_path: Path) -> None:
    """One process, killed: who was there is there, until it is clear who comes back."""
    async with running(MODULE, tmp_path, args=QUICK) as service:
        async with connected(service.target, "comes-back"), connected(service.target, "stays-away"):
            await until_names(service.target, "", ["comes-back", "stays-away"])
            service.kill()
        await service.start()
        async with (
            connected(service.target, "", "", "_presence.>") as watching,
            connected(service.target, "comes-back"),
        ):
            assert await event(watching) == ("stays-away", False, [])
            assert await names(service.target) == ["comes-back"]


@pytest.mark.long
async def test_what_presence_costs(tmp_path: Path) -> None:
    """Nothing for streams without a client id; a write for a client that comes, none when it comes back soon."""

    async def written(at_least: int = 0) -> int:
        """How much, once it is so much and no more comes."""
        last, now = -1, 0
        async with asyncio.timeout(20):
            while now != last or now < at_least:
                await asyncio.sleep(0.5)
                lines = (await service.metrics()).splitlines()
                head = next(line for line in lines if line.startswith('signpost_log_head{log="state"}'))
                last, now = now, int(float(head.split()[1]))
        return now

    async def connect(channel: grpc.aio.Channel, named: bool) -> list[Stream]:
        streams = [Stream(channel) for _ in range(50)]
        for index, stream in enumerate(streams):
            await stream.hello(*((f"c{index}", "1") if named else ()))
            await stream.subscribe("a.b")
        return streams

    async with (
        running(MODULE, tmp_path, args=["--presence-lease-s=300"]) as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        anonymous = await connect(channel, named=False)
        assert await written() == 0
        first = await connect(channel, named=True)
        before = await written(100)
        assert 100 <= before <= 150  # a session each; a `hello` and its `subscribe` may fall into two writes
        assert len(await names(service.target, "a.b")) == 50
        for stream in first:
            stream.call.cancel()
        second = await connect(channel, named=True)
        assert await written() == before
        assert len(anonymous) == len(second) == 50  # held until here
        assert len(await names(service.target, "a.b")) == 50
