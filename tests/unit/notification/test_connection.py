"""A Connect stream without gRPC."""

import asyncio

from notification_service.connection import serve_connect
from notification_service.hub import Hub
from notification_service.outbox import MAX_ANSWERS
from notification_service.registry import Registry
from notification_service.sessions import Sessions
from notification_service.settings import NotificationSettings
from signpost.errors import InvalidArgument
from signpost.log.base import Log
from signpost.server.settings import load_settings

from tests.unit.notification.conftest import eventually


class Flood:
    """A client that sends malformed frames as fast as they are read, and reads nothing."""

    def __init__(self) -> None:
        self.read_frames = 0

    async def read(self) -> object:
        self.read_frames += 1
        await asyncio.sleep(0)
        raise InvalidArgument("the message is malformed", reason="MALFORMED_MESSAGE")

    async def write(self, frame: bytes) -> None:
        await asyncio.Event().wait()


async def test_fault_17_who_sends_only_mistakes_and_reads_no_answers_is_not_read_on(log: Log) -> None:
    registry = Registry(Hub(log), log, Sessions(log), load_settings(NotificationSettings, [], program="test"))
    flood = Flood()
    stream = asyncio.create_task(serve_connect(registry, None, flood))  # type: ignore[arg-type]
    await eventually(lambda: flood.read_frames > MAX_ANSWERS)
    await asyncio.sleep(0.1)
    assert flood.read_frames <= MAX_ANSWERS + 2
    stream.cancel()
    await asyncio.wait((stream,))
    assert not registry.connections
