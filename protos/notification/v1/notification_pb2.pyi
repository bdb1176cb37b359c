from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class GapReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    GAP_REASON_UNSPECIFIED: _ClassVar[GapReason]
    GAP_REASON_RETENTION: _ClassVar[GapReason]
    GAP_REASON_EPOCH_CHANGED: _ClassVar[GapReason]
    GAP_REASON_LOG_REWOUND: _ClassVar[GapReason]
GAP_REASON_UNSPECIFIED: GapReason
GAP_REASON_RETENTION: GapReason
GAP_REASON_EPOCH_CHANGED: GapReason
GAP_REASON_LOG_REWOUND: GapReason

class ConnectRequest(_message.Message):
    __slots__ = ("hello", "subscribe", "unsubscribe", "publish", "ack", "credit", "ping", "pong")
    HELLO_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    UNSUBSCRIBE_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_FIELD_NUMBER: _ClassVar[int]
    ACK_FIELD_NUMBER: _ClassVar[int]
    CREDIT_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    hello: Hello
    subscribe: SubscribeFrame
    unsubscribe: UnsubscribeFrame
    publish: PublishFrame
    ack: AckFrame
    credit: CreditFrame
    ping: Ping
    pong: Pong
    def __init__(self, hello: _Optional[_Union[Hello, _Mapping]] = ..., subscribe: _Optional[_Union[SubscribeFrame, _Mapping]] = ..., unsubscribe: _Optional[_Union[UnsubscribeFrame, _Mapping]] = ..., publish: _Optional[_Union[PublishFrame, _Mapping]] = ..., ack: _Optional[_Union[AckFrame, _Mapping]] = ..., credit: _Optional[_Union[CreditFrame, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ...) -> None: ...

class ConnectResponse(_message.Message):
    __slots__ = ("welcome", "subscribed", "delivery", "published", "gap", "draining", "ping", "pong", "error")
    WELCOME_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    PUBLISHED_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    PING_FIELD_NUMBER: _ClassVar[int]
    PONG_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    welcome: Welcome
    subscribed: Subscribed
    delivery: Delivery
    published: Published
    gap: Gap
    draining: Draining
    ping: Ping
    pong: Pong
    error: ErrorFrame
    def __init__(self, welcome: _Optional[_Union[Welcome, _Mapping]] = ..., subscribed: _Optional[_Union[Subscribed, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., published: _Optional[_Union[Published, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ..., ping: _Optional[_Union[Ping, _Mapping]] = ..., pong: _Optional[_Union[Pong, _Mapping]] = ..., error: _Optional[_Union[ErrorFrame, _Mapping]] = ...) -> None: ...

class Hello(_message.Message):
    __slots__ = ("client_id", "session_id", "protocol_features", "heartbeat_interval_ms")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FEATURES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    session_id: str
    protocol_features: _containers.RepeatedScalarFieldContainer[str]
    heartbeat_interval_ms: int
    def __init__(self, client_id: _Optional[str] = ..., session_id: _Optional[str] = ..., protocol_features: _Optional[_Iterable[str]] = ..., heartbeat_interval_ms: _Optional[int] = ...) -> None: ...

class Welcome(_message.Message):
    __slots__ = ("client_id", "session_id", "protocol_features", "heartbeat_interval_ms", "max_message_bytes", "max_record_bytes", "max_subscriptions", "head")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FEATURES_FIELD_NUMBER: _ClassVar[int]
    HEARTBEAT_INTERVAL_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_MESSAGE_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_RECORD_BYTES_FIELD_NUMBER: _ClassVar[int]
    MAX_SUBSCRIPTIONS_FIELD_NUMBER: _ClassVar[int]
    HEAD_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    session_id: str
    protocol_features: _containers.RepeatedScalarFieldContainer[str]
    heartbeat_interval_ms: int
    max_message_bytes: int
    max_record_bytes: int
    max_subscriptions: int
    head: Position
    def __init__(self, client_id: _Optional[str] = ..., session_id: _Optional[str] = ..., protocol_features: _Optional[_Iterable[str]] = ..., heartbeat_interval_ms: _Optional[int] = ..., max_message_bytes: _Optional[int] = ..., max_record_bytes: _Optional[int] = ..., max_subscriptions: _Optional[int] = ..., head: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class SubscribeFrame(_message.Message):
    __slots__ = ("subscription", "filter", "start", "window_bytes", "durable", "group", "ack_wait_ms", "max_deliveries", "max_in_flight")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    WINDOW_BYTES_FIELD_NUMBER: _ClassVar[int]
    DURABLE_FIELD_NUMBER: _ClassVar[int]
    GROUP_FIELD_NUMBER: _ClassVar[int]
    ACK_WAIT_MS_FIELD_NUMBER: _ClassVar[int]
    MAX_DELIVERIES_FIELD_NUMBER: _ClassVar[int]
    MAX_IN_FLIGHT_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    filter: str
    start: Start
    window_bytes: int
    durable: bool
    group: str
    ack_wait_ms: int
    max_deliveries: int
    max_in_flight: int
    def __init__(self, subscription: _Optional[str] = ..., filter: _Optional[str] = ..., start: _Optional[_Union[Start, _Mapping]] = ..., window_bytes: _Optional[int] = ..., durable: _Optional[bool] = ..., group: _Optional[str] = ..., ack_wait_ms: _Optional[int] = ..., max_deliveries: _Optional[int] = ..., max_in_flight: _Optional[int] = ...) -> None: ...

class Start(_message.Message):
    __slots__ = ("new", "earliest", "after", "time_ns", "cursor", "last_of_each")
    NEW_FIELD_NUMBER: _ClassVar[int]
    EARLIEST_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    CURSOR_FIELD_NUMBER: _ClassVar[int]
    LAST_OF_EACH_FIELD_NUMBER: _ClassVar[int]
    new: StartNew
    earliest: StartEarliest
    after: Position
    time_ns: int
    cursor: StartCursor
    last_of_each: StartLastOfEach
    def __init__(self, new: _Optional[_Union[StartNew, _Mapping]] = ..., earliest: _Optional[_Union[StartEarliest, _Mapping]] = ..., after: _Optional[_Union[Position, _Mapping]] = ..., time_ns: _Optional[int] = ..., cursor: _Optional[_Union[StartCursor, _Mapping]] = ..., last_of_each: _Optional[_Union[StartLastOfEach, _Mapping]] = ...) -> None: ...

class StartNew(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartEarliest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartCursor(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StartLastOfEach(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class UnsubscribeFrame(_message.Message):
    __slots__ = ("subscription", "forget_cursor")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    FORGET_CURSOR_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    forget_cursor: bool
    def __init__(self, subscription: _Optional[str] = ..., forget_cursor: _Optional[bool] = ...) -> None: ...

class PublishFrame(_message.Message):
    __slots__ = ("id", "publications", "ordered")
    ID_FIELD_NUMBER: _ClassVar[int]
    PUBLICATIONS_FIELD_NUMBER: _ClassVar[int]
    ORDERED_FIELD_NUMBER: _ClassVar[int]
    id: int
    publications: _containers.RepeatedCompositeFieldContainer[Publication]
    ordered: bool
    def __init__(self, id: _Optional[int] = ..., publications: _Optional[_Iterable[_Union[Publication, _Mapping]]] = ..., ordered: _Optional[bool] = ...) -> None: ...

class Publication(_message.Message):
    __slots__ = ("topic", "message_id", "payload", "attributes", "ttl_ms", "traceparent")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    topic: str
    message_id: str
    payload: bytes
    attributes: _containers.ScalarMap[str, str]
    ttl_ms: int
    traceparent: str
    def __init__(self, topic: _Optional[str] = ..., message_id: _Optional[str] = ..., payload: _Optional[bytes] = ..., attributes: _Optional[_Mapping[str, str]] = ..., ttl_ms: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class AckFrame(_message.Message):
    __slots__ = ("subscription", "through", "sequences", "rejected_sequences")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    REJECTED_SEQUENCES_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    through: Position
    sequences: _containers.RepeatedScalarFieldContainer[int]
    rejected_sequences: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, subscription: _Optional[str] = ..., through: _Optional[_Union[Position, _Mapping]] = ..., sequences: _Optional[_Iterable[int]] = ..., rejected_sequences: _Optional[_Iterable[int]] = ...) -> None: ...

class CreditFrame(_message.Message):
    __slots__ = ("subscription", "bytes")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    bytes: int
    def __init__(self, subscription: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class Ping(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Pong(_message.Message):
    __slots__ = ("id",)
    ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    def __init__(self, id: _Optional[int] = ...) -> None: ...

class Subscribed(_message.Message):
    __slots__ = ("subscription", "position")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    position: Position
    def __init__(self, subscription: _Optional[str] = ..., position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class Delivery(_message.Message):
    __slots__ = ("subscription", "after", "through", "position", "notifications", "redeliveries")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    AFTER_FIELD_NUMBER: _ClassVar[int]
    THROUGH_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    NOTIFICATIONS_FIELD_NUMBER: _ClassVar[int]
    REDELIVERIES_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    after: int
    through: int
    position: Position
    notifications: _containers.RepeatedCompositeFieldContainer[Notification]
    redeliveries: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, subscription: _Optional[str] = ..., after: _Optional[int] = ..., through: _Optional[int] = ..., position: _Optional[_Union[Position, _Mapping]] = ..., notifications: _Optional[_Iterable[_Union[Notification, _Mapping]]] = ..., redeliveries: _Optional[_Iterable[int]] = ...) -> None: ...

class Notification(_message.Message):
    __slots__ = ("sequence", "time_ns", "topic", "message_id", "payload", "attributes", "expire_time_ns", "traceparent")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    EXPIRE_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    TRACEPARENT_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    time_ns: int
    topic: str
    message_id: str
    payload: bytes
    attributes: _containers.ScalarMap[str, str]
    expire_time_ns: int
    traceparent: str
    def __init__(self, sequence: _Optional[int] = ..., time_ns: _Optional[int] = ..., topic: _Optional[str] = ..., message_id: _Optional[str] = ..., payload: _Optional[bytes] = ..., attributes: _Optional[_Mapping[str, str]] = ..., expire_time_ns: _Optional[int] = ..., traceparent: _Optional[str] = ...) -> None: ...

class Published(_message.Message):
    __slots__ = ("id", "results")
    ID_FIELD_NUMBER: _ClassVar[int]
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    results: _containers.RepeatedCompositeFieldContainer[PublishResult]
    def __init__(self, id: _Optional[int] = ..., results: _Optional[_Iterable[_Union[PublishResult, _Mapping]]] = ...) -> None: ...

class PublishResult(_message.Message):
    __slots__ = ("sequence", "duplicate", "error")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    duplicate: bool
    error: Error
    def __init__(self, sequence: _Optional[int] = ..., duplicate: _Optional[bool] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Gap(_message.Message):
    __slots__ = ("subscription", "requested", "first_available", "reason")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_FIELD_NUMBER: _ClassVar[int]
    FIRST_AVAILABLE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    requested: Position
    first_available: int
    reason: GapReason
    def __init__(self, subscription: _Optional[str] = ..., requested: _Optional[_Union[Position, _Mapping]] = ..., first_available: _Optional[int] = ..., reason: _Optional[_Union[GapReason, str]] = ...) -> None: ...

class Draining(_message.Message):
    __slots__ = ("deadline_ms",)
    DEADLINE_MS_FIELD_NUMBER: _ClassVar[int]
    deadline_ms: int
    def __init__(self, deadline_ms: _Optional[int] = ...) -> None: ...

class ErrorFrame(_message.Message):
    __slots__ = ("subscription", "publish_id", "error")
    SUBSCRIPTION_FIELD_NUMBER: _ClassVar[int]
    PUBLISH_ID_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    subscription: str
    publish_id: int
    error: Error
    def __init__(self, subscription: _Optional[str] = ..., publish_id: _Optional[int] = ..., error: _Optional[_Union[Error, _Mapping]] = ...) -> None: ...

class Error(_message.Message):
    __slots__ = ("code", "reason", "message", "metadata", "retry_after_ms")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    CODE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    RETRY_AFTER_MS_FIELD_NUMBER: _ClassVar[int]
    code: int
    reason: str
    message: str
    metadata: _containers.ScalarMap[str, str]
    retry_after_ms: int
    def __init__(self, code: _Optional[int] = ..., reason: _Optional[str] = ..., message: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ..., retry_after_ms: _Optional[int] = ...) -> None: ...

class PublishRequest(_message.Message):
    __slots__ = ("topic", "message_id", "payload", "attributes", "ttl_ms")
    class AttributesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    PAYLOAD_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTES_FIELD_NUMBER: _ClassVar[int]
    TTL_MS_FIELD_NUMBER: _ClassVar[int]
    topic: str
    message_id: str
    payload: bytes
    attributes: _containers.ScalarMap[str, str]
    ttl_ms: int
    def __init__(self, topic: _Optional[str] = ..., message_id: _Optional[str] = ..., payload: _Optional[bytes] = ..., attributes: _Optional[_Mapping[str, str]] = ..., ttl_ms: _Optional[int] = ...) -> None: ...

class PublishResponse(_message.Message):
    __slots__ = ("sequence", "duplicate", "position")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    duplicate: bool
    position: Position
    def __init__(self, sequence: _Optional[int] = ..., duplicate: _Optional[bool] = ..., position: _Optional[_Union[Position, _Mapping]] = ...) -> None: ...

class SubscribeRequest(_message.Message):
    __slots__ = ("filter", "start")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    START_FIELD_NUMBER: _ClassVar[int]
    filter: str
    start: Start
    def __init__(self, filter: _Optional[str] = ..., start: _Optional[_Union[Start, _Mapping]] = ...) -> None: ...

class SubscribeResponse(_message.Message):
    __slots__ = ("subscribed", "delivery", "gap", "draining")
    SUBSCRIBED_FIELD_NUMBER: _ClassVar[int]
    DELIVERY_FIELD_NUMBER: _ClassVar[int]
    GAP_FIELD_NUMBER: _ClassVar[int]
    DRAINING_FIELD_NUMBER: _ClassVar[int]
    subscribed: Subscribed
    delivery: Delivery
    gap: Gap
    draining: Draining
    def __init__(self, subscribed: _Optional[_Union[Subscribed, _Mapping]] = ..., delivery: _Optional[_Union[Delivery, _Mapping]] = ..., gap: _Optional[_Union[Gap, _Mapping]] = ..., draining: _Optional[_Union[Draining, _Mapping]] = ...) -> None: ...

class ListTopicsRequest(_message.Message):
    __slots__ = ("filter", "page_size", "page_token")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    filter: str
    page_size: int
    page_token: str
    def __init__(self, filter: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListTopicsResponse(_message.Message):
    __slots__ = ("topics", "next_page_token")
    TOPICS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    topics: _containers.RepeatedCompositeFieldContainer[Topic]
    next_page_token: str
    def __init__(self, topics: _Optional[_Iterable[_Union[Topic, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Topic(_message.Message):
    __slots__ = ("name", "first_sequence", "last_sequence", "records", "subscribers")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FIRST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    LAST_SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    RECORDS_FIELD_NUMBER: _ClassVar[int]
    SUBSCRIBERS_FIELD_NUMBER: _ClassVar[int]
    name: str
    first_sequence: int
    last_sequence: int
    records: int
    subscribers: int
    def __init__(self, name: _Optional[str] = ..., first_sequence: _Optional[int] = ..., last_sequence: _Optional[int] = ..., records: _Optional[int] = ..., subscribers: _Optional[int] = ...) -> None: ...

class ListPresenceRequest(_message.Message):
    __slots__ = ("topic", "page_size", "page_token")
    TOPIC_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    topic: str
    page_size: int
    page_token: str
    def __init__(self, topic: _Optional[str] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPresenceResponse(_message.Message):
    __slots__ = ("clients", "next_page_token")
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    clients: _containers.RepeatedCompositeFieldContainer[Presence]
    next_page_token: str
    def __init__(self, clients: _Optional[_Iterable[_Union[Presence, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class Presence(_message.Message):
    __slots__ = ("client_id", "connected_time_ns", "filters")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    CONNECTED_TIME_NS_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    connected_time_ns: int
    filters: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, client_id: _Optional[str] = ..., connected_time_ns: _Optional[int] = ..., filters: _Optional[_Iterable[str]] = ...) -> None: ...

class PresenceEvent(_message.Message):
    __slots__ = ("client_id", "joined", "time_ns", "filters")
    CLIENT_ID_FIELD_NUMBER: _ClassVar[int]
    JOINED_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_FIELD_NUMBER: _ClassVar[int]
    FILTERS_FIELD_NUMBER: _ClassVar[int]
    client_id: str
    joined: bool
    time_ns: int
    filters: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, client_id: _Optional[str] = ..., joined: _Optional[bool] = ..., time_ns: _Optional[int] = ..., filters: _Optional[_Iterable[str]] = ...) -> None: ...

class Position(_message.Message):
    __slots__ = ("token", "sequence")
    TOKEN_FIELD_NUMBER: _ClassVar[int]
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    token: bytes
    sequence: int
    def __init__(self, token: _Optional[bytes] = ..., sequence: _Optional[int] = ...) -> None: ...
