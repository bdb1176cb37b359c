"""Which methods a process serves, of which kind: read from the protos."""

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf import descriptor_pool


class Kind(enum.Enum):
    """The four kinds of call; the value is the label `grpc_type` of the metrics."""

    UNARY = "unary"
    CLIENT_STREAM = "client_stream"
    SERVER_STREAM = "server_stream"
    BIDI_STREAM = "bidi_stream"

    @property
    def streams_requests(self) -> bool:
        return self in (Kind.CLIENT_STREAM, Kind.BIDI_STREAM)

    @property
    def streams_responses(self) -> bool:
        return self in (Kind.SERVER_STREAM, Kind.BIDI_STREAM)

    @classmethod
    def of(cls, streams_requests: bool, streams_responses: bool) -> "Kind":
        if streams_requests:
            return cls.BIDI_STREAM if streams_responses else cls.CLIENT_STREAM
        return cls.SERVER_STREAM if streams_responses else cls.UNARY


@dataclass(frozen=True, slots=True)
class Method:
    """One method. `service` is the full name: `feature.v1.FeatureService`."""

    service: str
    name: str
    kind: Kind

    @property
    def path(self) -> str:
        return f"/{self.service}/{self.name}"


def methods_of(services: Iterable[str]) -> Iterator[Method]:
    """The methods of services whose protos are imported; KeyError for one that is not."""
    pool = descriptor_pool.Default()
    for service in services:
        for method in pool.FindServiceByName(service).methods:
            yield Method(service, method.name, Kind.of(method.client_streaming, method.server_streaming))
