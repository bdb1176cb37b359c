from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class FeatureRecord(_message.Message):
    __slots__ = ("format", "put", "deleted", "expired", "dwelled", "principal", "traceparent")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PUT_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    EXPIRED_FIELD_NUMBER: _ClassVar[int]
    DWELLED_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    format: int
    put: bytes
    deleted: Tombstone
    expired: Tombstone
    dwelled: Dwelled
    principal: str
    traceparent: str
    def __init__(self, format: _Optional[int] = ..., put: _Optional[bytes] = ..., deleted: _Optional[_Union[Tombstone, _Mapping]] = ..., expired: _Optional[_Union[Tombstone, _Mapping]] = ..., dwelled: _Optional[_Union[Dwelled, _Mapping]] = ..., principal: _Optional[str] = ..., traceparent: _Optional[str] = ...) -> None: ...

class FeatureHead(_message.Message):
    __slots__ = ("location", "id", "expire_time")
    LOCATION_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_FIELD_NUMBER: _ClassVar[int]
    location: HeadLocation
    id: str
    expire_time: HeadTime
    def __init__(self, location: _Optional[_Union[HeadLocation, _Mapping]] = ..., id: _Optional[str] = ..., expire_time: _Optional[_Union[HeadTime, _Mapping]] = ...) -> None: ...

class ImportBatch(_message.Message):
    __slots__ = ("id", "collection", "features")
    ID_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    id: int
    collection: str
    features: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, id: _Optional[int] = ..., collection: _Optional[str] = ..., features: _Optional[_Iterable[bytes]] = ...) -> None: ...

class HeadLocation(_message.Message):
    __slots__ = ("latitude", "longitude")
    LATITUDE_FIELD_NUMBER: _ClassVar[int]
    LONGITUDE_FIELD_NUMBER: _ClassVar[int]
    latitude: int
    longitude: int
    def __init__(self, latitude: _Optional[int] = ..., longitude: _Optional[int] = ...) -> None: ...

class HeadTime(_message.Message):
    __slots__ = ("seconds", "nanos")
    SECONDS_FIELD_NUMBER: _ClassVar[int]
    NANOS_FIELD_NUMBER: _ClassVar[int]
    seconds: int
    nanos: int
    def __init__(self, seconds: _Optional[int] = ..., nanos: _Optional[int] = ...) -> None: ...

class Tombstone(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Dwelled(_message.Message):
    __slots__ = ("fence_uid", "fence_revision", "entered_sequence", "collection", "feature_id")
    FENCE_UID_FIELD_NUMBER: _ClassVar[int]
    FENCE_REVISION_FIELD_NUMBER: _ClassVar[int]
    ENTERED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    COLLECTION_FIELD_NUMBER: _ClassVar[int]
    FEATURE_ID_FIELD_NUMBER: _ClassVar[int]
    fence_uid: str
    fence_revision: int
    entered_sequence: int
    collection: str
    feature_id: str
    def __init__(self, fence_uid: _Optional[str] = ..., fence_revision: _Optional[int] = ..., entered_sequence: _Optional[int] = ..., collection: _Optional[str] = ..., feature_id: _Optional[str] = ...) -> None: ...

class NotificationRecord(_message.Message):
    __slots__ = ("format", "published", "principal")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    PRINCIPAL_FIELD_NUMBER: _ClassVar[int]
    format: int
    published: bytes
    principal: str
    def __init__(self, format: _Optional[int] = ..., published: _Optional[bytes] = ..., principal: _Optional[str] = ...) -> None: ...

class GroupState(_message.Message):
    __slots__ = ("epoch", "floor", "done_deltas", "tried", "tries")
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    FLOOR_FIELD_NUMBER: _ClassVar[int]
    DONE_DELTAS_FIELD_NUMBER: _ClassVar[int]
    TRIED_FIELD_NUMBER: _ClassVar[int]
    TRIES_FIELD_NUMBER: _ClassVar[int]
    epoch: bytes
    floor: int
    done_deltas: _containers.RepeatedScalarFieldContainer[int]
    tried: _containers.RepeatedScalarFieldContainer[int]
    tries: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, epoch: _Optional[bytes] = ..., floor: _Optional[int] = ..., done_deltas: _Optional[_Iterable[int]] = ..., tried: _Optional[_Iterable[int]] = ..., tries: _Optional[_Iterable[int]] = ...) -> None: ...

class CursorRecord(_message.Message):
    __slots__ = ("format", "position", "sequence", "epoch")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    EPOCH_FIELD_NUMBER: _ClassVar[int]
    format: int
    position: bytes
    sequence: int
    epoch: bytes
    def __init__(self, format: _Optional[int] = ..., position: _Optional[bytes] = ..., sequence: _Optional[int] = ..., epoch: _Optional[bytes] = ...) -> None: ...

class SessionRecord(_message.Message):
    __slots__ = ("format", "session_id", "since_time_ns", "fenced_session_ids")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    SINCE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    FENCED_SESSION_IDS_FIELD_NUMBER: _ClassVar[int]
    format: int
    session_id: str
    since_time_ns: int
    fenced_session_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, format: _Optional[int] = ..., session_id: _Optional[str] = ..., since_time_ns: _Optional[int] = ..., fenced_session_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class PresenceRecord(_message.Message):
    __slots__ = ("format", "connected_time_ns", "filters")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    format: int
    connected_time_ns: int
    filters: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, format: _Optional[int] = ..., connected_time_ns: _Optional[int] = ..., filters: _Optional[_Iterable[str]] = ...) -> None: ...

class ReplicaRecord(_message.Message):
    __slots__ = ("format", "renewals")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    RENEWALS_FIELD_NUMBER: _ClassVar[int]
    format: int
    renewals: int
    def __init__(self, format: _Optional[int] = ..., renewals: _Optional[int] = ...) -> None: ...

class RecordBatch(_message.Message):
    __slots__ = ("sequences", "subjects", "message_ids", "times_ns", "payloads", "tombstones", "previous")
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    SUBJECTS_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_IDS_FIELD_NUMBER: _ClassVar[int]
    TIMES_NS_FIELD_NUMBER: _ClassVar[int]
    PAYLOADS_FIELD_NUMBER: _ClassVar[int]
    TOMBSTONES_FIELD_NUMBER: _ClassVar[int]
    PREVIOUS_FIELD_NUMBER: _ClassVar[int]
    sequences: _containers.RepeatedScalarFieldContainer[int]
    subjects: _containers.RepeatedScalarFieldContainer[str]
    message_ids: _containers.RepeatedScalarFieldContainer[str]
    times_ns: _containers.RepeatedScalarFieldContainer[int]
    payloads: _containers.RepeatedScalarFieldContainer[bytes]
    tombstones: _containers.RepeatedScalarFieldContainer[bool]
    previous: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, sequences: _Optional[_Iterable[int]] = ..., subjects: _Optional[_Iterable[str]] = ..., message_ids: _Optional[_Iterable[str]] = ..., times_ns: _Optional[_Iterable[int]] = ..., payloads: _Optional[_Iterable[bytes]] = ..., tombstones: _Optional[_Iterable[bool]] = ..., previous: _Optional[_Iterable[int]] = ...) -> None: ...
