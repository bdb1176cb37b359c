from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class FenceRecord(_message.Message):
    __slots__ = ("format", "fence", "notify_left", "features_sequence")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    FENCE_FIELD_NUMBER: _ClassVar[int]
    NOTIFY_LEFT_FIELD_NUMBER: _ClassVar[int]
    FEATURES_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    format: int
    fence: bytes
    notify_left: bool
    features_sequence: int
    def __init__(self, format: _Optional[int] = ..., fence: _Optional[bytes] = ..., notify_left: _Optional[bool] = ..., features_sequence: _Optional[int] = ...) -> None: ...

class FenceStartRecord(_message.Message):
    __slots__ = ("format", "revision", "sequence")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    format: int
    revision: int
    sequence: int
    def __init__(self, format: _Optional[int] = ..., revision: _Optional[int] = ..., sequence: _Optional[int] = ...) -> None: ...

class FenceMemberRecord(_message.Message):
    __slots__ = ("format", "entered_sequence", "entered_time_ns", "sequence", "feature", "dwelled")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    ENTERED_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ENTERED_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    FEATURE_FIELD_NUMBER: _ClassVar[int]
    DWELLED_FIELD_NUMBER: _ClassVar[int]
    format: int
    entered_sequence: int
    entered_time_ns: int
    sequence: int
    feature: bytes
    dwelled: bool
    def __init__(self, format: _Optional[int] = ..., entered_sequence: _Optional[int] = ..., entered_time_ns: _Optional[int] = ..., sequence: _Optional[int] = ..., feature: _Optional[bytes] = ..., dwelled: _Optional[bool] = ...) -> None: ...

class FenceCursorRecord(_message.Message):
    __slots__ = ("format", "position", "sequence")
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    format: int
    position: bytes
    sequence: int
    def __init__(self, format: _Optional[int] = ..., position: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...
