"""Expiry: a feature whose `expire_time` has passed is deleted by a change of its own, once.

Guarantees: appended within a second of its time while the log takes writes, by whichever replica is
first: the change expects the version that expires, so that one that was put anew lives on and a
second replica's attempt stores nothing.
"""

import asyncio
import heapq
import itertools
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
_SPARE_TICKS = 1024

Key = tuple[str, str]


class Expiry:
    """Watches the clock for a projection's features. `clock` answers Unix nanoseconds.

    Times are rounded up to ticks of a quarter second; each feature stands in one tick, so that putting
    it again and again costs no memory. What has expired long ago stands in the tick of now: many times
    that have passed are recorded together.
    """

    def __init__(self, projection: Projection, writer: Writer, clock: Callable[[], int] = time.time_ns) -> None:
        self._projection, self._writer, self._clock = projection, writer, clock
        self._ticks: list[int] = []  # those of `_due`, and some in which nothing stands any more
        self._due: dict[int, dict[Key, int]] = {}
        self._tick_of: dict[Key, int] = {}
        projection.on_expiry(self._note, self._forget)

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
            due = self._due.get(self._ticks[0])
            if due is None:
                heapq.heappop(self._ticks)
                continue
            batch = list(itertools.islice(due.items(), _AT_ONCE))
            current = [(*key, sequence) for key, sequence in batch if self._is_current(key, sequence)]
            await self._writer.expire(current)
            EXPIRED.inc(len(current))
            # Meanwhile anything may have been noted: at this tick, or at an earlier one, which is the first now.
            for key, sequence in batch:
                if due.get(key) == sequence:
                    self._drop(key)

    def _note(self, collection: str, feature_id: str, sequence: int, expires_ns: int) -> None:
        key = collection, feature_id
        if not expires_ns:
            self._drop(key)
            return
        tick = max(-(-expires_ns // _TICK_NS), self._clock() // _TICK_NS)
        if self._tick_of.get(key) != tick:
            self._drop(key)
            self._tick_of[key] = tick
            if tick not in self._due:
                self._due[tick] = {}
                self._push(tick)
        self._due[tick][key] = sequence

    def _forget(self) -> None:
        # Another log's features may have the same ids and sequences. `expire_due` may hold one tick's.
        for due in self._due.values():
            due.clear()
        self._due.clear()
        self._ticks.clear()
        self._tick_of.clear()

    def _drop(self, key: Key) -> None:
        tick = self._tick_of.pop(key, None)
        if tick is not None:
            due = self._due[tick]
            del due[key]
            if not due:
                del self._due[tick]

    def _push(self, tick: int) -> None:
        if len(self._ticks) > 2 * len(self._due) + _SPARE_TICKS:
            self._ticks = list(self._due)
            heapq.heapify(self._ticks)
        else:
            heapq.heappush(self._ticks, tick)

    def _is_current(self, key: Key, sequence: int) -> bool:
        return self._projection.sequence_of(*key) == sequence
