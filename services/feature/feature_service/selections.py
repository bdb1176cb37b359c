"""Selections: which features a watch is about."""

from collections.abc import Sequence

from google.protobuf.struct_pb2 import Struct

from feature_service.areas import Area
from feature_service.filters import Filter, property_of
from feature_service.geometry import Vector
from protos.feature.v1 import feature_pb2 as pb

Key = tuple[str, bytes, tuple[bytes, ...]]


class Selection:
    """An area and filters: which features are in the set.

    Those of equal `key` have the same features; those of equal `filters_key` the same filters.
    """

    def __init__(
        self, collection: str, area: Area | None, filters: Sequence[Filter], request: pb.WatchFeaturesRequest
    ) -> None:
        """`request` is what the area and the filters were made of."""
        self.collection, self.area, self.filters = collection, area, tuple(filters)
        self.filters_key = tuple(each.SerializeToString(deterministic=True) for each in request.filters)
        shape = request.area.SerializeToString(deterministic=True) if request.HasField("area") else b""
        self.key: Key = collection, shape, self.filters_key

    def in_area(self, latitude: int, longitude: int, vector: Vector) -> bool:
        """Whether a place is in the area."""
        return self.area is None or self.area.contains_point(latitude, longitude, vector)

    def in_filters(self, properties: Struct) -> bool:
        """Whether every filter is true."""
        return all(holds(property_of(properties, path)) for path, holds in self.filters)
