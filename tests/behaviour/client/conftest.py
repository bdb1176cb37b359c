"""One feature service and one notification service for all cells of a worker."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.services import ServiceProcess

Services = dict[str, ServiceProcess]


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """The services by module name, each with a log of its own."""
    made = {
        name: ServiceProcess(name, tmp_path_factory.mktemp(name), args=["--heartbeat-s=1", "--drain-s=1", "--stop-s=1"])
        for name in ("feature_service", "notification_service")
    }

    async def start() -> None:
        await asyncio.gather(*[service.start() for service in made.values()])

    try:
        asyncio.run(start())
        yield made
    finally:
        for service in made.values():
            service.kill()
