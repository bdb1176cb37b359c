"""Settings that only the wire shows, and engines that are not there or full."""

import asyncio
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.example import greeter_pb2, greeter_pb2_grpc
from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from tests.support.ports import free_port
from tests.support.proxy import Direction, FaultProxy
from tests.support.services import ServiceProcess, health_of, running

TINY = "tests.support.tiny_service"
ONE_SERVICE = "notification.v1.NotificationService"


async def bytes_of_an_answer(directory: Path, *args: str) -> int:
    """How many bytes come from the server for one answer of 100,000 equal letters."""
    async with (
        running(TINY, directory, log="memory:", args=args) as service,
        FaultProxy(service.port) as proxy,
        grpc.aio.insecure_channel(proxy.target) as channel,
    ):
        chat: Any = greeter_pb2_grpc.GreeterStub(channel).Chat(None)
        await chat.write(greeter_pb2.MessageRequest(content="x" * 100_000))
        assert len((await chat.read()).reply) > 100_000
        (connection,) = proxy.connections
        return connection.passed[Direction.DOWN]


async def test_gzip_is_off_unless_set(tmp_path: Path) -> None:
    assert await bytes_of_an_answer(tmp_path / "off") > 100_000
    assert await bytes_of_an_answer(tmp_path / "on", "--compression=gzip") < 10_000


async def test_the_largest_message_is_a_setting(tmp_path: Path) -> None:
    async with (
        running(TINY, tmp_path, log="memory:", args=["--max-message-bytes=65536"]) as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        stub = notification_pb2_grpc.NotificationServiceStub(channel)
        fits = notification_pb2.PublishRequest(payload=bytes(65_000))
        assert (await stub.Publish(fits)).sequence == 7
        for size in (66_000, 1_000_000):  # answered by us, with the limit; answered by gRPC
            call = stub.Publish(notification_pb2.PublishRequest(payload=bytes(size)))
            assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_fault_6_a_connection_over_its_age_is_ended_after_its_grace(tmp_path: Path) -> None:
    args = ["--max-connection-age-s=1", "--max-connection-age-grace-s=1"]
    async with (
        running(TINY, tmp_path, log="memory:", args=args) as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        stub = greeter_pb2_grpc.GreeterStub(channel)
        began = time.monotonic()
        chat: Any = stub.Chat(None)
        await chat.write(greeter_pb2.MessageRequest(content="a"))
        await chat.read()
        assert await chat.code() is grpc.StatusCode.UNAVAILABLE
        assert time.monotonic() - began >= 0.5
        again: Any = stub.Chat(None)
        await again.write(greeter_pb2.MessageRequest(content="b"))
        assert (await again.read()).reply == "Received: b", "the same channel goes on with a new connection"
        again.cancel()


async def test_fault_26_a_signal_while_the_engine_is_awaited_ends_with_0(tmp_path: Path) -> None:
    service = ServiceProcess(TINY, tmp_path, log=f"nats://127.0.0.1:{free_port()}")
    try:
        service.spawn()
        async with asyncio.timeout(20):
            while '"starting"' not in service.logs():  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert service.exit_code is None, service.logs()
        service.signal(signal.SIGTERM)
        assert await service.wait(10) == 0, service.logs()
        assert "Traceback" not in service.logs()
    finally:
        service.kill()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={8 * 1024 * 1024}", "tmpfs", str(tmp_path)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


async def test_fault_23_a_full_disk_is_not_ready_but_alive_and_ready_again_with_room(
    small_disk: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(3 * 1024 * 1024))
    logs = tmp_path_factory.mktemp("logs")
    async with (
        running("notification_service", logs, log=f"sqlite:///{small_disk}/n.db") as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        stub = notification_pb2_grpc.NotificationServiceStub(channel)
        code = grpc.StatusCode.OK
        while code is grpc.StatusCode.OK:
            call = stub.Publish(notification_pb2.PublishRequest(topic="a", payload=bytes(100_000)))
            code = await call.code()
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        await until_health(service, "NOT_SERVING")
        assert await health_of(service.target, timeout_s=10) == "SERVING", "alive: a restart would not help"
        assert 'signpost_log_state{log="notifications",state="full"} 1.0' in await service.metrics()
        ballast.unlink()
        await until_health(service, "SERVING")


async def until_health(service: ServiceProcess, wanted: str) -> None:
    async with asyncio.timeout(20):
        while await health_of(service.target, ONE_SERVICE) != wanted:  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.1)


@pytest.mark.long
async def test_a_client_that_pings_as_often_as_allowed_stays_and_one_that_pings_more_is_cut_off(
    tmp_path: Path,
) -> None:
    """gRPC's own limit, 300 s, would cut off both."""

    async def survives(service: ServiceProcess) -> bool:
        options = [
            ("grpc.keepalive_time_ms", 1_100),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
        async with grpc.aio.insecure_channel(service.target, options=options) as channel:
            chat: Any = greeter_pb2_grpc.GreeterStub(channel).Chat(None)
            await chat.write(greeter_pb2.MessageRequest(content="a"))
            await chat.read()
            await asyncio.sleep(7)
            alive = not chat.done()
            chat.cancel()
            return alive

    async with (
        running(TINY, tmp_path, log="memory:", args=["--keepalive-min-client-s=1"]) as lenient,
        running(TINY, tmp_path, log="memory:", args=["--keepalive-min-client-s=60"]) as strict,
    ):
        stayed = await asyncio.gather(survives(lenient), survives(strict))
        assert tuple(stayed) == (True, False)
