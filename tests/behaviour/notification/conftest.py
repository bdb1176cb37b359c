"""One notification service for all tests of a module, on SQLite; each test has topics of its own."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import grpc
import pytest

from tests.behaviour.notification.stream import OWN_CONNECTION, Stream
from tests.support.services import ServiceProcess

MODULE = "notification_service"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess(MODULE, tmp_path_factory.mktemp("notification"))
    try:
        asyncio.run(process.start())
        yield process
    finally:
        process.kill()


@pytest.fixture
async def channel(service: ServiceProcess) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(service.target, options=OWN_CONNECTION) as made:
        yield made


@pytest.fixture
async def stream(channel: grpc.aio.Channel) -> AsyncIterator[Stream]:
    """A stream that has said hello, without a client id."""
    async with Stream(channel) as made:
        await made.hello()
        yield made


@pytest.fixture
def topic(request: pytest.FixtureRequest) -> str:
    """A topic that no other test uses."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in request.node.name)[:100]
