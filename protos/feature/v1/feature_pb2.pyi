import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_KIND_UNSPECIFIED: _ClassVar[EventKind]
    EVENT_KIND_PRESENT: _ClassVar[EventKind]
    EVENT_KIND_ENTERED: _ClassVar[EventKind]
    EVENT_KIND_MOVED: _ClassVar[EventKind]
    EVENT_KIND_LEFT: _ClassVar[EventKind]

class LeftReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    LEFT_REASON_UNSPECIFIED: _ClassVar[LeftReason]
    LEFT_REASON_MOVED: _ClassVar[LeftReason]
    LEFT_REASON_DELETED: _ClassVar[LeftReason]
    LEFT_REASON_EXPIRED: _ClassVar[LeftReason]
    LEFT_REASON_FILTER: _ClassVar[LeftReason]
    LEFT_REASON_FENCE_REMOVED: _ClassVar[LeftReason]

class NearestContent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    NEAREST_CONTENT_UNSPECIFIED: _ClassVar[NearestContent]
    NEAREST_CONTENT_IDS: _ClassVar[NearestContent]
    NEAREST_CONTENT_DISTANCES: _ClassVar[NearestContent]
    NEAREST_CONTENT_FEATURES: _ClassVar[NearestContent]

class FilterOperator(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILTER_OPERATOR_UNSPECIFIED: _ClassVar[FilterOperator]
    FILTER_OPERATOR_EQUAL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_NOT_EQUAL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_LESS: _ClassVar[FilterOperator]
    FILTER_OPERATOR_LESS_OR_EQUAL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_GREATER: _ClassVar[FilterOperator]
    FILTER_OPERATOR_GREATER_OR_EQUAL: _ClassVar[FilterOperator]
    FILTER_OPERATOR_IN: _ClassVar[FilterOperator]
    FILTER_OPERATOR_EXISTS: _ClassVar[FilterOperator]
    FILTER_OPERATOR_PREFIX: _ClassVar[FilterOperator]

class FenceEvent(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FENCE_EVENT_UNSPECIFIED: _ClassVar[FenceEvent]
    FENCE_EVENT_ENTERED: _ClassVar[FenceEvent]
    FENCE_EVENT_LEFT: _ClassVar[FenceEvent]
    FENCE_EVENT_INSIDE: _ClassVar[FenceEvent]
    FENCE_EVENT_DWELLED: _ClassVar[FenceEvent]
EVENT_KIND_UNSPECIFIED: EventKind
EVENT_KIND_PRESENT: EventKind
EVENT_KIND_ENTERED: EventKind
EVENT_KIND_MOVED: EventKind
EVENT_KIND_LEFT: EventKind
LEFT_REASON_UNSPECIFIED: LeftReason
LEFT_REASON_MOVED: LeftReason
LEFT_REASON_DELETED: LeftReason
LEFT_REASON_EXPIRED: LeftReason
LEFT_REASON_FILTER: LeftReason
LEFT_REASON_FENCE_REMOVED: LeftReason
NEAREST_CONTENT_UNSPECIFIED: NearestContent
NEAREST_CONTENT_IDS: NearestContent
NEAREST_CONTENT_DISTANCES: NearestContent
NEAREST_CONTENT_FEATURES: NearestContent
FILTER_OPERATOR_UNSPECIFIED: FilterOperator
FILTER_OPERATOR_EQUAL: FilterOperator
FILTER_OPERATOR_NOT_EQUAL: FilterOperator
FILTER_OPERATOR_LESS: FilterOperator
FILTER_OPERATOR_LESS_OR_EQUAL: FilterOperator
FILTER_OPERATOR_GREATER: FilterOperator
FILTER_OPERATOR_GREATER_OR_EQUAL: FilterOperator
FILTER_OPERATOR_IN: FilterOperator
FILTER_OPERATOR_EXISTS: FilterOperator
FILTER_OPERATOR_PREFIX: FilterOperator
FENCE_EVENT_UNSPECIFIED: FenceEvent
FENCE_EVENT_ENTERED: FenceEvent
FENCE_EVENT_LEFT: FenceEvent
FENCE_EVENT_INSIDE: FenceEvent
FENCE_EVENT_DWELLED: FenceEvent

class ListFeaturesRequest(_message.Message):
    __slots__ = ("collection", "origin", "area", "filters", "limit", "read_mask", "continuation", "min_position", "batch_size")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    LIMIT_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    CONTINUATION_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    origin: Point
    area: Area
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    limit: int
    read_mask: _containers.RepeatedScalarFieldContainer[str]
    continuation: bytes
    min_position: Position
    batch_size: int
    def __init__(self, collection: _Optional[str] = ..., origin: _Optional[_Union[Point, _Mapping]] = ..., area: _Optional[_Union[Area, _Mapping]] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., limit: _Optional[int] = ..., read_mask: _Optional[_Iterable[str]] = ..., continuation: _Optional[bytes] = ..., min_position: _Optional[_Union[Position, _Mapping]] = ..., batch_size: _Optional[int] = ...) -> None: ...

class ListFeaturesResponse(_message.Message):
    __slots__ = ("features", "distances_m", "sequences", "change_times_ns", "continuation", "snapshot")
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_M_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TIMES_NS_FIELD_NUMBER: _ClassVar[int]
    CONTINUATION_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    distances_m: _containers.RepeatedScalarFieldContainer[float]
    sequences: _containers.RepeatedScalarFieldContainer[int]
    change_times_ns: _containers.RepeatedScalarFieldContainer[int]
    continuation: bytes
    snapshot: Position
    def __init__(self, features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., distances_m: _Optional[_Iterable[float]] = ..., sequences: _Optional[_Iterable[int]] = ..., change_times_ns: _Optional[_Iterable[int]] = ..., continuation: _Optional[bytes] = ..., snapshot: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class WatchFeaturesRequest(_message.Message):
    __slots__ = ("collection", "area", "filters", "resume", "min_position", "progress_interval_ms")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    RESUME_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    collection: str
    area: Area
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    resume: Position
    min_position: Position
    progress_interval_ms: int
    def __init__(self, collection: _Optional[str] = ..., area: _Optional[_Union[Area, _Mapping]] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., resume: _Optional[_Union[Position, _Mapping]] = ..., min_position: _Optional[_Union[Position, _Mapping]] = ..., progress_interval_ms: _Optional[int] = ...) -> None: ...

class WatchFeaturesResponse(_message.Message):
    __slots__ = ("events", "caught_up", "progress", "reset", "position")
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    CAUGHT_UP_FIELD_NUMBER: _ClassVar[int]
    PROGRESS_FIELD_NUMBER: _ClassVar[int]
    RESET_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    events: FeatureEvents
    caught_up: CaughtUp
    progress: Progress
    reset: Reset
    position: Position
    def __init__(self, events: _Optional[_Union[FeatureEvents, _Mapping]] = ..., caught_up: _Optional[_Union[CaughtUp, _Mapping]] = ..., progress: _Optional[_Union[Progress, _Mapping]] = ..., reset: _Optional[_Union[Reset, _Mapping]] = ..., position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class FeatureEvents(_message.Message):
    __slots__ = ("kinds", "features", "sequences", "change_times_ns", "left_reasons")
    KINDS_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TIMES_NS_FIELD_NUMBER: _ClassVar[int]
    LEFT_REASONS_FIELD_NUMBER: _ClassVar[int]
    kinds: _containers.RepeatedScalarFieldContainer[EventKind]
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    sequences: _containers.RepeatedScalarFieldContainer[int]
    change_times_ns: _containers.RepeatedScalarFieldContainer[int]
    left_reasons: _containers.RepeatedScalarFieldContainer[LeftReason]
    def __init__(self, kinds: _Optional[_Iterable[_Union[EventKind, str]]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., sequences: _Optional[_Iterable[int]] = ..., change_times_ns: _Optional[_Iterable[int]] = ..., left_reasons: _Optional[_Iterable[_Union[LeftReason, str]]] = ...) -> None: ...

class CaughtUp(_message.Message):
    __slots__ = ("count",)
    COUNT_FIELD_NUMBER: _ClassVar[int]
    count: int
    def __init__(self, count: _Optional[int] = ...) -> None: ...

class Progress(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Reset(_message.Message):
    __slots__ = ("reason", "first_available")
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIRST_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    reason: str
    first_available: Position
    def __init__(self, reason: _Optional[str] = ..., first_available: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class NearestFeaturesRequest(_message.Message):
    __slots__ = ("id", "collection", "latitudes", "longitudes", "k", "max_distance_m", "content", "filters", "min_position")
    ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    LATITUDES_FIELD_NUMBER: _ClassVar[int]
    LONGITUDES_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    MAX_DISTANCE_M_FIELD_NUMBER: _ClassVar[int]
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    id: int
    collection: str
    latitudes: _containers.RepeatedScalarFieldContainer[int]
    longitudes: _containers.RepeatedScalarFieldContainer[int]
    k: int
    max_distance_m: float
    content: NearestContent
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    min_position: Position
    def __init__(self, id: _Optional[int] = ..., collection: _Optional[str] = ..., latitudes: _Optional[_Iterable[int]] = ..., longitudes: _Optional[_Iterable[int]] = ..., k: _Optional[int] = ..., max_distance_m: _Optional[float] = ..., content: _Optional[_Union[NearestContent, str]] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., min_position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class NearestFeaturesResponse(_message.Message):
    __slots__ = ("id", "counts", "ids", "distances_m", "features", "snapshot", "error")
    ID_FIELD_NUMBER: _ClassVar[int]
    COUNTS_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    DISTANCES_M_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    SNAPSHOT_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    id: int
    counts: _containers.RepeatedScalarFieldContainer[int]
    ids: _containers.RepeatedScalarFieldContainer[str]
    distances_m: _containers.RepeatedScalarFieldContainer[float]
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    snapshot: Position
    error: ItemError
    def __init__(self, id: _Optional[int] = ..., counts: _Optional[_Iterable[int]] = ..., ids: _Optional[_Iterable[str]] = ..., distances_m: _Optional[_Iterable[float]] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ..., snapshot: _Optional[_Union[Position, _Mapping]] = ..., error: _Optional[_Union[ItemError, _Mapping]] = ...) -> None: ...

class ImportFeaturesRequest(_message.Message):
    __slots__ = ("id", "collection", "features")
    ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    id: int
    collection: str
    features: _containers.RepeatedCompositeFieldContainer[Feature]
    def __init__(self, id: _Optional[int] = ..., collection: _Optional[str] = ..., features: _Optional[_Iterable[_Union[Feature, _Mapping]]] = ...) -> None: ...

class ImportFeaturesResponse(_message.Message):
    __slots__ = ("id", "written", "unchanged", "errors", "position", "sequence")
    ID_FIELD_NUMBER: _ClassVar[int]
    WRITTEN_FIELD_NUMBER: _ClassVar[int]
    UNCHANGED_FIELD_NUMBER: _ClassVar[int]
    ERRORS_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    id: int
    written: int
    unchanged: int
    errors: _containers.RepeatedCompositeFieldContainer[ItemError]
    position: Position
    sequence: int
    def __init__(self, id: _Optional[int] = ..., written: _Optional[int] = ..., unchanged: _Optional[int] = ..., errors: _Optional[_Iterable[_Union[ItemError, _Mapping]]] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., sequence: _Optional[int] = ...) -> None: ...

class ItemError(_message.Message):
    __slots__ = ("index", "reason", "field", "description")
    INDEX_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    FIELD_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    index: int
    reason: str
    field: str
    description: str
    def __init__(self, index: _Optional[int] = ..., reason: _Optional[str] = ..., field: _Optional[str] = ..., description: _Optional[str] = ...) -> None: ...

class GetFeatureRequest(_message.Message):
    __slots__ = ("collection", "id", "read_mask", "min_position")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    READ_MASK_FIELD_NUMBER: _ClassVar[int]
    MIN_POSITION_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    read_mask: _containers.RepeatedScalarFieldContainer[str]
    min_position: Position
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ..., read_mask: _Optional[_Iterable[str]] = ..., min_position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class GetFeatureResponse(_message.Message):
    __slots__ = ("feature", "sequence", "change_time_ns")
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    feature: Feature
    sequence: int
    change_time_ns: int
    def __init__(self, feature: _Optional[_Union[Feature, _Mapping]] = ..., sequence: _Optional[int] = ..., change_time_ns: _Optional[int] = ...) -> None: ...

class PutFeatureRequest(_message.Message):
    __slots__ = ("collection", "feature", "message_id", "expected_sequence")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    feature: Feature
    message_id: str
    expected_sequence: int
    def __init__(self, collection: _Optional[str] = ..., feature: _Optional[_Union[Feature, _Mapping]] = ..., message_id: _Optional[str] = ..., expected_sequence: _Optional[int] = ...) -> None: ...

class PutFeatureResponse(_message.Message):
    __slots__ = ("sequence", "duplicate", "position")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    duplicate: bool
    position: Position
    def __init__(self, sequence: _Optional[int] = ..., duplicate: _Optional[bool] = ..., position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class DeleteFeatureRequest(_message.Message):
    __slots__ = ("collection", "id", "message_id", "expected_sequence")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    EXPECTED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    collection: str
    id: str
    message_id: str
    expected_sequence: int
    def __init__(self, collection: _Optional[str] = ..., id: _Optional[str] = ..., message_id: _Optional[str] = ..., expected_sequence: _Optional[int] = ...) -> None: ...

class DeleteFeatureResponse(_message.Message):
    __slots__ = ("sequence", "duplicate", "position", "deleted")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    duplicate: bool
    position: Position
    deleted: bool
    def __init__(self, sequence: _Optional[int] = ..., duplicate: _Optional[bool] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., deleted: _Optional[bool] = ...) -> None: ...

class PutFenceRequest(_message.Message):
    __slots__ = ("fence", "message_id")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    fence: Fence
    message_id: str
    def __init__(self, fence: _Optional[_Union[Fence, _Mapping]] = ..., message_id: _Optional[str] = ...) -> None: ...

class PutFenceResponse(_message.Message):
    __slots__ = ("fence", "duplicate")
    FENCE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    fence: Fence
    duplicate: bool
    def __init__(self, fence: _Optional[_Union[Fence, _Mapping]] = ..., duplicate: _Optional[bool] = ...) -> None: ...

class DeleteFenceRequest(_message.Message):
    __slots__ = ("id", "notify_left")
    ID_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_LEFT_FIELD_NUMBER: _ClassVar[int]
    id: str
    notify_left: bool
    def __init__(self, id: _Optional[str] = ..., notify_left: _Optional[bool] = ...) -> None: ...

class DeleteFenceResponse(_message.Message):
    __slots__ = ("deleted",)
    DELETED_FIELD_NUMBER: _ClassVar[int]
    deleted: bool
    def __init__(self, deleted: _Optional[bool] = ...) -> None: ...

class ListFencesRequest(_message.Message):
    __slots__ = ("collection", "page_size", "page_token")
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    collection: str
    page_size: int
    page_token: str
    def __init__(self, collection: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListFencesResponse(_message.Message):
    __slots__ = ("fences", "next_page_token")
    FENCES_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    fences: _containers.RepeatedCompositeFieldContainer[Fence]
    next_page_token: str
    def __init__(self, fences: _Optional[_Iterable[_Union[Fence, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Point(_message.Message):
    __slots__ = ("latitude", "longitude")
    LATITUDE_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_FIELD_NUMBER: _ClassVar[int]
    latitude: int
    longitude: int
    def __init__(self, latitude: _Optional[int] = ..., longitude: _Optional[int] = ...) -> None: ...

class Feature(_message.Message):
    __slots__ = ("name", "location", "id", "properties", "expire_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    PROPERTIES_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    location: Point
    id: str
    properties: _struct_pb2.Struct
    expire_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., location: _Optional[_Union[Point, _Mapping]] = ..., id: _Optional[str] = ..., properties: _Optional[_Union[_struct_pb2.Struct, _Mapping]] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class Area(_message.Message):
    __slots__ = ("circle", "box", "polygon")
    CIRCLE_FIELD_NUMBER: _ClassVar[int]
    BOX_FIELD_NUMBER: _ClassVar[int]
    POLYGON_FIELD_NUMBER: _ClassVar[int]
    circle: Circle
    box: Box
    polygon: Polygon
    def __init__(self, circle: _Optional[_Union[Circle, _Mapping]] = ..., box: _Optional[_Union[Box, _Mapping]] = ..., polygon: _Optional[_Union[Polygon, _Mapping]] = ...) -> None: ...

class Circle(_message.Message):
    __slots__ = ("center", "radius_m")
    CENTER_FIELD_NUMBER: _ClassVar[int]
    RADIUS_M_FIELD_NUMBER: _ClassVar[int]
    center: Point
    radius_m: float
    def __init__(self, center: _Optional[_Union[Point, _Mapping]] = ..., radius_m: _Optional[float] = ...) -> None: ...

class Box(_message.Message):
    __slots__ = ("south", "west", "north", "east")
    SOUTH_FIELD_NUMBER: _ClassVar[int]
    WEST_FIELD_NUMBER: _ClassVar[int]
    NORTH_FIELD_NUMBER: _ClassVar[int]
    EAST_FIELD_NUMBER: _ClassVar[int]
    south: int
    west: int
    north: int
    east: int
    def __init__(self, south: _Optional[int] = ..., west: _Optional[int] = ..., north: _Optional[int] = ..., east: _Optional[int] = ...) -> None: ...

class Polygon(_message.Message):
    __slots__ = ("exterior", "holes")
    EXTERIOR_FIELD_NUMBER: _ClassVar[int]
    HOLES_FIELD_NUMBER: _ClassVar[int]
    exterior: Ring
    holes: _containers.RepeatedCompositeFieldContainer[Ring]
    def __init__(self, exterior: _Optional[_Union[Ring, _Mapping]] = ..., holes: _Optional[_Iterable[_Union[Ring, _Mapping]]] = ...) -> None: ...

class Ring(_message.Message):
    __slots__ = ("latitudes", "longitudes")
    LATITUDES_FIELD_NUMBER: _ClassVar[int]
    LONGITUDES_FIELD_NUMBER: _ClassVar[int]
    latitudes: _containers.RepeatedScalarFieldContainer[int]
    longitudes: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, latitudes: _Optional[_Iterable[int]] = ..., longitudes: _Optional[_Iterable[int]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("property", "operator", "value")
    PROPERTY_FIELD_NUMBER: _ClassVar[int]
    OPERATOR_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    property: str
    operator: FilterOperator
    value: _struct_pb2.Value
    def __init__(self, property: _Optional[str] = ..., operator: _Optional[_Union[FilterOperator, str]] = ..., value: _Optional[_Union[_struct_pb2.Value, _Mapping]] = ...) -> None: ...

class Fence(_message.Message):
    __slots__ = ("id", "collection", "area", "filters", "events", "topic", "dwell_time_ms", "notify_present", "expire_time", "notify_left_on_expiry", "uid", "revision")
    ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    AREA_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    DWELL_TIME_MS_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_PRESENT_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_LEFT_ON_EXPIRY_FIELD_NUMBER: _ClassVar[int]
    UID_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    id: str
    collection: str
    area: Area
    filters: _containers.RepeatedCompositeFieldContainer[Filter]
    events: _containers.RepeatedScalarFieldContainer[FenceEvent]
    topic: str
    dwell_time_ms: int
    notify_present: bool
    expire_time: _timestamp_pb2.Timestamp
    notify_left_on_expiry: bool
    uid: str
    revision: int
    def __init__(self, id: _Optional[str] = ..., collection: _Optional[str] = ..., area: _Optional[_Union[Area, _Mapping]] = ..., filters: _Optional[_Iterable[_Union[Filter, _Mapping]]] = ..., events: _Optional[_Iterable[_Union[FenceEvent, str]]] = ..., topic: _Optional[str] = ..., dwell_time_ms: _Optional[int] = ..., notify_present: _Optional[bool] = ..., expire_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., notify_left_on_expiry: _Optional[bool] = ..., uid: _Optional[str] = ..., revision: _Optional[int] = ...) -> None: ...

class FenceNotification(_message.Message):
    __slots__ = ("fence_id", "fence_uid", "fence_revision", "event", "feature", "collection", "sequence", "change_time_ns", "left_reason")
    FENCE_ID_FIELD_NUMBER: _ClassVar[int]
    FENCE_UID_FIELD_NUMBER: _ClassVar[int]
    FENCE_REVISION_FIELD_NUMBER: _ClassVar[int]
    EVENT_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    CHANGE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    LEFT_REASON_FIELD_NUMBER: _ClassVar[int]
    fence_id: str
    fence_uid: str
    fence_revision: int
    event: FenceEvent
    feature: Feature
    collection: str
    sequence: int
    change_time_ns: int
    left_reason: LeftReason
    def __init__(self, fence_id: _Optional[str] = ..., fence_uid: _Optional[str] = ..., fence_revision: _Optional[int] = ..., event: _Optional[_Union[FenceEvent, str]] = ..., feature: _Optional[_Union[Feature, _Mapping]] = ..., collection: _Optional[str] = ..., sequence: _Optional[int] = ..., change_time_ns: _Optional[int] = ..., left_reason: _Optional[_Union[LeftReason, str]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("token", "sequence")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    sequence: int
    def __init__(self, token: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...
