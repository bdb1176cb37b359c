"""Areas and filters in degrees and Python values, and their wire form."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf import struct_pb2

from protos.feature.v1 import feature_pb2 as fpb

LatLon = tuple[float, float]
"""Latitude and longitude in degrees, in this order."""


def to_e7(degrees: float) -> int:
    """Degrees as the wire has them: times 10^7, rounded. NaN and infinity raise ValueError."""
    if not -1000 < degrees < 1000:
        raise ValueError(f"not an angle in degrees: {degrees}")
    return round(degrees * 1e7)


def point(place: LatLon) -> fpb.Point:
    """A place as a wire point."""
    return fpb.Point(latitude=to_e7(place[0]), longitude=to_e7(place[1]))


@dataclass(frozen=True, slots=True)
class Circle:
    """Everything within `radius_m` metres of a place."""

    center: LatLon
    radius_m: float

    def to_area(self) -> fpb.Area:
        return fpb.Area(circle=fpb.Circle(center=point(self.center), radius_m=self.radius_m))


@dataclass(frozen=True, slots=True)
class Box:
    """A range of latitudes and longitudes in degrees; west > east crosses the antimeridian."""

    south: float
    west: float
    north: float
    east: float

    def to_area(self) -> fpb.Area:
        return fpb.Area(
            box=fpb.Box(south=to_e7(self.south), west=to_e7(self.west), north=to_e7(self.north), east=to_e7(self.east))
        )


@dataclass(frozen=True, slots=True)
class Polygon:
    """A ring of places, with rings cut out of it."""

    exterior: Sequence[LatLon]
    holes: Sequence[Sequence[LatLon]] = ()

    def to_area(self) -> fpb.Area:
        return fpb.Area(polygon=fpb.Polygon(exterior=_ring(self.exterior), holes=[_ring(h) for h in self.holes]))


def _ring(places: Sequence[LatLon]) -> fpb.Ring:
    return fpb.Ring(latitudes=[to_e7(p[0]) for p in places], longitudes=[to_e7(p[1]) for p in places])


Area = Circle | Box | Polygon

_OPERATORS = {
    "==": fpb.FILTER_OPERATOR_EQUAL,
    "!=": fpb.FILTER_OPERATOR_NOT_EQUAL,
    "<": fpb.FILTER_OPERATOR_LESS,
    "<=": fpb.FILTER_OPERATOR_LESS_OR_EQUAL,
    ">": fpb.FILTER_OPERATOR_GREATER,
    ">=": fpb.FILTER_OPERATOR_GREATER_OR_EQUAL,
    "in": fpb.FILTER_OPERATOR_IN,
    "exists": fpb.FILTER_OPERATOR_EXISTS,
    "prefix": fpb.FILTER_OPERATOR_PREFIX,
}


@dataclass(frozen=True, slots=True)
class Filter:
    """A condition on one property: `Filter("population", ">", 1_000_000)`.

    Operators: == != < <= > >= in exists prefix. Values: numbers, text, bool, None; a list of
    them for `in`; none for `exists`. A missing property is null, never 0.
    """

    property: str
    operator: str
    value: Any = None

    def to_proto(self) -> fpb.Filter:
        """The wire form; ValueError for an operator that is not one."""
        if self.operator not in _OPERATORS:
            raise ValueError(f"unknown operator {self.operator!r}; there are {', '.join(_OPERATORS)}")
        message = fpb.Filter(property=self.property, operator=_OPERATORS[self.operator])
        if self.operator != "exists":
            message.value.CopyFrom(to_value(self.value))
        return message


def to_value(value: Any) -> struct_pb2.Value:
    """A JSON-like Python value as a protobuf Value."""
    if value is None:
        return struct_pb2.Value(null_value=struct_pb2.NULL_VALUE)
    if isinstance(value, bool):
        return struct_pb2.Value(bool_value=value)
    if isinstance(value, int | float):
        return struct_pb2.Value(number_value=value)
    if isinstance(value, str):
        return struct_pb2.Value(string_value=value)
    holder = struct_pb2.Struct()
    holder.update({"value": list(value) if not isinstance(value, dict) else value})
    return holder.fields["value"]
