"""Areas hold what the oracle says they hold."""

import math
import subprocess
import sys

import numpy as np
import pytest
from feature_service.areas import Area, Box, Circle, Polygon
from feature_service.cover import Cover
from feature_service.geometry import squared_chord, unit_vector
from feature_service.rings import Ring, ring
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.unit.feature import oracle
from tests.unit.feature.oracle import DATE_LINE, POLE, Point

many_points = st.lists(st.one_of(oracle.points, oracle.near_points), min_size=1, max_size=40)


def holds(area: Area, points: list[Point]) -> list[bool]:
    """What `contains` says, after checking that every other way to ask says the same."""
    latitudes = np.array([p[0] for p in points], np.int32)
    longitudes = np.array([p[1] for p in points], np.int32)
    found: list[bool] = area.contains(latitudes, longitudes).tolist()
    cover: Cover[str] = Cover()
    cover.add("area", area.spans)
    for inside, (latitude, longitude) in zip(found, points, strict=True):
        vector = unit_vector(latitude, longitude)
        assert area.contains_point(latitude, longitude, vector) == inside
        if inside:
            assert math.sqrt(squared_chord(vector, area.cap.center)) <= area.cap.chord
            assert list(cover.among([(7, latitude, longitude)])) == [({"area"}, [7])]
    return found


@given(oracle.points, st.floats(0.001, 3e7), many_points)
@example((POLE, 0), 1000.0, [(POLE, 123), (POLE - 1, 5)])
@example((0, DATE_LINE), 10.0, [(0, -DATE_LINE)])
def test_fault_27_circle_equals_distance(center: Point, radius_m: float, points: list[Point]) -> None:
    found = holds(Circle(*center, radius_m), [*points, center])
    for inside, point in zip(found, [*points, center], strict=True):
        distance = oracle.distance_m(center, point)
        if abs(distance - radius_m) > oracle.tolerance_m(distance):
            assert inside == (distance <= radius_m)


def test_fault_27_a_pole_and_the_date_line_are_one_place_each() -> None:
    assert unit_vector(POLE, 0) == unit_vector(POLE, 17) == unit_vector(POLE, -DATE_LINE)
    assert unit_vector(123, DATE_LINE) == unit_vector(123, -DATE_LINE)


def test_fault_27_a_radius_past_half_the_circumference_is_everywhere() -> None:
    everywhere = Circle(10, 10, 20_015_116)
    assert all(holds(everywhere, [(-10, 10 - DATE_LINE), (POLE, 0), (-POLE, 5), (0, 0)]))


@given(oracle.latitudes, oracle.longitudes, oracle.latitudes, oracle.longitudes, many_points)
@example(-5, DATE_LINE - 5, 5, 5 - DATE_LINE, [(0, DATE_LINE), (0, -DATE_LINE), (0, 0)])
@example(0, DATE_LINE, 5, DATE_LINE, [(1, -DATE_LINE)])
@example(0, -DATE_LINE, POLE, DATE_LINE, [(1, 0), (POLE, 3)])
def test_fault_28_box_equals_comparison(a: int, west: int, b: int, east: int, points: list[Point]) -> None:
    south, north = min(a, b), max(a, b)
    corners = [(south, west), (north, east), (south, east), (north, west)]
    found = holds(Box(south, west, north, east), points + corners)
    assert found == [oracle.in_box(p, south, west, north, east) for p in points + corners]


def ring_of(points: list[Point]) -> Ring:
    try:
        return ring(np.array([p[0] for p in points]), np.array([p[1] for p in points]))
    except ValueError:
        assume(False)
        raise


rings = st.lists(st.one_of(oracle.points, oracle.near_points), min_size=3, max_size=8)
small_rings = st.lists(oracle.near_points, min_size=3, max_size=8)


@given(st.one_of(rings, small_rings), many_points, st.integers(-DATE_LINE, DATE_LINE))
def test_fault_28_ring_equals_counting_crossings(corners: list[Point], points: list[Point], turned_by: int) -> None:
    def turn(p: Point) -> Point:
        return p[0], (p[1] + turned_by + DATE_LINE) % oracle.TURN - DATE_LINE

    corners, points = [turn(p) for p in corners], [turn(p) for p in points]
    found = holds(Polygon(ring_of(corners)), points + corners)
    assert found == [oracle.in_ring(p, corners, edge=True) for p in points + corners]
    backwards = holds(Polygon(ring_of(corners[::-1])), points + corners)
    assert backwards == found


@given(st.one_of(rings, small_rings), st.one_of(rings, small_rings), many_points)
@example(  # the hole, more than a turn wide, touches the point by one name of its longitude and holds it by another
    [(0, 0)] * 3,
    [(0, -DATE_LINE), (0, 0), (0, 0), (0, 1 - DATE_LINE), (1, 2), (0, -1), (-1, 1)],
    [(0, 0)],
)
def test_fault_28_holes_are_cut_out_but_for_their_edge(
    exterior: list[Point], hole: list[Point], points: list[Point]
) -> None:
    asked = points + exterior + hole
    found = holds(Polygon(ring_of(exterior), [ring_of(hole)]), asked)
    expected = [oracle.in_ring(p, exterior, edge=True) and not oracle.in_ring(p, hole, edge=False) for p in asked]
    assert found == expected


def degrees(*points: tuple[float, float]) -> list[Point]:
    return [(round(lat * 1e7), round(lon * 1e7)) for lat, lon in points]


def test_fault_28_a_ring_over_the_date_line_and_one_around_each_pole() -> None:
    fiji = Polygon(ring_of(degrees((-10, 170), (-20, 170), (-20, -170), (-10, -170))))
    assert holds(fiji, degrees((-15, 180), (-15, -180), (-15, 175), (-15, 165), (-15, 0))) == [True] * 3 + [False] * 2
    arctic = Polygon(ring_of(degrees((70, 0), (60, 90), (70, 180), (60, -90))))
    assert holds(arctic, degrees((90, 0), (80, 45), (65, 90), (50, 0), (-90, 0))) == [True] * 3 + [False] * 2
    antarctic = Polygon(ring_of(degrees((-70, 0), (-60, 90), (-70, 180), (-60, -90))))
    assert holds(antarctic, degrees((-90, 7), (-80, 45), (-65, 90), (-50, 0), (90, 0))) == [True] * 3 + [False] * 2


def test_a_ring_twice_around_a_pole_is_refused() -> None:
    twice = [(600_000_000 + n, (n * 1_000_000_000 + DATE_LINE) % oracle.TURN - DATE_LINE) for n in range(7)]
    with pytest.raises(ValueError, match="more than once"):
        ring(np.array([p[0] for p in twice]), np.array([p[1] for p in twice]))


_ASK_IN_THREADS = """
import threading
import numpy as np
from feature_service.areas import Polygon
from feature_service.rings import ring

turn = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
latitudes, longitudes = (4e8 * np.sin(turn)).astype(np.int64), (4e8 * np.cos(turn)).astype(np.int64)
points = np.random.default_rng(0).integers(-5e8, 5e8, (2, 200)).astype(np.int32)

def ask(barrier, area):
    barrier.wait()
    area.contains(*points)

for _ in range(150):
    barrier, area = threading.Barrier(3), Polygon(ring(latitudes, longitudes))
    threads = [threading.Thread(target=ask, args=(barrier, area)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_may_ask_a_new_polygon_at_once() -> None:
    """As a watch does, whose snapshot is searched in a thread while changes come. In a process that it may kill."""
    asked = subprocess.run([sys.executable, "-c", _ASK_IN_THREADS], capture_output=True, text=True, check=False)
    assert (asked.returncode, asked.stderr) == (0, "")
