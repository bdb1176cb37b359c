"""What a benchmark is made of: rows, and medians of runs that take turns with their floor's."""

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. `floor` is what the plainest way to do the same gives in the same run, in the same unit."""

    name: str
    value: float
    unit: str
    floor: float | None = None

    @property
    def ratio(self) -> float | None:
        """The value over the floor's; more is better for rates, less for times."""
        return self.value / self.floor if self.floor else None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        ratio = None if self.ratio is None else round(self.ratio, 3)
        floor = None if self.floor is None else round(self.floor, 3)
        return {"name": self.name, "value": round(self.value, 3), "unit": self.unit, "floor": floor, "ratio": ratio}


async def compare(name: str, unit: str, measure: Measure, floor: Measure | None, repeats: int) -> Row:
    """The median of `repeats` runs, and the floor's, run in turns."""
    values: list[float] = []
    floors: list[float] = []
    for _ in range(repeats):
        if floor is not None:
            floors.append(await floor())
        values.append(await measure())
    return Row(name, statistics.median(values), unit, statistics.median(floors) if floors else None)


class Stopwatch:
    """Time since it was made, in seconds."""

    def __init__(self) -> None:
        self._start = time.perf_counter()

    @property
    def elapsed_s(self) -> float:
        """Seconds so far."""
        return time.perf_counter() - self._start

    def rate(self, count: int) -> float:
        """`count` a second so far."""
        return count / self.elapsed_s
