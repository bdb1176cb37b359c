"""One suite, every engine."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from signpost.log import Log, LogSettings

from tests.contract.engines import Engine, JetStream, Memory, SQLite
from tests.support.nats import NatsServer


@pytest.fixture(params=["memory", "sqlite", "jetstream"])
async def engine(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Engine]:
    """An engine with empty storage."""
    made: Engine
    if request.param == "memory":
        made = Memory()
    elif request.param == "sqlite":
        made = SQLite(tmp_path)
    else:
        made = JetStream(tmp_path)
    try:
        yield made
    finally:
        await made.stop()


@pytest.fixture
async def log(engine: Engine) -> AsyncIterator[Log]:
    """An open, empty log without retention."""
    async with engine.open(LogSettings("notes")) as store:
        yield store["notes"]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A nats-server of the test's own, with empty storage."""
    made = NatsServer(tmp_path / "nats")
    made.start()
    yield made
    made.kill()
