"""Rounds: when watches are woken, and how many at once.

Guarantees: a watch that is alone is woken at once. Of many, a few are woken in a turn of the event loop, with
other turns between, so that other calls wait for milliseconds; the pause before the next round is a multiple of
what this one cost, as far as it is not too long, so that a message carries what came meanwhile.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Protocol

AT_ONCE = 5
"""Woken in one turn of the event loop: each writes a gRPC message in the next, which takes it about 0.1 ms."""
TURNS = 10
"""Turns of the event loop between: a call takes several from its arrival to its answer, and only one call is taken
up in each. A turn with nothing to do costs about 20 µs."""
PAUSE = 1.5
LONGEST_PAUSE_S = 0.01
"""As in the notification service's rounds."""


async def let_others() -> None:
    """Return after as many turns of the event loop as others get between two parts of a long work."""
    for _ in range(TURNS):
        await asyncio.sleep(0)


class Wakeable(Protocol):
    """What waits for a round."""

    def wake(self) -> None:
        """Go on; nothing where it does not wait."""


class Rounds:
    """The rounds of all watches of a process."""

    def __init__(self, begin: Callable[[], Iterable[Wakeable]]) -> None:
        """`begin` begins a round: answers who is to be woken."""
        self._begin = begin
        self._waking: deque[Wakeable] = deque()
        self._size = 0
        self._due = False
        self._began = self._next = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._begun: list[asyncio.Future[None]] = []

    def due(self) -> None:
        """There is something to tell: begin a round, now or as soon as it is time."""
        self._due = True
        if self._timer is not None or self._size:
            return
        loop = asyncio.get_running_loop()
        if loop.time() >= self._next:
            self._round()
        else:
            self._timer = loop.call_at(self._next, self._round)

    def wake(self, watches: Iterable[Wakeable]) -> None:
        """Wake these, whatever the time."""
        self._waking.extend(watches)
        self._start()

    async def begun(self) -> None:
        """Wait for the begin of the next round; one must be due."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._begun.append(future)
        await future

    def _round(self) -> None:
        self._timer, self._due = None, False
        self._waking.extend(self._begin())
        begun, self._begun = self._begun, []
        for future in begun:
            if not future.done():
                future.set_result(None)
        self._start()

    def _start(self) -> None:
        if self._waking and not self._size:
            self._size = len(self._waking)
            self._began = asyncio.get_running_loop().time()
            self._wake_some()

    def _wake_some(self) -> None:
        waking = self._waking
        for _ in range(min(AT_ONCE, len(waking))):
            waking.popleft().wake()
        # What was woken writes in the next turn; so the end comes when all have written.
        self._after(*(TURNS, self._wake_some) if waking else (1, self._end))

    def _after(self, turns: int, then: Callable[[], None]) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(self._after, turns - 1, then)
        else:
            then()

    def _end(self) -> None:
        """The next round is as far away as this one was expensive, whatever made it so."""
        now = asyncio.get_running_loop().time()
        cost_s = now - self._began if self._size > 1 else 0.0
        self._next = now + min(cost_s * PAUSE, LONGEST_PAUSE_S)
        self._size = 0
        self._start()  # those that came after the last was woken
        if self._due:
            self.due()
