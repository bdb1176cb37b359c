"""How fast a client may publish: a token bucket that may go into debt."""

from collections.abc import Callable


class Allowance:
    """`rate_per_s` publishes a second on average, `burst` at once.

    A frame is taken whole while anything is left, so that a large one is not refused for ever; its debt
    is waited off by what comes after it.
    """

    __slots__ = ("_burst", "_clock_s", "_left", "_rate", "_since")

    def __init__(self, rate_per_s: float, burst: float, clock_s: Callable[[], float]) -> None:
        self._rate = rate_per_s
        self._burst = burst
        self._clock_s = clock_s
        self._left = burst
        self._since = clock_s()

    def take(self, count: int) -> float:
        """0.0 and they are taken, or the seconds after which to ask again, and nothing is."""
        now = self._clock_s()
        self._left = min(self._burst, self._left + (now - self._since) * self._rate)
        self._since = now
        if self._left > 0:
            self._left -= count
            return 0.0
        return max(0.001, (1 - self._left) / self._rate)
