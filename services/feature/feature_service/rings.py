"""Closed rings of points, straight in longitude and latitude.

A step that jumps more than 180 degrees of longitude goes the short way, over the antimeridian. A ring
that comes back a full turn away from where it began goes around a pole: it holds the pole on the side
of its mean latitude (north when that is 0). Points that lie in a ring an odd number of times are in it.
Coordinates are E7 integers and every answer is exact: a point on an edge is on it.
"""

from abc import ABC, abstractmethod

import numpy as np
import shapely

from feature_service.geometry import FULL_TURN, LATITUDE_MAX, Floats, Int32s, Ints, Mask

_HALF_TURN = FULL_TURN // 2


class Ring(ABC):
    """One ring, between two latitudes, and from a longitude so far to the east."""

    south: int
    west: int
    north: int
    width: int
    edges: int

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

    def __init__(self, latitudes: Ints, unrolled: Ints | Floats) -> None:
        self.edges = len(latitudes)
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


class _PolarRing(_FlatRing):
    """A ring once around a pole, closed on the plane by way of that pole.

    The seams, from its ends to the pole, cancel: each is that of the next name too. They hold no point but their
    beginnings: points are integers, and the seams go to the east by half of one.
    """

    def __init__(self, latitudes: Ints, unrolled: Ints) -> None:
        self._pole = LATITUDE_MAX if latitudes.mean() >= 0 else -LATITUDE_MAX
        self._reaches = bool((latitudes == self._pole).any()), bool((latitudes == -self._pole).any())
        path = np.append(latitudes, latitudes[0])
        super().__init__(
            np.append(path, (self._pole, self._pole)),
            np.append(unrolled, (unrolled[-1] + 0.5, unrolled[0] + 0.5)),
        )
        self.west, self.width = -_HALF_TURN, FULL_TURN

    def covers(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        inside, edge = self._compare(latitudes, longitudes)
        return inside | edge

    def _compare(self, latitudes: Int32s, longitudes: Int32s) -> tuple[Mask, Mask]:
        inside, edge = super()._compare(latitudes, longitudes)
        at_pole = latitudes == self._pole
        inside[at_pole], edge[at_pole] = True, self._reaches[0]
        at_other = latitudes == -self._pole
        inside[at_other], edge[at_other] = False, self._reaches[1]
        return inside, edge
