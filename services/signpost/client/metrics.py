"""Prometheus metrics of the clients; needs `signpost[metrics]`, imported only by who asks for it.

    client = NotificationClient(instruments=PrometheusInstruments())

The `grpc_client_*` names, labels and buckets are those of go-grpc-middleware, so that dashboards
made for them work unmodified.
"""

import time

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Histogram

from signpost.client.instruments import AnyMethod, CallInstrument, MetadataItems

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
_LABELS = ("grpc_type", "grpc_service", "grpc_method")


def code_label(code: str) -> str:
    """gRPC's code as Go writes it: INVALID_ARGUMENT is InvalidArgument, CANCELLED is Canceled."""
    special = {"OK": "OK", "CANCELLED": "Canceled"}
    return special.get(code) or code.title().replace("_", "")


class PrometheusInstruments:
    """Counts into one registry. One instance a registry; share it among clients."""

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._started = Counter("grpc_client_started", "RPCs started.", _LABELS, registry=registry)
        self._handled = Counter("grpc_client_handled", "RPCs ended.", (*_LABELS, "grpc_code"), registry=registry)
        self._sent = Counter("grpc_client_msg_sent", "Messages sent.", _LABELS, registry=registry)
        self._received = Counter("grpc_client_msg_received", "Messages received.", _LABELS, registry=registry)
        self._seconds = Histogram(
            "grpc_client_handling_seconds", "RPC duration.", _LABELS, buckets=_BUCKETS, registry=registry
        )
        stream = ("stream",)
        self._reconnects = Counter("signpost_client_reconnects", "Streams opened again.", stream, registry=registry)
        self._resumes = Counter("signpost_client_resumes", "Streams resumed.", stream, registry=registry)
        self._duplicates = Counter(
            "signpost_client_duplicates_dropped", "Records that came again.", stream, registry=registry
        )
        self._gaps = Counter("signpost_client_gaps", "Gaps told by the server.", stream, registry=registry)
        self._lag_records = Gauge(
            "signpost_client_lag_records", "Records received that the caller has not taken.", stream, registry=registry
        )
        self._lag_seconds = Gauge(
            "signpost_client_lag_seconds", "Age of the newest record taken.", stream, registry=registry
        )

    def call(self, method: AnyMethod, metadata: MetadataItems) -> CallInstrument:
        labels = (method.kind.value, method.service, method.name)
        self._started.labels(*labels).inc()
        return _Call(
            labels,
            self._sent.labels(*labels),
            self._received.labels(*labels),
            self._handled,
            self._seconds.labels(*labels),
        )

    def traceparent(self) -> str:
        return ""

    def reconnected(self, stream: str) -> None:
        self._reconnects.labels(stream).inc()

    def resumed(self, stream: str) -> None:
        self._resumes.labels(stream).inc()

    def duplicates(self, stream: str, count: int) -> None:
        self._duplicates.labels(stream).inc(count)

    def gap(self, stream: str) -> None:
        self._gaps.labels(stream).inc()

    def lag(self, stream: str, records: int, seconds: float) -> None:
        self._lag_records.labels(stream).set(records)
        self._lag_seconds.labels(stream).set(seconds)


class _Call:
    __slots__ = ("_began_s", "_handled", "_labels", "_seconds", "received", "sent")

    def __init__(
        self, labels: tuple[str, str, str], sent: Counter, received: Counter, handled: Counter, seconds: Histogram
    ) -> None:
        self._labels = labels
        self.sent = sent.inc
        self.received = received.inc
        self._handled = handled
        self._seconds = seconds
        self._began_s = time.perf_counter()

    def ended(self, code: str) -> None:
        self._handled.labels(*self._labels, code_label(code)).inc()
        self._seconds.observe(time.perf_counter() - self._began_s)
