"""The method table: path, kind, types, and whether a call may be repeated.

`repeatable`: the same call again changes nothing more (a read, or a write that the server
recognises by its message id). `non_repeatable`: after a failure that may have come too late,
nobody knows; only a refusal (draining, rate limited) is tried again.
"""

import enum
from dataclasses import dataclass
from typing import Generic, TypeVar

from google.protobuf.message import Message

from protos.feature.v1 import feature_pb2 as fpb
from protos.notification.v1 import notification_pb2 as npb

Req = TypeVar("Req", bound=Message)
Res = TypeVar("Res", bound=Message)


class Kind(enum.Enum):
    """The kinds of gRPC methods, named as in `grpc_type` of the metrics."""

    UNARY = "unary"
    SERVER_STREAM = "server_stream"
    BIDI_STREAM = "bidi_stream"


@dataclass(frozen=True, slots=True)
class Method(Generic[Req, Res]):
    """One method. `path` as gRPC has it: `/package.Service/Method`."""

    path: str
    request: type[Req]
    response: type[Res]
    kind: Kind
    is_repeatable: bool

    @property
    def service(self) -> str:
        return self.path.split("/")[1]

    @property
    def name(self) -> str:
        return self.path.rsplit("/", 1)[1]


def repeatable(path: str, request: type[Req], response: type[Res]) -> Method[Req, Res]:
    """A unary method that is safe to call again."""
    return Method(path, request, response, Kind.UNARY, True)


def non_repeatable(path: str, request: type[Req], response: type[Res]) -> Method[Req, Res]:
    """A unary method that may take effect twice, or answer differently the second time."""
    return Method(path, request, response, Kind.UNARY, False)


def server_stream(path: str, request: type[Req], response: type[Res]) -> Method[Req, Res]:
    """A server-streaming method; the resume layer reopens it."""
    return Method(path, request, response, Kind.SERVER_STREAM, True)


def bidi_stream(path: str, request: type[Req], response: type[Res]) -> Method[Req, Res]:
    """A bidirectional method; the resume layer reopens it."""
    return Method(path, request, response, Kind.BIDI_STREAM, True)


FEATURE_SERVICE = "feature.v1.FeatureService"
LIST_FEATURES = server_stream(f"/{FEATURE_SERVICE}/ListFeatures", fpb.ListFeaturesRequest, fpb.ListFeaturesResponse)
WATCH_FEATURES = server_stream(f"/{FEATURE_SERVICE}/WatchFeatures", fpb.WatchFeaturesRequest, fpb.WatchFeaturesResponse)
NEAREST_FEATURES = bidi_stream(
    f"/{FEATURE_SERVICE}/NearestFeatures", fpb.NearestFeaturesRequest, fpb.NearestFeaturesResponse
)
IMPORT_FEATURES = bidi_stream(
    f"/{FEATURE_SERVICE}/ImportFeatures", fpb.ImportFeaturesRequest, fpb.ImportFeaturesResponse
)
GET_FEATURE = repeatable(f"/{FEATURE_SERVICE}/GetFeature", fpb.GetFeatureRequest, fpb.GetFeatureResponse)
# The writes are repeatable by their message id, which the client always sets.
PUT_FEATURE = repeatable(f"/{FEATURE_SERVICE}/PutFeature", fpb.PutFeatureRequest, fpb.PutFeatureResponse)
DELETE_FEATURE = repeatable(f"/{FEATURE_SERVICE}/DeleteFeature", fpb.DeleteFeatureRequest, fpb.DeleteFeatureResponse)
PUT_FENCE = repeatable(f"/{FEATURE_SERVICE}/PutFence", fpb.PutFenceRequest, fpb.PutFenceResponse)
# Without a message id the second call answers that there was nothing to delete.
DELETE_FENCE = non_repeatable(f"/{FEATURE_SERVICE}/DeleteFence", fpb.DeleteFenceRequest, fpb.DeleteFenceResponse)
LIST_FENCES = repeatable(f"/{FEATURE_SERVICE}/ListFences", fpb.ListFencesRequest, fpb.ListFencesResponse)

NOTIFICATION_SERVICE = "notification.v1.NotificationService"
CONNECT = bidi_stream(f"/{NOTIFICATION_SERVICE}/Connect", npb.ConnectRequest, npb.ConnectResponse)
PUBLISH = repeatable(f"/{NOTIFICATION_SERVICE}/Publish", npb.PublishRequest, npb.PublishResponse)
SUBSCRIBE = server_stream(f"/{NOTIFICATION_SERVICE}/Subscribe", npb.SubscribeRequest, npb.SubscribeResponse)
LIST_TOPICS = repeatable(f"/{NOTIFICATION_SERVICE}/ListTopics", npb.ListTopicsRequest, npb.ListTopicsResponse)
LIST_PRESENCE = repeatable(f"/{NOTIFICATION_SERVICE}/ListPresence", npb.ListPresenceRequest, npb.ListPresenceResponse)
