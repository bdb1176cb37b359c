"""A hub on a log in memory."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress

import pytest
from notification_service.hub import Hub, HubSettings
from notification_service.publishing import entry, system_entry
from signpost.log import LogSettings, Retention, open_store
from signpost.log.base import Append, Log

from protos.notification.v1 import notification_pb2 as pb


def publication(topic: str, payload: bytes = b"", **fields: object) -> Append:
    """An entry as a client's publication makes it."""
    if topic.startswith("_"):
        return system_entry(topic, payload)
    return entry(pb.Publication(topic=topic, payload=payload, **fields), "", "", 0)  # type: ignore[arg-type]


async def publish(log: Log, items: Sequence[Append]) -> int:
    """Append; answers the last sequence."""
    answers = await log.append_many(items)
    return max(answer.sequence for answer in answers if not isinstance(answer, Exception))


@asynccontextmanager
async def following(log: Log, settings: HubSettings | None = None) -> AsyncIterator[Hub]:
    """A hub that follows a log."""
    hub = Hub(log, settings)
    await hub.start()
    task = asyncio.create_task(hub.run())
    await asyncio.sleep(0.01)  # it follows now
    try:
        yield hub
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.fixture
async def log() -> AsyncIterator[Log]:
    async with open_store("memory:", [LogSettings("notifications", Retention())]) as store:
        yield store["notifications"]


async def eventually(condition: Callable[[], bool], timeout_s: float = 20.0) -> None:
    """Return once it holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nothing signals what a test looks at
            await asyncio.sleep(0.001)
