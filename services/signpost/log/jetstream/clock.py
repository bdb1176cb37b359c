"""Time that passes only while this process runs."""

from collections.abc import Callable


class RunningClock:
    """Seconds, never backwards, without those in which nobody looked for longer than `longest_s`: then the process was
    stopped, or its machine slept, and what came meanwhile is still to be read.

    For what is looked at more often than that. Longer takes more of a busy moment for one, shorter less.
    """

    def __init__(self, time_s: Callable[[], float], longest_s: float) -> None:
        self._time_s, self._longest_s = time_s, longest_s
        self._seen = self._now = time_s()

    def __call__(self) -> float:
        """Now."""
        seen = self._time_s()
        self._now += min(seen - self._seen, self._longest_s)
        self._seen = seen
        return self._now
