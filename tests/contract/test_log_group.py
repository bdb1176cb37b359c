"""Queue groups, on every engine: at least once, to one member at a time, and on from where the group was."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from signpost.errors import LogUnavailable
from signpost.log import Append, Log, LogSettings, Retention, Store
from signpost.log.group import Delivered, Group, GroupSettings

from tests.contract.engines import Engine

LOGS = (LogSettings("notifications"), LogSettings("state", Retention(max_age_s=3600.0, keep_last=True)))


@pytest.fixture
async def store(engine: Engine) -> AsyncIterator[Store]:
    async with engine.open(*LOGS) as opened:
        yield opened


async def open_group(
    store: Store, *, name: str = "g", start_after: int = 0, ack_wait_s: float = 30.0, subjects: str = "work.>"
) -> Group:
    return await store["notifications"].open_group(
        GroupSettings(name, subjects, start_after, ack_wait_s), store["state"]
    )


async def fill(log: Log, count: int, subject: str = "work.a", size: int = 1) -> list[int]:
    answers = await log.append_many([Append(subject, b"x" * size) for _ in range(count)])
    return [answer.sequence for answer in answers if isinstance(answer, tuple)]


async def take(group: Group, member: str, count: int, within_s: float = 30.0) -> list[Delivered]:
    """Exactly so many, in as many steps as it takes."""
    found: list[Delivered] = []
    async with asyncio.timeout(within_s):
        while len(found) < count:
            found += await group.fetch(member, count - len(found))
    return found


def numbers(found: list[Delivered]) -> list[int]:
    return sorted(one.record.sequence for one in found)


async def is_quiet(group: Group, member: str, for_s: float = 0.4) -> bool:
    try:
        async with asyncio.timeout(for_s):
            await group.fetch(member, 100)
    except TimeoutError:
        return True
    return False


async def test_members_share_what_matches(store: Store) -> None:
    group = await open_group(store)
    sequences = await fill(store["notifications"], 60)
    await fill(store["notifications"], 20, "other")
    a, b = await take(group, "a", 30), await take(group, "b", 30)
    assert sorted(numbers(a) + numbers(b)) == sequences
    assert not [one for one in a + b if one.tries]
    group.ack("a", numbers(a))
    group.ack("b", numbers(b))
    assert await is_quiet(group, "c")
    await group.close()


@pytest.mark.parametrize("subjects", [">", "*.a"])
async def test_a_wildcard_in_the_first_place_deals_nothing_of_the_system(store: Store, subjects: str) -> None:
    """Least of all what a group gave up and copied there: its members would be handed it again."""
    group = await open_group(store, subjects=subjects)
    await fill(store["notifications"], 5, "_dead.a")
    sequences = await fill(store["notifications"], 5)
    await fill(store["notifications"], 300, "_dead.a")
    sequences += await fill(store["notifications"], 5)
    taken = await take(group, "a", 10)
    assert numbers(taken) == sequences
    group.ack("a", sequences)
    assert await is_quiet(group, "a")
    await group.close()
    group = await open_group(store, subjects=subjects)
    assert await is_quiet(group, "a")
    await group.close()


async def test_two_groups_and_two_filters_do_not_share(store: Store) -> None:
    groups = [
        await open_group(store),
        await open_group(store, name="other"),
        await open_group(store, subjects="work.a"),
    ]
    sequences = await fill(store["notifications"], 5)
    for group in groups:
        assert numbers(await take(group, "a", 5)) == sequences
        await group.close()


async def test_what_is_rejected_comes_again_with_its_tries(store: Store) -> None:
    group = await open_group(store)
    (sequence,) = await fill(store["notifications"], 1)
    for tries in range(4):
        (one,) = await take(group, "a", 1)
        assert (one.record.sequence, one.tries) == (sequence, tries)
        assert one.record.payload == b"x"
        group.reject("a", [sequence])
    (one,) = await take(group, "a", 1)
    group.ack("a", [sequence])
    assert await is_quiet(group, "a")
    await group.close()


async def test_what_is_not_acknowledged_in_time_comes_again(store: Store) -> None:
    group = await open_group(store, ack_wait_s=1.5)
    sequences = await fill(store["notifications"], 3)
    held = await take(group, "slow", 3)
    group.ack("slow", sequences[:1])
    again = await take(group, "quick", 2)
    assert numbers(again) == sequences[1:]
    assert [one.tries for one in again] == [1, 1]
    assert len(held) == 3
    group.ack("quick", sequences[1:])
    assert await is_quiet(group, "slow", 2.2)
    await group.close()


async def test_only_the_holder_settles(store: Store) -> None:
    group = await open_group(store)
    sequences = await fill(store["notifications"], 2)
    await take(group, "a", 2)
    group.ack("b", sequences)
    group.reject("b", sequences)
    group.ack("a", [10_000])
    assert await is_quiet(group, "b")
    group.release("a")
    assert numbers(await take(group, "b", 2)) == sequences
    await group.close()


async def test_a_cancelled_fetch_takes_none(store: Store) -> None:
    group = await open_group(store)
    waiting = asyncio.create_task(group.fetch("a", 5))
    await asyncio.sleep(0.1)
    waiting.cancel()
    sequences = await fill(store["notifications"], 5)
    assert numbers(await take(group, "b", 5)) == sequences
    await group.close()


async def test_who_waits_at_a_group_that_closes_is_told(store: Store) -> None:
    group = await open_group(store)
    waiting = [asyncio.create_task(group.fetch(member, 5)) for member in "ab"]
    await asyncio.sleep(0.1)
    closing = asyncio.create_task(group.close())
    async with asyncio.timeout(20):
        for fetch in [*waiting, asyncio.create_task(group.fetch("c", 5))]:
            with pytest.raises(LogUnavailable, match="closed"):
                await fetch
    await closing


async def test_a_fetch_is_bounded_in_bytes(store: Store) -> None:
    group = await open_group(store)
    await fill(store["notifications"], 20, size=10_000)
    found = 0
    async with asyncio.timeout(30):
        while found < 20:
            some = await group.fetch("a", 100, 25_000)
            assert 1 <= len(some) <= 2
            found += len(some)
        one = asyncio.create_task(group.fetch("a", 100, 5))
        await fill(store["notifications"], 2, size=10_000)
        assert len(await one) == 1  # the first one whatever its size
    await group.close()


async def test_a_group_starts_where_it_is_told_and_goes_on_where_it_was(store: Store) -> None:
    sequences = await fill(store["notifications"], 10)
    group = await open_group(store, start_after=sequences[3])
    assert numbers(await take(group, "a", 6)) == sequences[4:]
    group.ack("a", [*sequences[4:6], *sequences[8:]])
    await asyncio.sleep(0.3)
    await group.close()
    group = await open_group(store, start_after=sequences[-1])
    again = await take(group, "b", 2)
    assert numbers(again) == sequences[6:8]
    assert [one.tries for one in again] == [1, 1]
    group.ack("b", sequences[6:8])
    more = await fill(store["notifications"], 1)
    assert numbers(await take(group, "b", 1)) == more
    await group.close()


async def test_a_group_is_kept_over_a_restart(engine: Engine) -> None:
    async with engine.open(*LOGS) as store:
        sequences = await fill(store["notifications"], 10)
        group = await open_group(store)
        await take(group, "a", 10)
        group.ack("a", sequences[:3])
        group.reject("a", sequences[3:4])
        await group.close()
    async with engine.open(*LOGS) as store:
        group = await open_group(store)
        again = await take(group, "a", 7)
        assert numbers(again) == sequences[3:]
        assert {one.tries for one in again} <= {1, 2}
        group.ack("a", sequences[3:])
        assert await is_quiet(group, "a")
        await group.close()


async def test_many_records_one_of_them_never_done(store: Store) -> None:
    """The rest passes by one that is held, and nothing is forgotten or doubled."""
    group = await open_group(store)
    sequences = await fill(store["notifications"], 3000)
    (first,) = await take(group, "holder", 1)
    seen: list[int] = []
    while len(seen) < 2999:
        found = numbers(await take(group, "a", min(100, 2999 - len(seen))))
        group.ack("a", found)
        seen += found
    assert sorted([first.record.sequence, *seen]) == sequences
    group.release("holder")
    assert numbers(await take(group, "b", 1)) == [first.record.sequence]
    await group.close()
