"""The tail in memory: what the ring holds, who is woken, what ends a follower."""

import asyncio

import pytest
from signpost.errors import EpochChanged, LogUnavailable
from signpost.log import Page, Record
from signpost.log.positions import check_of, encode
from signpost.log.tail import RECORD_OVERHEAD_BYTES, Tail

EPOCH = b"12345678"


def records(first: int, last: int, subject: str = "a") -> list[Record]:
    return [Record(sequence, subject, "", sequence, b"x" * 10) for sequence in range(first, last + 1)]


def page(tail: Tail, after: int, limit: int = 1000, max_bytes: int = 1 << 20) -> Page:
    found = tail.page(after, EPOCH, limit=limit, max_bytes=max_bytes)
    assert found is not None
    return found


def sequences(found: Page) -> list[int]:
    return [record.sequence for record in found.records]


def test_the_ring_is_bounded_and_says_how_far_back_it_reaches() -> None:
    tail = Tail(100 * (10 + RECORD_OVERHEAD_BYTES), head=0)
    for first in range(1, 5001, 50):
        tail.extend(records(first, first + 49), first + 49)
        held = min(100, first + 49)
        assert (tail.floor, tail.head) == (first + 49 - held, first + 49)
        assert sequences(page(tail, tail.floor)) == list(range(tail.floor + 1, tail.head + 1))
        if tail.floor:
            assert tail.page(tail.floor - 1, EPOCH) is None
    assert len(tail._records) < 5000


def test_pages_are_bounded() -> None:
    tail = Tail(1 << 20, head=7)
    tail.extend(records(8, 20), 20)
    assert sequences(page(tail, 9, limit=3)) == [10, 11, 12]
    assert page(tail, 9, limit=3).through == 12
    assert sequences(page(tail, 9, max_bytes=25)) == [10, 11]
    assert sequences(page(tail, 9, max_bytes=1)) == [10]
    assert page(tail, 17) == Page(17, 20, encode(EPOCH, 20, check_of(records(20, 20)[0])), records(18, 20))
    assert page(tail, 20).through == 20
    assert page(tail, 25).through == 25


def test_a_filter_moves_through() -> None:
    tail = Tail(1 << 20, head=0)
    tail.extend(records(1, 3) + records(4, 4, "b"), 4)
    found = tail.page(0, EPOCH, match="b".__eq__)
    assert found is not None
    assert (sequences(found), found.through) == ([4], 4)
    found = tail.page(0, EPOCH, match="c".__eq__)
    assert found is not None
    assert (sequences(found), found.through) == ([], 4)


def test_sequences_with_holes() -> None:
    tail = Tail(1 << 20, head=0)
    tail.extend([*records(3, 3), *records(7, 8)], 10)
    assert sequences(page(tail, 0)) == [3, 7, 8]
    assert page(tail, 0).through == 10
    assert page(tail, 0, limit=2).through == 7
    assert sequences(page(tail, 5)) == [7, 8]


async def test_who_waits_is_woken() -> None:
    tail = Tail(1 << 20, head=0)
    waiting = [asyncio.create_task(tail.wait(after, tail.generation)) for after in (0, 0, 4)]
    await asyncio.sleep(0)
    tail.extend(records(1, 3), 3)
    await asyncio.gather(*waiting[:2])
    assert not waiting[2].done()
    tail.extend(records(4, 5), 5)
    await waiting[2]


async def test_a_reset_ends_those_of_before_and_only_those() -> None:
    tail = Tail(1 << 20, head=0)
    before = tail.generation
    waiting = asyncio.create_task(tail.wait(0, before))
    await asyncio.sleep(0)
    tail.reset(9, EpochChanged("restored", first_available=1))
    with pytest.raises(EpochChanged):
        await waiting
    with pytest.raises(EpochChanged):
        tail.check(before)
    tail.check(tail.generation)
    assert (tail.floor, tail.head) == (9, 9)
    await tail.wait(8, tail.generation)
    tail.close()
    with pytest.raises(LogUnavailable):
        tail.check(tail.generation - 1)


def test_what_is_dropped_is_let_go() -> None:
    """Few large records are as bounded as many small ones."""
    tail = Tail(10 * (10 + RECORD_OVERHEAD_BYTES), head=0)
    for sequence in range(1, 1001):
        tail.extend(records(sequence, sequence), sequence)
    assert sum([bool(record.payload) for record in tail._records]) == 10


async def test_who_waits_at_a_closed_log_is_told() -> None:
    tail = Tail(1 << 20, head=3)
    tail.close()
    async with asyncio.timeout(20):
        with pytest.raises(LogUnavailable):
            await tail.wait(3, tail.generation)
