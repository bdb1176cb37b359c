"""Every knob of the clients, with its unit and what more or less of it costs."""

from dataclasses import dataclass, field

from signpost.client.backoff import Backoff

MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class RetrySettings:
    """Unary calls.

    timeout_s: the whole of a call, all its tries and waits between them, unless the call says
    otherwise. try_timeout_s: one try of a repeatable call; less of it finds a dead connection
    sooner, and repeats a slow call in vain. budget_ratio: retries may add this share to the load,
    so that an outage is not made worse. budget_reserve: retries that are there from the start;
    they come back over `budget_refill_s` seconds.
    """

    timeout_s: float = 15.0
    try_timeout_s: float = 5.0
    budget_ratio: float = 0.1
    budget_reserve: float = 10.0
    budget_refill_s: float = 60.0


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """Long streams.

    heartbeat_interval_s: a ping or a progress frame after this much silence; twice as much
    without any frame is a dead connection. Less finds it sooner and costs an idle stream more.
    connect_timeout_s: a server that has not answered by then is tried again, or the next one.
    list_timeout_s: the same between two batches of a list, which has no heartbeat.
    window_bytes: what a subscription may hold that the caller has not taken; more bridges longer
    pauses of the caller at full speed, and is memory. Below 2 MiB Signpost's server cuts its
    batches to fit, which is several times slower.
    exchange_window: batches of `nearest` and `import_features` that may be unanswered.
    fault_limit: how many times in a row a server's internal error is tried again.
    """

    heartbeat_interval_s: float = 15.0
    connect_timeout_s: float = 10.0
    list_timeout_s: float = 30.0
    window_bytes: int = 4 * MIB
    exchange_window: int = 8
    fault_limit: int = 5


@dataclass(frozen=True, slots=True)
class OutboxSettings:
    """Publishes that are not answered yet.

    max_messages, max_bytes: beyond either, `publish` waits or raises OutboxFull, as asked.
    flush_timeout_s: how long `close()` waits for the answers. frame_bytes: the most that goes
    out as one frame; more is faster and delays what comes behind it. ordered: one frame at a time,
    and on the server one record of a topic at a time, so that the order holds even where it refuses
    some for the moment or its log engine reconnects; slower.
    """

    max_messages: int = 1_000
    max_bytes: int = 8 * MIB
    flush_timeout_s: float = 5.0
    frame_bytes: int = MIB
    ordered: bool = False


@dataclass(frozen=True, slots=True)
class ChannelSettings:
    """The connections.

    max_message_bytes: largest message, both ways; the servers have the same setting.
    compression: gzip both ways where True; costs processor time. keepalive_s: an HTTP/2 ping after this much
    silence while a call is open; a server that allows fewer ends the connection with
    too_many_pings (gRPC's own servers allow one in 300 s unless set; Signpost's allow it).
    None: none. health_checking: round robin leaves out servers that say NOT_SERVING.
    """

    max_message_bytes: int = 4 * MIB
    compression: bool = False
    keepalive_s: float | None = None
    health_checking: bool = True


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """All of them; the defaults suit most."""

    backoff: Backoff = field(default_factory=Backoff)
    retry: RetrySettings = field(default_factory=RetrySettings)
    stream: StreamSettings = field(default_factory=StreamSettings)
    outbox: OutboxSettings = field(default_factory=OutboxSettings)
    channel: ChannelSettings = field(default_factory=ChannelSettings)
