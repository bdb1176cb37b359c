"""gRPC's channel arguments of a server, from its settings."""

from signpost.server.settings import ServerSettings

TRANSPORT_FACTOR = 2
"""gRPC's own limit is this many times the setting: in between, a message that is too large is answered
TOO_LARGE with its size and the limit; beyond, by gRPC's RESOURCE_EXHAUSTED without details."""


def server_options(settings: ServerSettings) -> list[tuple[str, int]]:
    """Channel arguments; every one that matters is set, so that a new gRPC default changes nothing."""
    options = [
        ("grpc.so_reuseport", 0),  # a port already taken must be noticed, not shared
        ("grpc.max_receive_message_length", settings.max_message_bytes * TRANSPORT_FACTOR),
        ("grpc.max_send_message_length", settings.max_message_bytes),
        ("grpc.server.max_pending_requests", settings.max_pending_calls),
        ("grpc.server.max_pending_requests_hard_limit", settings.max_pending_calls),
        ("grpc.keepalive_time_ms", _ms(settings.keepalive_s)),
        ("grpc.keepalive_timeout_ms", _ms(settings.keepalive_timeout_s)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_ping_interval_without_data_ms", _ms(settings.keepalive_min_client_s)),
    ]
    if settings.read_ahead_bytes:
        options += [("grpc.http2.lookahead_bytes", settings.read_ahead_bytes), ("grpc.http2.bdp_probe", 0)]
    if settings.max_connection_age_s:
        options += [
            ("grpc.max_connection_age_ms", _ms(settings.max_connection_age_s)),
            ("grpc.max_connection_age_grace_ms", _ms(settings.max_connection_age_grace_s)),
        ]
    return options


def _ms(seconds: float) -> int:
    return max(1, round(seconds * 1000))
