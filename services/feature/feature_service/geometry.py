"""Points on the sphere, as unit vectors.

Guarantees: -180 and +180 degrees of longitude are one place, and so is a pole at every longitude;
the same coordinates always give the same vector, bit for bit, so that duplicates have equal
distances. Distances are rounded to the micrometre: what floating point alone would tell apart is a
tie, and a reported distance is a sharp bound for the next question.

Units: coordinates in E7 (degrees times 10^7), distances in metres, chords in earth radii (0 to 2).
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

EARTH_RADIUS_M = 6_371_008.8
HALF_CIRCUMFERENCE_M = math.pi * EARTH_RADIUS_M
LATITUDE_MAX = 900_000_000
LONGITUDE_MAX = 1_800_000_000
FULL_TURN = 3_600_000_000

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Mask = npt.NDArray[np.bool_]
Vector = tuple[float, float, float]

_RADIANS = math.pi / LONGITUDE_MAX
_MICROMETRES = 1e6


def unit_vectors(latitudes: npt.NDArray[np.integer], longitudes: npt.NDArray[np.integer]) -> Floats:
    """One row of x, y, z for each pair of E7 coordinates."""
    out = np.empty((len(latitudes), 3))
    theta = latitudes * _RADIANS
    phi = np.where(longitudes == -LONGITUDE_MAX, LONGITUDE_MAX, longitudes) * _RADIANS
    ring = np.cos(theta)
    ring[np.abs(latitudes) == LATITUDE_MAX] = 0.0
    np.multiply(ring, np.cos(phi), out=out[:, 0])
    np.multiply(ring, np.sin(phi), out=out[:, 1])
    np.sin(theta, out=out[:, 2])
    return out


def unit_vector(latitude: int, longitude: int) -> Vector:
    """The same for one point, with the same bits."""
    angles = np.array((latitude, LONGITUDE_MAX if longitude == -LONGITUDE_MAX else longitude)) * _RADIANS
    (ring, x), (z, y) = np.cos(angles).tolist(), np.sin(angles).tolist()
    if abs(latitude) == LATITUDE_MAX:
        ring = 0.0
    return ring * x, ring * y, z


def squared_chords(vectors: Floats, origin: Vector) -> Floats:
    """Squared distance through the earth from an origin to each row, in squared earth radii."""
    total = np.square(vectors[:, 0] - origin[0])
    total += np.square(vectors[:, 1] - origin[1])
    total += np.square(vectors[:, 2] - origin[2])
    return total


def squared_chord(a: Vector, b: Vector) -> float:
    """The same for two points, with the same bits."""
    x, y, z = a[0] - b[0], a[1] - b[1], a[2] - b[2]
    return x * x + y * y + z * z


def metres(chords: Floats) -> Floats:
    """Great-circle distances, to the micrometre."""
    halves = np.minimum(chords * 0.5, 1.0)
    along = np.arcsin(halves, out=halves)
    along *= 2 * EARTH_RADIUS_M * _MICROMETRES
    np.rint(along, out=along)
    along /= _MICROMETRES
    return along


def metres_of(chord: float) -> float:
    """The same for one chord, not rounded."""
    return 2 * EARTH_RADIUS_M * math.asin(min(chord / 2, 1.0))


def chord(distance_m: float) -> float:
    """The chord under a great-circle distance; infinite past half the circumference."""
    if distance_m >= HALF_CIRCUMFERENCE_M:
        return math.inf
    return 2 * math.sin(distance_m / (2 * EARTH_RADIUS_M))


def bound(distance_m: float) -> float:
    """The largest squared chord whose distance, to the micrometre, is at most this."""
    return chord(distance_m + 0.5 / _MICROMETRES) ** 2


class Cap(NamedTuple):
    """A cap of the sphere: everything within a chord of a centre. An infinite chord is everywhere."""

    center: Vector
    chord: float


EVERYWHERE = Cap((0.0, 0.0, 1.0), math.inf)


class Span(NamedTuple):
    """A range of E7 coordinates, ends included, with west <= east."""

    south: int
    west: int
    north: int
    east: int


WHOLE = Span(-LATITUDE_MAX, -LONGITUDE_MAX, LATITUDE_MAX, LONGITUDE_MAX)


def spans(south: int, west: int, north: int, width: int) -> tuple[Span, ...]:
    """The ranges that hold a band that starts at a longitude and goes east by `width` E7.

    A band that reaches a pole is as wide as the earth there; one that ends at the antimeridian
    holds both names of it.
    """
    if width >= FULL_TURN or south <= -LATITUDE_MAX or north >= LATITUDE_MAX:
        return (Span(max(south, -LATITUDE_MAX), -LONGITUDE_MAX, min(north, LATITUDE_MAX), LONGITUDE_MAX),)
    west = (west + LONGITUDE_MAX) % FULL_TURN - LONGITUDE_MAX
    east = west + width
    parts = [Span(south, west, north, min(east, LONGITUDE_MAX))]
    if east >= LONGITUDE_MAX:
        parts.append(Span(south, -LONGITUDE_MAX, north, east - FULL_TURN))
    if west == -LONGITUDE_MAX:
        parts.append(Span(south, LONGITUDE_MAX, north, LONGITUDE_MAX))
    return tuple(parts)


def cap_of_band(south: int, west: int, north: int, width: int) -> Cap:
    """A cap that holds a band of latitudes and longitudes, not much larger than it needs to be."""
    if width > FULL_TURN // 2:
        return EVERYWHERE
    center = unit_vector((south + north) // 2, _wrap(west + width // 2))
    # Within 90 degrees of longitude of the centre the farthest point of a band is one of its corners.
    corners = unit_vectors(np.array([south, south, north, north]), np.array([_wrap(west), _wrap(west + width)] * 2))
    farthest = math.sqrt(float(squared_chords(corners, center).max()))
    return Cap(center, farthest + 1e-8)


def _wrap(longitude: int) -> int:
    return (longitude + LONGITUDE_MAX) % FULL_TURN - LONGITUDE_MAX
