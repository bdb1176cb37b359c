"""Which areas may hold a point: a grid of grids, so that many areas cost a moving point little.

Each area is kept in the cells that its spans touch, at the finest level where those are few; a point
looks into one cell of each level that is in use.
"""

from collections.abc import Hashable, Iterable, Iterator, Sequence, Set
from typing import Generic, TypeVar

from feature_service.geometry import LATITUDE_MAX, LONGITUDE_MAX, Span

KeyT = TypeVar("KeyT", bound=Hashable)
_MOST_CELLS = 16
_SIZES = tuple(1_800_000_000 // 4**level for level in range(8))
"""Cell sizes in E7: from 180 degrees down to 0.01, about a kilometre."""


class Cover(Generic[KeyT]):
    """Keys by the spans of their areas. `among` may name areas that do not hold a point, never leave out one
    that does."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[tuple[int, int], set[KeyT]]] = {}
        self._cells: dict[KeyT, tuple[int, list[tuple[int, int]]]] = {}

    def __len__(self) -> int:
        return len(self._cells)

    def __iter__(self) -> Iterator[KeyT]:
        return iter(self._cells)

    def add(self, key: KeyT, spans: Sequence[Span]) -> None:
        """Keep a key, which must be new."""
        size = next((s for s in reversed(_SIZES) if sum(_count(span, s) for span in spans) <= _MOST_CELLS), _SIZES[0])
        cells = [cell for span in spans for cell in _cells(span, size)]
        self._cells[key] = size, cells
        level = self._levels.setdefault(size, {})
        for cell in cells:
            level.setdefault(cell, set()).add(key)

    def remove(self, key: KeyT) -> None:
        """Forget a key."""
        size, cells = self._cells.pop(key)
        level = self._levels[size]
        for cell in cells:
            keys = level.get(cell)
            if keys is not None:
                keys.discard(key)
                if not keys:
                    del level[cell]
        if not level:
            del self._levels[size]

    def among(self, points: Iterable[tuple[int, int, int]]) -> Iterator[tuple[Set[KeyT], Sequence[int]]]:
        """Of points (number, latitude, longitude): keys whose spans may hold them, beside the numbers of those.

        A key and a number come together once at most.
        """
        places = [
            (number, latitude + LATITUDE_MAX, longitude + LONGITUDE_MAX) for number, latitude, longitude in points
        ]
        for size, level in self._levels.items():
            cells: dict[tuple[int, int], list[int]] = {}
            for number, row, column in places:
                cells.setdefault((row // size, column // size), []).append(number)
            for cell, numbers in cells.items():
                keys = level.get(cell)
                if keys:
                    yield keys, numbers


def _count(span: Span, size: int) -> int:
    rows = (span.north + LATITUDE_MAX) // size - (span.south + LATITUDE_MAX) // size + 1
    columns = (span.east + LONGITUDE_MAX) // size - (span.west + LONGITUDE_MAX) // size + 1
    return rows * columns


def _cells(span: Span, size: int) -> Iterator[tuple[int, int]]:
    for row in range((span.south + LATITUDE_MAX) // size, (span.north + LATITUDE_MAX) // size + 1):
        for column in range((span.west + LONGITUDE_MAX) // size, (span.east + LONGITUDE_MAX) // size + 1):
            yield row, column
