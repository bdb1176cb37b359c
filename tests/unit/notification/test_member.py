"""A member of a queue group: what an acknowledgement is about."""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any

import pytest
from notification_service import member as members
from notification_service.groups import Groups, MemberSettings
from notification_service.member import Member
from signpost.errors import SignpostError
from signpost.log.base import Log, Record
from signpost.log.group import MAX_FETCH_BYTES, Delivered, Group

from protos.notification.v1 import notification_pb2 as pb
from tests.unit.notification.conftest import eventually, following, publication

TIMEOUT_S = 60.0


class Dealt(Group):
    """A group that deals what the test puts into it."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Delivered] = asyncio.Queue()
        self.done: list[int] = []
        self.back: list[int] = []

    async def fetch(self, member: object, limit: int, max_bytes: int = MAX_FETCH_BYTES) -> list[Delivered]:
        return [await self.queue.get()]

    def ack(self, member: object, sequences: Iterable[int]) -> None:
        self.done += sequences

    def reject(self, member: object, sequences: Iterable[int]) -> None:
        self.back += sequences

    def release(self, member: object) -> None:
        pass

    async def close(self) -> None:
        pass


class Outlet:
    """Takes what there is, at once."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self, source: Member) -> bool:
        source.take()
        self.woken += 1
        return True

    def failed(self, source: Member, error: SignpostError) -> None:
        raise error


class Subscribed:
    """A member at work on a group of the test's; records lapse at once."""

    def __init__(self, member: Member, group: Dealt, outlet: Outlet) -> None:
        self.member, self.group, self._outlet = member, group, outlet

    async def deal(self, sequence: int, time_ns: int) -> None:
        """Deal a record, and wait until the outlet has taken it."""
        before = self._outlet.woken
        record = Record(sequence, "work", "", time_ns, publication("work", b"x").payload)
        self.group.queue.put_nowait(Delivered(record, 0))
        await eventually(lambda: self._outlet.woken > before, TIMEOUT_S)

    async def lapse(self) -> None:
        await eventually(lambda: not self.member._held, TIMEOUT_S)

    def ack(self, *sequences: int) -> None:
        self.member.ack(pb.AckFrame(sequences=sequences))


@pytest.fixture
async def subscribed(log: Log, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Subscribed]:
    group, outlet = Dealt(), Outlet()
    groups = Groups(log, log)

    async def join(*_: object) -> Group:
        await asyncio.sleep(0)
        return group

    monkeypatch.setattr(groups, "join", join)

    def spawn(coroutine: Coroutine[Any, Any, None]) -> None:
        coroutine.close()

    settings = MemberSettings("g", ack_wait_s=0.05, max_deliveries=9, max_in_flight=1)
    async with following(log) as hub:
        member = Member(hub, outlet, "s", "work", groups=groups, settings=settings, window=None, spawn=spawn)
        await member.join(0)
        member.begin()
        yield Subscribed(member, group, outlet)
        member.close()


async def test_fault_12_a_late_acknowledgement_of_before_a_restore_settles_nothing_after_it(
    subscribed: Subscribed,
) -> None:
    await subscribed.deal(7, time_ns=1)
    await subscribed.lapse()
    await subscribed.deal(7, time_ns=2)  # behind a restore: another record
    subscribed.ack(7)
    assert subscribed.group.done == []
    subscribed.ack(7)
    assert subscribed.group.done == [7]


@pytest.mark.parametrize("answered", [True, False])
async def test_a_record_that_lapsed_and_comes_again_is_acknowledged_as_ever(
    subscribed: Subscribed, answered: bool
) -> None:
    await subscribed.deal(7, time_ns=1)
    await subscribed.lapse()
    if answered:
        subscribed.ack(7)  # for nothing: it is another member's
        subscribed.group.done.clear()
    await subscribed.deal(7, time_ns=2 if answered else 1)
    subscribed.ack(7)
    assert subscribed.group.done == [7]


async def test_what_lapsed_is_remembered_within_bounds(subscribed: Subscribed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "MAX_LAPSED", 2)
    for sequence in (1, 2, 3):
        await subscribed.deal(sequence, time_ns=1)
        await subscribed.lapse()
    assert list(subscribed.member._lapsed) == [2, 3]
