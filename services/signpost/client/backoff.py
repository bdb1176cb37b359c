"""Backoff: how long to wait before the next try. Pure arithmetic, no I/O.

Full jitter: the delay is drawn evenly from 0 up to a bound that doubles with each failure, so
that a thousand clients that lost one server come back spread out instead of all at once.
"""

from dataclasses import dataclass

from signpost.client.clock import Clock, Random, SystemClock, system_random


@dataclass(frozen=True, slots=True)
class Backoff:
    """The bounds. More `cap_s` spares a dead server and returns later to a live one.

    first_s: bound of the first delay, seconds. factor: growth of the bound with each failure.
    cap_s: the bound never grows beyond this, seconds. stable_s: only a connection that lived this
    long, in seconds, takes the bound back to the start: one that dies at once keeps it growing.
    """

    first_s: float = 0.1
    factor: float = 2.0
    cap_s: float = 20.0
    stable_s: float = 30.0

    def __post_init__(self) -> None:
        if not (0 <= self.first_s <= self.cap_s and self.factor >= 1 and self.stable_s >= 0):
            raise ValueError(f"not a backoff: {self}")

    def bound_s(self, failures: int) -> float:
        """The longest delay after this many failures in a row (1 or more), in seconds."""
        # The exponent is bounded: 2.0 ** 1100 would overflow in a long outage.
        return min(self.cap_s, self.first_s * self.factor ** min(failures - 1, 64))

    def delay_s(self, failures: int, random: Random = system_random) -> float:
        """A delay after this many failures in a row: from [0, bound_s(failures)), in seconds."""
        return self.bound_s(failures) * random()


class BackoffCounter:
    """Counts the failures of one connection, and forgets them once it has been stable.

    `failures` is how many there were in a row without a stable connection between them.
    """

    def __init__(self, backoff: Backoff, *, clock: Clock | None = None, random: Random = system_random) -> None:
        self.backoff = backoff
        self.failures = 0
        self._clock = clock or SystemClock()
        self._random = random
        self._connected_at_s: float | None = None

    def connected(self) -> None:
        """The connection works now."""
        self._connected_at_s = self._clock.now_s()

    def failed(self, *, at_least_s: float | None = None) -> float:
        """Count a failure; the delay before the next try, in seconds.

        `at_least_s` is what the server asked for (RetryInfo): the jitter is added to it, so that
        those who were told the same do not return at the same moment.
        """
        if self._connected_at_s is not None:
            if self._clock.now_s() - self._connected_at_s >= self.backoff.stable_s:
                self.failures = 0
            self._connected_at_s = None
        self.failures += 1
        return (at_least_s or 0.0) + self.backoff.delay_s(self.failures, self._random)
