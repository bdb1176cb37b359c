"""Rounds: a lone watch at once, many by and by, nobody forgotten."""

import asyncio
from collections.abc import Iterable

from feature_service.rounds import AT_ONCE, Rounds


class Sleeper:
    """Counts how often it was woken."""

    def __init__(self) -> None:
        self.woken = 0

    def wake(self) -> None:
        self.woken += 1


class Told:
    """Rounds of these, and how often they began."""

    def __init__(self, count: int) -> None:
        self.sleepers = [Sleeper() for _ in range(count)]
        self.begun = 0
        self.rounds = Rounds(self._begin)

    def _begin(self) -> Iterable[Sleeper]:
        self.begun += 1
        return self.sleepers

    @property
    def woken(self) -> list[int]:
        return [sleeper.woken for sleeper in self.sleepers]


async def turns() -> None:
    """As many as any round takes."""
    for _ in range(1000):
        await asyncio.sleep(0)


async def test_one_alone_is_woken_at_once_again_and_again() -> None:
    told = Told(1)
    for n in range(1, 10):
        told.rounds.due()
        assert told.woken == [n], "no timer, no turn of the loop"
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_of_many_a_few_are_woken_in_a_turn() -> None:
    told = Told(4 * AT_ONCE + 1)
    told.rounds.due()
    seen = 0
    while 0 in told.woken:
        assert sum(told.woken) - seen <= AT_ONCE
        seen = sum(told.woken)
        await asyncio.sleep(0)
    assert set(told.woken) == {1}
    assert told.begun == 1


async def test_what_is_due_during_a_round_has_one_after_it() -> None:
    told = Told(2 * AT_ONCE)
    told.rounds.due()
    for _ in range(3):
        told.rounds.due()
    assert told.begun == 1
    await told.rounds.begun()
    assert told.begun == 2
    await turns()
    assert set(told.woken) == {2}


async def test_others_may_be_woken_at_any_time() -> None:
    told = Told(2 * AT_ONCE)
    others = [Sleeper() for _ in range(3 * AT_ONCE)]
    told.rounds.wake(others[:AT_ONCE])
    told.rounds.due()
    told.rounds.wake(others[AT_ONCE:])
    await told.rounds.begun()
    await turns()
    assert {other.woken for other in others} == {1}
    assert set(told.woken) == {told.begun}


async def test_who_comes_as_a_round_ends_is_woken() -> None:
    first, second = Told(1), Told(1)
    first.rounds.wake(first.sleepers)
    first.rounds.wake(second.sleepers)
    await turns()
    assert (first.woken, second.woken) == ([1], [1])


async def test_a_round_with_nobody_to_wake_is_over_at_once() -> None:
    told = Told(0)
    for n in range(1, 4):
        told.rounds.due()
        assert told.begun == n
