"""Expiry: a feature whose `expire_time` has passed is deleted by a change of its own, once.

Guarantees: appended within a second of its time while the log takes writes, by whichever replica is
first: the change expects the version that expires, so that one that was put anew lives on and a
second replica's attempt stores nothing.
"""

import asyncio
import heapq
import logging
import time
from collections.abc import Callable

from signpost.errors import SignpostError

from feature_service.metrics import EXPIRED
from feature_service.projection import Projection
from feature_service.writes import Writer

_LOG = logging.getLogger(__name__)
_TICK_NS = 250_000_000
_AT_ONCE = 500

Key = tuple[str, str]


class Expiry:
    """Watches the clock for a projection's features. `clock` answers Unix nanoseconds.

    Times are rounded up to ticks of a quarter second; each feature stands in one tick, so that putting
    it again and again costs no memory.
    """

    def __init__(self, projection: Projection, writer: Writer, clock: Callable[[], int] = time.time_ns) -> None:
        self._projection, self._writer, self._clock = projection, writer, clock
        self._ticks: list[int] = []
        self._due: dict[int, dict[Key, int]] = {}
        self._tick_of: dict[Key, int] = {}
        projection.on_expiry(self._note)

    async def run(self) -> None:
        """Expire what is due, until cancelled."""
        while True:
            await asyncio.sleep(_TICK_NS / 1e9)
            if self._projection.ready:
                try:
                    await self.expire_due()
                except SignpostError as error:
                    _LOG.warning("cannot record expiries yet", extra={"fields": {"why": str(error)}})

    async def expire_due(self) -> None:
        """Record what has expired by now. What the log refuses stays due."""
        while self._ticks and self._ticks[0] * _TICK_NS <= self._clock():
            due = self._due[self._ticks[0]]
            while due:
                batch = [(key, due[key]) for key, _ in zip(due, range(_AT_ONCE), strict=False)]
                current = [(*key, sequence) for key, sequence in batch if self._is_current(key, sequence)]
                await self._writer.expire(current)
                EXPIRED.inc(len(current))
                for key, sequence in batch:
                    if due.get(key) == sequence:
                        del due[key], self._tick_of[key]
            del self._due[heapq.heappop(self._ticks)]

    def _note(self, collection: str, feature_id: str, sequence: int, expires_ns: int) -> None:
        key, tick = (collection, feature_id), -(-expires_ns // _TICK_NS)
        before = self._tick_of.get(key)
        if before is not None and before != tick:
            self._due[before].pop(key, None)
        if tick not in self._due:
            self._due[tick] = {}
            heapq.heappush(self._ticks, tick)
        self._due[tick][key] = sequence
        self._tick_of[key] = tick

    def _is_current(self, key: Key, sequence: int) -> bool:
        return self._projection.sequence_of(*key) == sequence
