"""Many at once: nobody is refused, and those who come and go leave nothing behind."""

import asyncio
import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.example import greeter_pb2, greeter_pb2_grpc
from tests.support.services import ServiceProcess, running

TINY = "tests.support.tiny_service"


async def opened(stub: "greeter_pb2_grpc.GreeterAsyncStub") -> Any:
    """A stream that has had its first answer."""
    call: Any = stub.Chat(None)
    await call.write(greeter_pb2.MessageRequest(content="a"))
    assert (await call.read()).reply == "Received: a"
    return call


async def storm(service: ServiceProcess, channels: int, streams: int) -> None:
    """Open so many streams over so many connections at once, then end them all."""
    async with AsyncExitStack() as stack:
        stubs = []
        for _ in range(channels):
            options = [("grpc.use_local_subchannel_pool", 1)]
            channel = grpc.aio.insecure_channel(service.target, options=options)
            await stack.enter_async_context(channel)
            stubs.append(greeter_pb2_grpc.GreeterStub(channel))
        calls = await asyncio.gather(*(opened(stubs[number % channels]) for number in range(streams)))
        for call in calls:
            await call.done_writing()
        codes = await asyncio.gather(*(call.code() for call in calls))
        assert set(codes) == {grpc.StatusCode.OK}


async def test_a_thousand_streams_at_once_are_all_served(tmp_path: Path) -> None:
    async with running(TINY, tmp_path, log="memory:") as service:
        await storm(service, channels=20, streams=1000)


@pytest.mark.long
async def test_fault_9_nine_thousand_streams_at_once_are_all_served(tmp_path: Path) -> None:
    async with running(TINY, tmp_path, log="memory:") as service:
        await storm(service, channels=90, streams=9000)


@pytest.mark.long
async def test_fault_11_ten_thousand_cancelled_calls_leave_nothing(tmp_path: Path) -> None:
    async with (
        running(TINY, tmp_path, log="memory:") as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        stub = greeter_pb2_grpc.GreeterStub(channel)

        async def cycle(count: int) -> None:
            for _ in range(count):
                call = await opened(stub)
                call.cancel()

        await asyncio.gather(*(cycle(100) for _ in range(20)))
        before, descriptors = resident_bytes(service.pid), len(os.listdir(f"/proc/{service.pid}/fd"))
        await asyncio.gather(*(cycle(500) for _ in range(20)))
        async with asyncio.timeout(20):
            while await open_chats(service):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.1)
        assert resident_bytes(service.pid) < before + 15 * 1024 * 1024
        assert len(os.listdir(f"/proc/{service.pid}/fd")) <= descriptors + 2


async def open_chats(service: ServiceProcess) -> float:
    lines = (await service.metrics()).splitlines()
    line = next(one for one in lines if one.startswith("signpost_calls_open") and '"Chat"' in one)
    return float(line.rsplit(" ", 1)[1])


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
