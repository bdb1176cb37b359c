"""One tiny service for all tests of a module: they count what they change, and leave it as it was."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from tests.support.services import ServiceProcess

TINY = "tests.support.tiny_service"


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    service = ServiceProcess(TINY, tmp_path_factory.mktemp("tiny"), log="memory:", args=["--log-calls=all"])
    try:
        asyncio.run(service.start())
        yield service
    finally:
        service.kill()


@pytest.fixture
async def channel(tiny: ServiceProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(tiny.target) as made:
        yield made
