"""Areas on the sphere: circle, box, polygon.

Guarantees: an area's edge belongs to it; `contains` and `contains_point` agree on every point; the
cap and the spans hold the whole area, so that what they leave out is outside.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np

from feature_service.geometry import (
    EARTH_RADIUS_M,
    EVERYWHERE,
    FULL_TURN,
    HALF_CIRCUMFERENCE_M,
    LATITUDE_MAX,
    LONGITUDE_MAX,
    WHOLE,
    Cap,
    Int32s,
    Mask,
    Span,
    Vector,
    bound,
    cap_of_band,
    chord,
    spans,
    squared_chord,
    squared_chords,
    unit_vector,
    unit_vectors,
)
from feature_service.rings import Ring


class Area(ABC):
    """A validated area: made once a request, asked often."""

    cap: Cap
    spans: tuple[Span, ...]
    edges: int = 0
    """How many edges a point is compared with."""

    @abstractmethod
    def contains(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        """Which of these points (E7) are inside."""

    @abstractmethod
    def contains_point(self, latitude: int, longitude: int, vector: Vector) -> bool:
        """Whether one point (E7, with its unit vector) is inside."""


class Circle(Area):
    """Everything within a distance, in metres, of a point."""

    def __init__(self, latitude: int, longitude: int, radius_m: float) -> None:
        self.center = unit_vector(latitude, longitude)
        self.radius_m = radius_m
        self.bound = bound(radius_m)
        reach = chord(radius_m)
        self.cap = EVERYWHERE if math.isinf(reach) else Cap(self.center, reach + 1e-8)
        self.spans = _spans_of_circle(latitude, longitude, radius_m)

    def contains(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        inside: Mask = squared_chords(unit_vectors(latitudes, longitudes), self.center) <= self.bound
        return inside

    def contains_point(self, latitude: int, longitude: int, vector: Vector) -> bool:
        return squared_chord(vector, self.center) <= self.bound


def _spans_of_circle(latitude: int, longitude: int, radius_m: float) -> tuple[Span, ...]:
    if radius_m >= HALF_CIRCUMFERENCE_M:
        return (WHOLE,)
    angle = radius_m / EARTH_RADIUS_M
    reach = math.ceil(math.degrees(angle) * 1e7) + 2
    south, north = latitude - reach, latitude + reach
    if south <= -LATITUDE_MAX or north >= LATITUDE_MAX:
        return spans(south, 0, north, FULL_TURN)
    ratio = math.sin(angle) / math.cos(math.radians(latitude / 1e7))
    half = math.ceil(math.degrees(math.asin(min(ratio, 1.0))) * 1e7) + 2 if ratio < 1 else LONGITUDE_MAX
    return spans(south, longitude - half, north, min(2 * half, FULL_TURN))


class Box(Area):
    """A range of latitudes and longitudes (E7); west > east crosses the antimeridian."""

    def __init__(self, south: int, west: int, north: int, east: int) -> None:
        self.south, self.north, self.west = south, north, west
        whole = west == -LONGITUDE_MAX and east == LONGITUDE_MAX
        self.width = FULL_TURN if whole else (east - west) % FULL_TURN
        self.cap = cap_of_band(south, west, north, self.width)
        self.spans = spans(south, west, north, self.width)

    def contains(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        inside: Mask = (latitudes >= self.south) & (latitudes <= self.north)
        if self.width < FULL_TURN:
            among = np.flatnonzero(inside)
            eastward = (longitudes[among].astype(np.int64) - self.west) % FULL_TURN
            # A pole lies at every longitude.
            inside[among] = (eastward <= self.width) | (np.abs(latitudes[among]) == LATITUDE_MAX)
        return inside

    def contains_point(self, latitude: int, longitude: int, vector: Vector) -> bool:
        if not self.south <= latitude <= self.north:
            return False
        return (longitude - self.west) % FULL_TURN <= self.width or abs(latitude) == LATITUDE_MAX


class Polygon(Area):
    """A ring with holes. Edges are straight in longitude and latitude, and belong to the polygon,
    a hole's edges too."""

    def __init__(self, exterior: Ring, holes: Sequence[Ring] = ()) -> None:
        self.exterior, self.holes = exterior, tuple(holes)
        self.cap = cap_of_band(exterior.south, exterior.west, exterior.north, exterior.width)
        self.spans = spans(exterior.south, exterior.west, exterior.north, exterior.width)
        self.edges = exterior.edges + sum(hole.edges for hole in holes)

    def contains(self, latitudes: Int32s, longitudes: Int32s) -> Mask:
        inside = np.zeros(len(latitudes), bool)
        among = np.flatnonzero(_near(self.exterior, latitudes, longitudes))
        inside[among] = self.exterior.covers(latitudes[among], longitudes[among])
        for hole in self.holes:
            among = np.flatnonzero(inside)
            among = among[_near(hole, latitudes[among], longitudes[among])]
            inside[among] = ~hole.holds(latitudes[among], longitudes[among])
        return inside

    def contains_point(self, latitude: int, longitude: int, vector: Vector) -> bool:
        if not _is_near(self.exterior, latitude, longitude):
            return False
        one = np.array([latitude], np.int32), np.array([longitude], np.int32)
        if not self.exterior.covers(*one)[0]:
            return False
        return not any(_is_near(hole, latitude, longitude) and hole.holds(*one)[0] for hole in self.holes)


def _near(ring: Ring, latitudes: Int32s, longitudes: Int32s) -> Mask:
    """Which points are within a ring's range: asking it about others is of no use."""
    near: Mask = (latitudes >= ring.south) & (latitudes <= ring.north)
    if ring.width < FULL_TURN:
        eastward = (longitudes.astype(np.int64) - ring.west) % FULL_TURN
        near &= (eastward <= ring.width) | (np.abs(latitudes) == LATITUDE_MAX)
    return near


def _is_near(ring: Ring, latitude: int, longitude: int) -> bool:
    if not ring.south <= latitude <= ring.north:
        return False
    return (longitude - ring.west) % FULL_TURN <= ring.width or abs(latitude) == LATITUDE_MAX
