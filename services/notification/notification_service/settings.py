"""What the notification service can be told beside what every service can."""

from typing import ClassVar

from pydantic import Field
from signpost.server import ServerSettings
from signpost.server.settings import Addresses


class NotificationSettings(ServerSettings):
    """Flags and environment of `python -m notification_service`."""

    default_database: ClassVar[str] = "notification.db"
    distribution: ClassVar[str] = "signpost-notification-service"

    listen: Addresses = Field(
        ("localhost:50052",),
        description="Where to serve gRPC, host:port, comma-separated or repeated. `localhost` means the IPv4 and the "
        "IPv6 loopback; `[::]` everything; port 0 a free one, which the first log line names",
    )
    metrics_listen: Addresses = Field(
        ("localhost:9102",),
        description="Where to serve Prometheus metrics over HTTP at /metrics, as --listen; `off`: nowhere",
    )

    max_message_bytes: int = Field(
        4 * 1024 * 1024,
        ge=2 * 1024 * 1024,
        le=1 << 30,
        description="Largest message either side may send, in bytes, before compression; larger costs memory a call. "
        "At least 2 MiB: a delivery with large records takes more than one",
    )

    retention_s: float = Field(
        7 * 86_400,
        gt=0,
        description="How long notifications stay, in seconds; longer lets clients be away longer and costs disk",
    )
    retention_bytes: int = Field(
        0, ge=0, description="Most payload bytes that stay, the oldest go first; 0: as many as there are"
    )
    dedupe_window_s: float = Field(
        3600, gt=0, description="How long message ids are recognised, in seconds; costs about 40 bytes a record"
    )
    tail_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024 * 1024,
        description="Newest records in memory, in bytes, for clients that resume; more serves longer absences from it",
    )
    buffer_bytes: int = Field(
        1024 * 1024,
        ge=64 * 1024,
        description="How far a subscriber may be behind, in bytes, before it is served from the tail or the log; "
        "the most that one that stopped reading holds in memory",
    )
    round_pause: float = Field(
        1.5,
        ge=0,
        le=100,
        description="Pause after each delivery round, as a multiple of the time it took, at most 10 ms: more favours "
        "publishers' throughput, less the latency under load; a quiet stream's notification is never held back",
    )
    presence_grace_s: float = Field(
        5,
        ge=0,
        le=3600,
        description="How long a client may be without a stream before it has left, in seconds; longer hides longer "
        "reconnects, shorter tells sooner who is gone",
    )
    presence_lease_s: float = Field(
        15,
        ge=0.3,
        le=3600,
        description="How long a replica may be silent before its clients have left, in seconds; longer forgives longer "
        "pauses, shorter tells sooner after a crash. The same on all replicas",
    )
    max_subscriptions: int = Field(1000, ge=1, description="Subscriptions that one stream may hold")
    publish_rate_per_s: float = Field(
        0, ge=0, description="Publishes a second that one client may send on average; 0: no limit"
    )
    publish_burst: float = Field(
        1000, ge=1, description="Publishes that one client may send at once where --publish-rate-per-s is set"
    )
