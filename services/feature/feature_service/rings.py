"""Closed rings of points, straight in longitude and latitude.

A step that jumps more than 180 degrees of longitude goes the short way, over the antimeridian. A ring
that comes back a full turn away from where it began goes around a pole: it holds the pole on the side
of its mean latitude (north when that is 0). Points that lie in a ring an odd number of times are in it.
Coordinates are E7 integers and every answer is exact: a point on an edge is on it.
"""

from abc import ABC, abstractmethod

import numpy as np
import shapely

from feature_service.geometry import FULL_TURN, LATITUDE_MAX, Int32s, Ints, Mask

_HALF_TURN = FULL_TURN // 2
_AT_ONCE = 1_000_000
"""Points times edges that are compared in one go: tens of megabytes."""


class Ring(ABC):
    """One ring, between two latitudes, and from a longitude so far to the east."""

    south: int
    west: int
    north: int
    width: int

    @abstractmethod
    def covers(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        """Which points are inside or on the edge."""

    @abstractmethod
    def holds(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        """Which points are strictly inside."""


def ring(latitudes: Ints, longitudes: Ints) -> Ring:
    """A ring of at least 3 points. Raises ValueError where it winds around a pole more than once."""
    steps = np.diff(longitudes, append=longitudes[0])
    steps[steps > _HALF_TURN] -= FULL_TURN
    steps[steps < -_HALF_TURN] += FULL_TURN
    turn = int(steps.sum())
    if abs(turn) > FULL_TURN:
        raise ValueError("goes around a pole more than once")
    unrolled = longitudes[0] + np.concatenate(([0], np.cumsum(steps)))
    return _PolarRing(latitudes, unrolled) if turn else _FlatRing(latitudes, unrolled[:-1])


class _FlatRing(Ring):
    """A ring that comes back to where it began: a polygon on the plane. GEOS answers, whose point tests
    are exact, for every whole turn that can bring a longitude onto the unrolled ring."""

    def __init__(self, latitudes: Ints, unrolled: Ints) -> None:
        self.south, self.north = int(latitudes.min()), int(latitudes.max())
        self.west, east = int(unrolled.min()), int(unrolled.max())
        self.width = east - self.west
        self._shape = shapely.Polygon(np.stack([unrolled, latitudes], 1))
        shapely.prepare(self._shape)
        # GEOS builds its index on the second question, and threads that race for it tear it apart.
        for ask in (shapely.contains_xy, shapely.intersects_xy):
            ask(self._shape, unrolled[:3], latitudes[:3])
        first = -((_HALF_TURN - self.west) // FULL_TURN)
        self._shifts = [float(n * FULL_TURN) for n in range(first, (east + _HALF_TURN) // FULL_TURN + 1)]

    def covers(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        if len(self._shifts) == 1:
            found: Mask = shapely.intersects_xy(self._shape, longitudes + self._shifts[0], latitudes)
        else:
            inside, edge = self._compare(latitudes, longitudes)
            found = inside | edge
        # On the plane a pole is an edge, on the sphere a point.
        if self.north == LATITUDE_MAX:
            found |= latitudes == LATITUDE_MAX
        if self.south == -LATITUDE_MAX:
            found |= latitudes == -LATITUDE_MAX
        return found

    def holds(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        inside, edge = self._compare(latitudes, longitudes)
        return inside & ~edge

    def _compare(self, latitudes: Int32s, longitudes: Int32s) -> tuple[Mask, Mask]:
        """Inside or not, and on the edge or not, by all names of each longitude: a wide ring may hold several."""
        inside, edge = np.zeros(len(latitudes), bool), np.zeros(len(latitudes), bool)
        for shift in self._shifts:
            within = shapely.contains_xy(self._shape, longitudes + shift, latitudes)
            inside ^= within
            edge |= shapely.intersects_xy(self._shape, longitudes + shift, latitudes) & ~within
        return inside, edge


class _PolarRing(Ring):
    """A ring once around a pole: a meridian from a point inside it to that pole crosses it an even number
    of times."""

    def __init__(self, latitudes: Ints, unrolled: Ints) -> None:
        self._pole = LATITUDE_MAX if latitudes.mean() >= 0 else -LATITUDE_MAX
        self._reaches = bool((latitudes == self._pole).any()), bool((latitudes == -self._pole).any())
        self.south, self.north = min(int(latitudes.min()), self._pole), max(int(latitudes.max()), self._pole)
        self.west, self.width = -_HALF_TURN, FULL_TURN
        begin, end = np.stack([unrolled[:-1], latitudes]), np.stack([unrolled[1:], np.roll(latitudes, -1)])
        eastward = begin[0] <= end[0]
        (self._west, self._from), (self._east, self._to) = (
            np.where(eastward, begin, end),
            np.where(eastward, end, begin),
        )

    def covers(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        inside, edge = self._compare(latitudes, longitudes)
        return inside | edge

    def holds(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        inside, edge = self._compare(latitudes, longitudes)
        return inside & ~edge

    def _compare(self, latitudes: Int32s, longitudes: Int32s) -> tuple[Mask, Mask]:
        inside, edge = np.empty(len(latitudes), bool), np.empty(len(latitudes), bool)
        step = max(1, _AT_ONCE // len(self._west))
        for begin in range(0, len(latitudes), step):
            part = slice(begin, begin + step)
            inside[part], edge[part] = self._compare_part(latitudes[part, None], longitudes[part, None])
        at_pole = latitudes == self._pole
        inside[at_pole], edge[at_pole] = True, self._reaches[0]
        at_other = latitudes == -self._pole
        inside[at_other], edge[at_other] = False, self._reaches[1]
        return inside, edge

    def _compare_part(self, latitudes: Int32s, longitudes: Int32s) -> tuple[Mask, Mask]:
        run, rise = self._east - self._west, self._to - self._from
        # An edge is at most half a turn long: one name of the point's longitude can lie on it.
        along = (longitudes.astype(np.int64) - self._west) % FULL_TURN
        above = latitudes.astype(np.int64) - self._from
        beside = along <= run
        side = run * above - np.where(beside, along, 0) * rise  # 0: on it; negative: it is to the north
        upright = run == 0
        between = (np.minimum(rise, 0) <= above) & (above <= np.maximum(rise, 0))
        edge: Mask = (beside & np.where(upright, between, side == 0)).any(axis=1)
        northward = np.count_nonzero(beside & (along < run) & (side < 0), axis=1)
        return (northward % 2 == 0) == (self._pole > 0), edge
