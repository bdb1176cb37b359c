"""What the index must equal: every point compared, in plain Python and exact integers where that is possible.

Written apart from the code it checks: distances by the haversine, rings by counting crossings.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

from hypothesis import strategies as st

RADIUS_M = 6_371_008.8
TURN = 3_600_000_000
POLE = 900_000_000
DATE_LINE = 1_800_000_000

Point = tuple[int, int]


class Place(NamedTuple):
    """A feature for tests."""

    id: str
    latitude: int
    longitude: int


def distance_m(a: Point, b: Point) -> float:
    """Great-circle distance by the haversine."""
    lat_a, lat_b = math.radians(a[0] / 1e7), math.radians(b[0] / 1e7)
    lat, lon = lat_b - lat_a, math.radians((b[1] - a[1]) / 1e7)
    h = math.sin(lat / 2) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(lon / 2) ** 2
    return 2 * RADIUS_M * math.asin(min(1.0, math.sqrt(h)))


def tolerance_m(distance: float) -> float:
    """How far two right answers may lie apart: next to the antipode an arcsine tells little."""
    return 1.0 if distance > math.pi * RADIUS_M - 20_000 else 5e-6 + distance * 1e-12


def in_box(point: Point, south: int, west: int, north: int, east: int) -> bool:
    """Whether a box holds a point, by every name of the point."""
    if not south <= point[0] <= north:
        return False
    if abs(point[0]) == POLE or (west == -DATE_LINE and east == DATE_LINE):
        return True
    names = {point[1], -point[1]} if abs(point[1]) == DATE_LINE else {point[1]}
    if west <= east:
        return any(west <= name <= east for name in names)
    return any(name >= west or name <= east for name in names)


def unrolled(ring: Sequence[Point]) -> list[Point]:
    """The ring with each step the short way round; the first point again at the end."""
    found = [ring[0]]
    for (_, begin), (latitude, end) in itertools.pairwise([*ring, ring[0]]):
        step = end - begin
        step += TURN if step < -DATE_LINE else -TURN if step > DATE_LINE else 0
        found.append((latitude, found[-1][1] + step))
    return found


def _side(a: Point, b: Point, p: Point) -> int:
    return (b[1] - a[1]) * (p[0] - a[0]) - (p[1] - a[1]) * (b[0] - a[0])


def in_ring(point: Point, ring: Sequence[Point], *, edge: bool) -> bool:
    """Whether a ring holds a point; `edge` is the answer on its edge.

    Exact. A ring around a pole: a meridian from the point to that pole crosses it an even number of times.
    """
    path = unrolled(ring)
    turn = path[-1][1] - path[0][1]
    north = sum(latitude for latitude, _ in ring) >= 0
    if abs(point[0]) == POLE:
        if turn and north == (point[0] > 0):
            return edge or not any(latitude == point[0] for latitude, _ in ring)
        return edge and any(latitude == point[0] for latitude, _ in ring)
    crossings = 0
    for a, b in itertools.pairwise(path):
        low, high = min(a[1], b[1]), max(a[1], b[1])
        first = -((point[1] - low) // TURN)
        for n in range(first - 1, first + 3):
            at = (point[0], point[1] + n * TURN)
            if not low <= at[1] <= high:
                continue
            if low == high:
                if min(a[0], b[0]) <= at[0] <= max(a[0], b[0]):
                    return edge
                continue
            west, east = (a, b) if a[1] < b[1] else (b, a)
            side = _side(west, east, at)
            if side == 0:
                return edge
            if at[1] < high and side < 0:  # the edge lies to the north
                crossings += 1
    inside = crossings % 2 == 1
    return inside != (turn != 0 and north)


latitudes = st.one_of(
    st.integers(-POLE, POLE), st.sampled_from([-POLE, POLE, 0, POLE - 1, 1 - POLE]), st.integers(-5, 5)
)
longitudes = st.one_of(
    st.integers(-DATE_LINE, DATE_LINE),
    st.sampled_from([-DATE_LINE, DATE_LINE, 0, DATE_LINE - 1, 1 - DATE_LINE]),
    st.integers(-5, 5),
)
points = st.tuples(latitudes, longitudes)
near_points = st.tuples(st.integers(-20, 20), st.integers(-20, 20))
"""Points on a tiny grid: duplicates, points on edges, equal distances."""
