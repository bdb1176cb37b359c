"""From requests to questions: every bad field is named, not only the first.

A `Problems` collects violations by the field's path in the request and raises InvalidArgument with
all of them. What passes is in range, finite, and of the domain's own types.
"""

import math
import re
from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from signpost.errors import InvalidArgument, Violation

from feature_service import codec, filters
from feature_service.areas import Area, Box, Circle, Polygon
from feature_service.filters import Condition, Filter, Scalar
from feature_service.geometry import LATITUDE_MAX, LONGITUDE_MAX
from feature_service.rings import Ring, ring
from protos.feature.v1 import feature_pb2 as pb

DEFAULT_COLLECTION = "places"
MAX_ID_BYTES = 128
MAX_NAME_BYTES = 1024
MAX_PROPERTIES_BYTES = 64 * 1024
MAX_FEATURE_BYTES = MAX_PROPERTIES_BYTES + 2048
"""Of a whole feature: more than its fields can have, for those of a newer release that go along."""
MAX_FILTERS = 32
MAX_HOLES = 100
MAX_RING_POINTS = 10_000
MAX_MASK_PATHS = 64
MOST_OF_AN_ITEM = 3
"""What is told of one item of a batch: 10,000 of them may be wrong, and the answer must fit into a message."""
_MOST_TOLD, _LONGEST_FIELD = 20, 80
"""What is told of a request goes in the trailing metadata, of which clients take 8 KiB."""
_MAYBE_DEEP = 30
"""So many objects and lists, by the bytes that they begin with, may be one in the other."""
_FIRST_SECOND, _LAST_SECOND = -62_135_596_800, 253_402_300_799
_LAST_NS_SECOND = 9_223_372_036
_MAY_BE_INFINITE = re.compile(rb"\x11.{6}[\xf0-\xff][\x7f\xff]", re.DOTALL).search
"""What the encoding of a number_value that is not finite has: looking at every value of a feature takes far longer."""


class Problems:
    """What is wrong with a request."""

    def __init__(self) -> None:
        self.violations: list[Violation] = []

    def add(self, field: str, description: str, reason: str = "INVALID_FIELD") -> None:
        """One bad field."""
        if len(field) > _LONGEST_FIELD:
            field = field[:_LONGEST_FIELD] + "…"
        self.violations.append(Violation(field, description, reason))

    def check(self) -> None:
        """Raise InvalidArgument if anything is wrong."""
        if self.violations:
            text = "; ".join(f"{v.field}: {v.description}" for v in self.violations[:3])
            more = len(self.violations) - 3
            told = self.violations[:_MOST_TOLD]
            raise InvalidArgument(text + (f"; and {more} more" if more > 0 else ""), violations=told)


def check_id(problems: Problems, field: str, value: str) -> None:
    """An id: 1 to 128 bytes, no NUL."""
    if not value:
        problems.add(field, "is needed", "INVALID_ID")
    elif "\0" in value or len(value.encode()) > MAX_ID_BYTES:
        problems.add(field, f"must be 1 to {MAX_ID_BYTES} bytes without NUL", "INVALID_ID")


def collection_of(problems: Problems, value: str, field: str = "collection") -> str:
    """The collection's name, `places` where none is given."""
    if "\0" in value or len(value.encode()) > MAX_ID_BYTES:
        problems.add(field, f"must be at most {MAX_ID_BYTES} bytes without NUL")
    return value or DEFAULT_COLLECTION


def check_message_id(problems: Problems, value: str) -> None:
    """A message id: at most 128 bytes."""
    if len(value.encode()) > MAX_ID_BYTES:
        problems.add("message_id", f"must be at most {MAX_ID_BYTES} bytes")


def check_point(problems: Problems, field: str, latitude: int, longitude: int) -> None:
    """E7 coordinates in range. `field` is the point's path, empty where the request is the point."""
    if -LATITUDE_MAX <= latitude <= LATITUDE_MAX and -LONGITUDE_MAX <= longitude <= LONGITUDE_MAX:
        return
    path = f"{field}." if field else ""
    if not -LATITUDE_MAX <= latitude <= LATITUDE_MAX:
        problems.add(f"{path}latitude", f"must be from {-LATITUDE_MAX} to {LATITUDE_MAX}", "INVALID_LOCATION")
    if not -LONGITUDE_MAX <= longitude <= LONGITUDE_MAX:
        problems.add(f"{path}longitude", f"must be from {-LONGITUDE_MAX} to {LONGITUDE_MAX}", "INVALID_LOCATION")


def encoded_feature(problems: Problems, field: str, feature: pb.Feature) -> bytes:
    """A whole feature, checked, in its one encoding. `field` is the path in front of its own, with its dot."""
    feature_id = feature.id
    if not 1 <= len(feature_id) <= MAX_ID_BYTES // 4 or "\0" in feature_id:
        check_id(problems, f"{field}id", feature_id)
    name = feature.name
    if len(name) > MAX_NAME_BYTES // 4 and len(name.encode()) > MAX_NAME_BYTES:
        problems.add(f"{field}name", f"must be at most {MAX_NAME_BYTES} bytes", "INVALID_NAME")
    if feature.HasField("location"):
        location = feature.location
        check_point(problems, f"{field}location", location.latitude, location.longitude)
    else:
        problems.add(f"{field}location", "is needed", "INVALID_LOCATION")
    if feature.HasField("expire_time"):
        check_time(problems, f"{field}expire_time", feature.expire_time)
    encoded = feature.SerializeToString(deterministic=True)
    if len(encoded) > MAX_PROPERTIES_BYTES:
        size = feature.properties.ByteSize()
        if size > MAX_PROPERTIES_BYTES:
            description = f"has {size} bytes; the limit is {MAX_PROPERTIES_BYTES}"
            problems.add(f"{field}properties", description, "INVALID_PROPERTIES")
        elif len(encoded) > MAX_FEATURE_BYTES:
            description = f"has {len(encoded)} bytes with fields unknown here; the limit is {MAX_FEATURE_BYTES}"
            problems.add(field.removesuffix(".") or "feature", description)
    if _MAY_BE_INFINITE(encoded):
        for path in islice(_infinite(f"{field}properties", feature.properties), MOST_OF_AN_ITEM):
            problems.add(path, "must be finite: JSON has no other numbers", "INVALID_PROPERTIES")
    if encoded.count(b"*") + encoded.count(b"2") > _MAYBE_DEEP and _is_too_deep(encoded):
        problems.add(
            f"{field}properties", "must be nested less: a watch's message has 100 levels", "INVALID_PROPERTIES"
        )
    return encoded


def _is_too_deep(encoded: bytes) -> bool:
    """Whether nobody could read the feature out of a watch, in which it lies deeper than in a put."""
    try:
        pb.WatchFeaturesResponse.FromString(codec.field(b"\x0a", codec.field(b"\x12", encoded)))
    except DecodeError:
        return True
    return False


def _infinite(path: str, properties: Struct) -> Iterator[str]:
    for key, value in sorted(properties.fields.items()):  # a protobuf map's own order differs in each process
        yield from _infinite_in(f"{path}.{key}", value)


def _infinite_in(path: str, value: Value) -> Iterator[str]:
    match value.WhichOneof("kind"):
        case "number_value" if not math.isfinite(value.number_value):
            yield path
        case "struct_value":
            yield from _infinite(path, value.struct_value)
        case "list_value":
            for n, each in enumerate(value.list_value.values):
                yield from _infinite_in(f"{path}[{n}]", each)


def check_time(problems: Problems, field: str, time: Timestamp) -> None:
    """A time that nanoseconds since 1970 can tell."""
    if not _FIRST_SECOND <= time.seconds <= _LAST_SECOND or not 0 <= time.nanos < 1_000_000_000:
        problems.add(field, "is no valid timestamp", "INVALID_TIME")
    elif not 0 <= time.seconds < _LAST_NS_SECOND:
        problems.add(field, "must be from 1970 to 2262", "INVALID_TIME")


def area_of(problems: Problems, field: str, area: pb.Area) -> Area | None:
    """The area, where nothing is wrong with it."""
    before = len(problems.violations)
    match area.WhichOneof("shape"):
        case "circle":
            circle = area.circle
            if not circle.HasField("center"):
                problems.add(f"{field}.circle.center", "is needed", "INVALID_LOCATION")
            check_point(problems, f"{field}.circle.center", circle.center.latitude, circle.center.longitude)
            if not (math.isfinite(circle.radius_m) and circle.radius_m > 0):
                problems.add(f"{field}.circle.radius_m", "must be finite and greater than 0")
            if len(problems.violations) == before:
                return Circle(circle.center.latitude, circle.center.longitude, circle.radius_m)
        case "box":
            box = area.box
            for name, value, most in (
                ("south", box.south, LATITUDE_MAX),
                ("west", box.west, LONGITUDE_MAX),
                ("north", box.north, LATITUDE_MAX),
                ("east", box.east, LONGITUDE_MAX),
            ):
                if not -most <= value <= most:
                    problems.add(f"{field}.box.{name}", f"must be from {-most} to {most}", "INVALID_LOCATION")
            if box.south > box.north:
                problems.add(f"{field}.box.south", "must be at most north")
            if len(problems.violations) == before:
                return Box(box.south, box.west, box.north, box.east)
        case "polygon":
            return _polygon_of(problems, f"{field}.polygon", area.polygon)
        case _:
            problems.add(field, "needs a circle, a box or a polygon")
    return None


def _polygon_of(problems: Problems, field: str, polygon: pb.Polygon) -> Polygon | None:
    if len(polygon.holes) > MAX_HOLES:
        problems.add(f"{field}.holes", f"must be at most {MAX_HOLES}")
        return None
    exterior = _ring_of(problems, f"{field}.exterior", polygon.exterior)
    holes = [_ring_of(problems, f"{field}.holes[{n}]", hole) for n, hole in enumerate(polygon.holes)]
    whole = [hole for hole in holes if hole is not None]
    if exterior is None or len(whole) < len(holes):
        return None
    return Polygon(exterior, whole)


def _ring_of(problems: Problems, field: str, given: pb.Ring) -> Ring | None:
    latitudes, longitudes = np.array(given.latitudes, np.int64), np.array(given.longitudes, np.int64)
    before = len(problems.violations)
    if not 3 <= len(latitudes) <= MAX_RING_POINTS:
        problems.add(f"{field}.latitudes", f"must be 3 to {MAX_RING_POINTS} points")
    if len(latitudes) != len(longitudes):
        problems.add(f"{field}.longitudes", "must be as many as latitudes")
    for name, values, most in (("latitudes", latitudes, LATITUDE_MAX), ("longitudes", longitudes, LONGITUDE_MAX)):
        for place in np.flatnonzero(np.abs(values) > most)[:10].tolist():
            problems.add(f"{field}.{name}[{place}]", f"must be from {-most} to {most}", "INVALID_LOCATION")
    if len(problems.violations) > before:
        return None
    try:
        return ring(latitudes, longitudes)
    except ValueError as error:
        problems.add(field, str(error))
        return None


def filters_of(problems: Problems, field: str, given: Sequence[pb.Filter]) -> tuple[Filter, ...]:
    """The filters that nothing is wrong with."""
    if len(given) > MAX_FILTERS:
        problems.add(field, f"must be at most {MAX_FILTERS}")
        return ()
    found = []
    for n, each in enumerate(given):
        path = f"{field}[{n}]"
        if not 1 <= len(each.property.encode()) <= MAX_ID_BYTES:
            problems.add(f"{path}.property", f"must be 1 to {MAX_ID_BYTES} bytes")
        condition = _condition_of(problems, path, each)
        if condition is not None:
            found.append(Filter(each.property, condition))
    return tuple(found)


def _condition_of(problems: Problems, path: str, given: pb.Filter) -> Condition | None:
    match given.operator:
        case pb.FILTER_OPERATOR_EXISTS:
            return filters.exists
        case pb.FILTER_OPERATOR_IN:
            return _one_of(problems, f"{path}.value", given.value)
        case pb.FILTER_OPERATOR_EQUAL | pb.FILTER_OPERATOR_NOT_EQUAL:
            scalars = _scalars(problems, f"{path}.value", [given.value])
            equality = filters.equal if given.operator == pb.FILTER_OPERATOR_EQUAL else filters.not_equal
            return equality(scalars[0]) if scalars else None
        case pb.FILTER_OPERATOR_PREFIX:
            if given.value.WhichOneof("kind") != "string_value":
                problems.add(f"{path}.value", "must be a string")
                return None
            return filters.prefix(given.value.string_value)
        case operator if operator in _ORDERS:
            scalars = _scalars(problems, f"{path}.value", [given.value])
            for bound in scalars:
                if isinstance(bound, float | str):
                    return _ORDERS[operator](bound)
                problems.add(f"{path}.value", "must be a number or a string")
            return None
        case _:
            problems.add(f"{path}.operator", "is needed, and one that this server knows")
            return None


_ORDERS = {
    pb.FILTER_OPERATOR_LESS: filters.less,
    pb.FILTER_OPERATOR_LESS_OR_EQUAL: filters.less_or_equal,
    pb.FILTER_OPERATOR_GREATER: filters.greater,
    pb.FILTER_OPERATOR_GREATER_OR_EQUAL: filters.greater_or_equal,
}


def _one_of(problems: Problems, field: str, value: Value) -> Condition | None:
    if value.WhichOneof("kind") != "list_value" or not 1 <= len(value.list_value.values) <= 1000:
        problems.add(field, "must be a list of 1 to 1000 values")
        return None
    scalars = _scalars(problems, field, value.list_value.values)
    return filters.one_of(scalars) if scalars else None


def _scalars(problems: Problems, field: str, values: Sequence[Value]) -> list[Scalar]:
    """The values; none where one of them is wrong."""
    found: list[Scalar] = []
    for value in values:
        scalar = filters.value_of(value)
        if isinstance(scalar, filters.Other) or value.WhichOneof("kind") is None:
            problems.add(field, "must be a number, a string, a boolean or null")
            return []
        if isinstance(scalar, float) and not math.isfinite(scalar):
            problems.add(field, "must be finite")
            return []
        found.append(scalar)
    return found
