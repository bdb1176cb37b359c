"""Leases on every engine: one holder at a time, taken over only after its silence."""

import asyncio
import heapq
from collections.abc import AsyncIterator

import pytest
from signpost.log import Log, LogSettings, Retention
from signpost.log.lease import Clock, Lease

from tests.contract.engines import Engine

TIMEOUT_S = 30.0


class Time:
    """A monotonic clock that moves when told; each contender may have its own."""

    def __init__(self, start_s: float = 0.0) -> None:
        self._now_s = start_s
        self._sleepers: list[tuple[float, int, asyncio.Event]] = []

    @property
    def clock(self) -> Clock:
        return Clock(lambda: self._now_s, self._sleep)

    async def _sleep(self, seconds: float) -> None:
        woken = asyncio.Event()
        heapq.heappush(self._sleepers, (self._now_s + seconds, id(woken), woken))
        await woken.wait()

    async def somebody_sleeps(self) -> None:
        """Return once there is somebody whom `advance` can wake."""
        while not self._sleepers:  # noqa: ASYNC110 - it sets no event
            await asyncio.sleep(0.01)

    async def advance(self, seconds: float) -> None:
        """Move on; who sleeps until then is woken in order, and does what it can before the next."""
        await asyncio.sleep(0.02)  # so that who is about to sleep does
        end = self._now_s + seconds
        while self._sleepers and self._sleepers[0][0] <= end:
            self._now_s, _, woken = heapq.heappop(self._sleepers)
            woken.set()
            await asyncio.sleep(0.02)
        self._now_s = end
        await asyncio.sleep(0.02)


@pytest.fixture
async def state(engine: Engine) -> AsyncIterator[Log]:
    async with engine.open(LogSettings("state", Retention(max_age_s=3600.0, keep_last=True))) as store:
        yield store["state"]


async def test_one_of_many_gets_it(state: Log) -> None:
    time = Time()
    leases = [Lease(state, "relay", f"h{i}", clock=time.clock) for i in range(10)]
    assert sum(await asyncio.gather(*[lease.try_acquire() for lease in leases])) == 1
    assert sum(lease.is_held for lease in leases) == 1


async def test_released_it_is_free_at_once_and_the_token_rises(state: Log) -> None:
    time = Time()
    first, second = Lease(state, "relay", "a", clock=time.clock), Lease(state, "relay", "b", clock=time.clock)
    assert await first.try_acquire()
    assert not await second.try_acquire()
    await first.release()
    assert not first.is_held
    assert await second.try_acquire()
    assert second.token > first.token
    assert not await first.renew()


async def test_a_silent_holder_is_replaced_after_its_time_to_live(state: Log) -> None:
    ours, theirs = Time(5.0), Time(1_000_000.0)  # clocks of two machines have nothing in common
    holder = Lease(state, "relay", "a", ttl_s=10, clock=ours.clock)
    contender = Lease(state, "relay", "b", ttl_s=10, clock=theirs.clock)
    assert await holder.try_acquire()
    assert not await contender.try_acquire()
    await theirs.advance(9.9)
    assert not await contender.try_acquire()
    assert await holder.renew()
    await theirs.advance(9.9)
    assert not await contender.try_acquire()
    await theirs.advance(9.9)
    assert not await contender.try_acquire()
    await theirs.advance(0.2)
    assert await contender.try_acquire()
    assert contender.token > holder.token
    assert not await holder.renew()
    assert not holder.is_held


async def test_a_holder_that_cannot_renew_gives_up_before_others_may_take_it(state: Log) -> None:
    time = Time()
    holder = Lease(state, "relay", "a", ttl_s=10, clock=time.clock)
    assert await holder.try_acquire()
    await time.advance(9.5)
    assert not holder.is_held


async def test_hold_renews_and_releases(state: Log) -> None:
    time = Time()
    holder, other = Lease(state, "r", "a", ttl_s=9, clock=time.clock), Lease(state, "r", "b", ttl_s=9, clock=time.clock)
    async with asyncio.timeout(TIMEOUT_S), holder.hold() as held:
        for _ in range(10):
            before = holder._held
            await time.somebody_sleeps()
            await time.advance(3)
            while holder._held == before:  # noqa: ASYNC110 - the engine takes what it takes
                await asyncio.sleep(0.01)
            assert holder.is_held
            assert not await other.try_acquire()
        assert not held.lost.is_set()
        assert held.token == holder.token
    assert await other.try_acquire()


async def test_hold_tells_when_it_is_lost(state: Log) -> None:
    time = Time()
    holder = Lease(state, "r", "a", ttl_s=9, clock=time.clock)
    async with asyncio.timeout(TIMEOUT_S), holder.hold() as held:
        usurper = Lease(state, "r", "b", ttl_s=9, clock=Time().clock)
        record = await state.last("lease.r")
        assert record is not None
        assert await usurper._write(record.sequence, token=0)  # as after a pause of the holder's whole process
        await time.somebody_sleeps()
        await time.advance(4)
        await asyncio.wait_for(held.lost.wait(), TIMEOUT_S)
        assert not holder.is_held
    assert not await Lease(state, "r", "c", clock=time.clock).try_acquire()  # and released nothing of the other's


async def test_hold_tells_when_renewing_fails_as_nobody_foresaw(state: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    time = Time()
    holder = Lease(state, "r", "a", ttl_s=9, clock=time.clock)

    async def fail() -> bool:
        raise RuntimeError("nobody foresaw it")

    async def work() -> None:
        async with holder.hold() as held:
            monkeypatch.setattr(holder, "renew", fail)
            await time.somebody_sleeps()
            await time.advance(4)
            told.append(await held.lost.wait())

    told: list[bool] = []
    with pytest.raises(RuntimeError, match="foresaw"):
        await asyncio.wait_for(work(), TIMEOUT_S / 2)
    assert told
    assert await Lease(state, "r", "b", clock=time.clock).try_acquire()  # and the block's end released it


async def test_acquire_waits_for_its_turn(state: Log) -> None:
    time = Time()
    first, second = Lease(state, "r", "a", ttl_s=9, clock=time.clock), Lease(state, "r", "b", ttl_s=9, clock=time.clock)
    await first.acquire()
    waiting = asyncio.create_task(second.acquire())
    await time.advance(6)
    assert not waiting.done()
    async with asyncio.timeout(TIMEOUT_S):
        while not waiting.done():
            await time.advance(3)
    assert waiting.result() == second.token > first.token


async def test_who_is_cancelled_as_the_block_ends_does_not_go_on(state: Log) -> None:
    ended = asyncio.Event()

    async def work() -> None:
        async with Lease(state, "r", "a").hold():
            await asyncio.sleep(0)  # so that renewing has begun
            asyncio.get_running_loop().call_soon(task.cancel)
        ended.set()

    task = asyncio.create_task(work())
    async with asyncio.timeout(TIMEOUT_S):
        await asyncio.wait((task,))
    assert task.cancelled()
    assert not ended.is_set()
    assert await Lease(state, "r", "b").try_acquire()  # and it was released all the same


async def test_it_is_released_though_a_renewal_is_on_its_way(state: Log) -> None:
    time = Time()
    holder = Lease(state, "r", "a", ttl_s=9, clock=time.clock)
    async with asyncio.timeout(TIMEOUT_S), holder.hold():
        held = holder._held
        assert await holder.renew()
        holder._held = held  # as where the block ends before the answer is here
    assert await Lease(state, "r", "b", ttl_s=9, clock=time.clock).try_acquire()
