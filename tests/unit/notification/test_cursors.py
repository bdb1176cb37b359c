"""Durable cursors: cumulative, few writes, the same on every replica."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from notification_service.cursors import Cursor, cursor_key
from signpost.errors import InvalidArgument, PositionAhead, SignpostError
from signpost.log import LogSettings, Retention, open_store
from signpost.log.base import Log, Store
from signpost.log.memory import MemoryLog, MemoryStore

from protos.notification.v1 import notification_pb2 as pb
from tests.unit.notification.conftest import eventually, publication, publish

KEY = cursor_key("client.1", "main")


@pytest.fixture
async def store() -> AsyncIterator[Store]:
    settings = [LogSettings("notifications"), LogSettings("state", Retention(max_age_s=3600, keep_last=True))]
    async with open_store("memory:", settings) as store:
        await publish(store["notifications"], [publication("a") for _ in range(100)])
        yield store


async def opened(store: Store, log: Log | None = None, refused: list[SignpostError] | None = None) -> Cursor:
    complaints = [] if refused is None else refused
    return await Cursor.open(store["state"], log or store["notifications"], KEY, complaints.append)


async def token(store: Store, sequence: int) -> pb.Position:
    return pb.Position(token=await store["notifications"].position(sequence))


async def test_an_acknowledged_place_is_there_after_a_restart(store: Store) -> None:
    cursor = await opened(store)
    assert not cursor.position
    await cursor.begin((await token(store, 3)).token, 3)
    assert (await opened(store)).sequence == 3
    cursor.ack(await token(store, 10))
    await cursor.close()
    again = await opened(store)
    assert again.sequence == 10
    await again.begin((await token(store, 3)).token, 3)
    assert again.sequence == 10, "a start moves a cursor only where there is none"


async def test_many_acknowledgements_are_few_writes(store: Store) -> None:
    cursor = await opened(store)
    before = store["state"].head
    for sequence in range(1, 101):
        cursor.ack(await token(store, sequence))
        await asyncio.sleep(0)
    await cursor.close()
    assert (await opened(store)).sequence == 100
    assert store["state"].head - before <= 5


async def test_acknowledgements_never_go_back(store: Store) -> None:
    one, other = await opened(store), await opened(store)
    one.ack(await token(store, 50))
    await one.close()
    other.ack(await token(store, 20))  # another stream of the same client, which knows nothing of it
    await other.close()
    assert (await opened(store)).sequence == 50
    other.ack(pb.Position(sequence=60))
    await other.close()
    assert (await opened(store)).sequence == 60


async def test_acknowledgements_that_wait_for_the_same_write_do_not_go_back_either(store: Store) -> None:
    cursor = await opened(store)
    for no_place in (pb.Position(token=b"nonsense"), pb.Position(sequence=101)):
        cursor.ack(no_place)  # swallows none of the others
        cursor.ack(await token(store, 50))
        cursor.ack(pb.Position(sequence=20))
        cursor.ack(await token(store, 30))
        await cursor.close()
        assert (await opened(store)).sequence == 50


async def test_what_is_no_place_is_refused_and_moves_nothing(store: Store) -> None:
    refused: list[SignpostError] = []
    cursor = await opened(store, refused=refused)
    cursor.ack(pb.Position(token=b"nonsense"))
    await cursor.close()
    cursor.ack(pb.Position(sequence=101))
    await cursor.close()
    assert [type(error) for error in refused] == [InvalidArgument, PositionAhead]
    assert (await opened(store)).sequence == 0


async def test_what_another_replica_has_delivered_is_no_mistake(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    refused: list[SignpostError] = []
    cursor = await opened(store, refused=refused)
    monkeypatch.setattr(MemoryLog, "head", 90)  # what this replica has seen: a moment behind
    cursor.ack(pb.Position(sequence=95))
    await cursor.close()
    assert not refused
    assert (await opened(store)).sequence == 95


async def test_fault_12_a_cursor_of_the_log_that_was_gives_way(store: Store) -> None:
    cursor = await opened(store)
    cursor.ack(await token(store, 90))
    await cursor.close()
    async with MemoryStore([LogSettings("notifications")]) as other:
        log = other["notifications"]
        await publish(log, [publication("a") for _ in range(5)])
        late = await opened(store, log)
        late.ack(pb.Position(token=await log.position(5)))
        await late.close()
        assert (await opened(store, log)).sequence == 5


async def test_a_forgotten_cursor_is_gone(store: Store) -> None:
    cursor = await opened(store)
    await cursor.begin((await token(store, 3)).token, 3)
    await cursor.forget()
    assert not (await opened(store)).position
    again = await opened(store)
    await again.begin((await token(store, 4)).token, 4)
    assert (await opened(store)).sequence == 4


async def test_acknowledging_goes_on_while_a_write_is_on_its_way(store: Store) -> None:
    cursor = await opened(store)
    for sequence in (1, 2, 3):
        cursor.ack(await token(store, sequence))
    await eventually(lambda: cursor.sequence == 3)
    await cursor.close()
