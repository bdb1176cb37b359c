"""The feature service as a process, on each engine, and typed stubs for it."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from uuid import uuid4

import grpc
import pytest

from protos.feature.v1 import feature_pb2_grpc
from tests.support.nats import NatsServer
from tests.support.services import ServiceProcess


@pytest.fixture(scope="module", params=["sqlite", "jetstream"])
def service(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """One process for all tests of a module: each uses a collection of its own."""
    directory = tmp_path_factory.mktemp("feature")
    server = None
    if request.param == "jetstream":
        server = NatsServer(directory / "nats")
        server.start()
    process = ServiceProcess("feature_service", directory, log=server.url if server else None)
    try:
        asyncio.run(process.start())
        yield process
    finally:
        process.kill()
        if server is not None:
            server.stop()


@pytest.fixture
async def stub(service: ServiceProcess) -> AsyncIterator["feature_pb2_grpc.FeatureServiceAsyncStub"]:
    async with grpc.aio.insecure_channel(service.target) as channel:
        yield feature_pb2_grpc.FeatureServiceStub(channel)


@pytest.fixture
def collection() -> str:
    """A collection that no other test uses; not in the alphabet of subjects, so that it must be encoded."""
    return f"test.{uuid4().hex} ü"
