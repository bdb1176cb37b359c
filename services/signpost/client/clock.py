"""Time and chance, injected: everything that waits or draws lots here takes these two."""

import asyncio
import random
import time
from collections.abc import Callable
from typing import Protocol

Random = Callable[[], float]
"""Draws from [0, 1)."""

system_random: Random = random.Random().random  # noqa: S311 - jitter needs no secret


class Clock(Protocol):
    """A monotonic clock in seconds, and a way to wait on it."""

    def now_s(self) -> float:
        """Seconds since some fixed moment; never goes back."""

    async def sleep(self, delay_s: float) -> None:
        """Return after `delay_s` seconds of this clock."""


class SystemClock:
    """The machine's monotonic clock."""

    def now_s(self) -> float:
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class FakeClock:
    """A clock for tests: `sleep` takes no time and moves the clock; `slept_s` keeps the delays."""

    def __init__(self, now_s: float = 0.0) -> None:
        self._now_s = now_s
        self.slept_s: list[float] = []

    def now_s(self) -> float:
        return self._now_s

    def advance(self, by_s: float) -> None:
        """Move the clock forward."""
        self._now_s += by_s

    async def sleep(self, delay_s: float) -> None:
        self.slept_s.append(delay_s)
        self._now_s += delay_s
        await asyncio.sleep(0)
