"""Who is connected, as a plain client asks, and the events that it gets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.stream import OWN_CONNECTION, Stream, stub_of


@asynccontextmanager
async def connected(target: str, client: str, session: str = "1", *filters: str) -> AsyncIterator[Stream]:
    async with grpc.aio.insecure_channel(target, options=OWN_CONNECTION) as channel, Stream(channel) as stream:
        await stream.hello(client, session)
        for index, pattern in enumerate(filters):
            await stream.subscribe(pattern, name=f"s{index}")
        yield stream


async def who(target: str, topic: str = "", **fields: Any) -> list[pb.Presence]:
    """Everybody, page by page."""
    found: list[pb.Presence] = []
    async with grpc.aio.insecure_channel(target, options=OWN_CONNECTION) as channel:
        token = ""
        while True:
            request = pb.ListPresenceRequest(topic=topic, page_token=token, **fields)
            page = await stub_of(channel).ListPresence(request, timeout=10)
            found += page.clients
            token = page.next_page_token
            if not token:
                return found


async def names(target: str, topic: str = "", **fields: Any) -> list[str]:
    return [one.client_id for one in await who(target, topic, **fields)]


async def until_names(target: str, topic: str, expected: list[str], within_s: float = 20.0) -> None:
    found: list[str] = []
    try:
        async with asyncio.timeout(within_s):
            while (found := await names(target, topic)) != expected:  # noqa: ASYNC110 - nobody tells a test
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"{found} instead of {expected}") from None


async def event(stream: Stream, about: str = "") -> tuple[str, bool, list[str]]:
    """The next event, which comes alone: who, whether joined, the filters."""
    (one,) = await events(stream, 1, about)
    return one


async def events(stream: Stream, count: int, about: str = "") -> list[tuple[str, bool, list[str]]]:
    """The next events of clients whose ids begin so; another test's may still be leaving."""
    found: list[tuple[str, bool, list[str]]] = []
    while len(found) < count:
        delivery = (await stream.read("delivery", timeout_s=20)).delivery
        for notification in delivery.notifications:
            assert notification.sequence == 0
            assert delivery.after == delivery.through
            told = pb.PresenceEvent.FromString(notification.payload)
            assert told.time_ns == notification.time_ns
            if told.client_id.startswith(about):
                found.append((told.client_id, told.joined, list(told.filters)))
    return found
