"""Server metrics after the go-grpc-middleware contract, so that its dashboards and mixins work unmodified.

Per call: one counter, one histogram. Per message: one addition to a plain integer, read at scrape time.
Every method is there from the start with every code, at 0. A call is counted as handled exactly once,
however it ends. Names, labels and buckets are the contract: change nothing here.
"""

from collections.abc import Iterable, Iterator, Mapping

import grpc
import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from signpost.server.addresses import Address
from signpost.server.methods import Method

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)
LABELS = ("grpc_type", "grpc_service", "grpc_method")


def code_name(code: grpc.StatusCode) -> str:
    """Go's name of a code: `OK`, `Canceled`, `InvalidArgument`, ..."""
    if code is grpc.StatusCode.OK:
        return "OK"
    if code is grpc.StatusCode.CANCELLED:
        return "Canceled"  # Go spells it with one L
    return "".join(part.capitalize() for part in code.name.split("_"))


CODE_NAMES: Mapping[grpc.StatusCode, str] = {code: code_name(code) for code in grpc.StatusCode}


class MethodMetrics:
    """One method's figures. The integers belong to the event loop; scrapes only read them."""

    __slots__ = ("_handled", "_seconds", "labels", "open", "received", "sent", "started")

    def __init__(self, method: Method, handled: Counter, seconds: Histogram) -> None:
        self.labels = (method.kind.value, method.service, method.name)
        self.started = self.received = self.sent = self.open = 0
        self._handled = {code: handled.labels(*self.labels, name) for code, name in CODE_NAMES.items()}
        self._seconds = seconds.labels(*self.labels)

    def start(self) -> None:
        self.started += 1
        self.open += 1

    def finish(self, code: grpc.StatusCode, seconds: float, trace_id: str | None = None) -> None:
        """Once a call. `trace_id` becomes the exemplar of the histogram's bucket."""
        self.open -= 1
        self._handled[code].inc()
        self._seconds.observe(seconds, {"trace_id": trace_id} if trace_id else None)


class ServerMetrics(Collector):
    """The figures of all methods of a server, in one registry."""

    def __init__(self, methods: Iterable[Method], registry: CollectorRegistry = prometheus_client.REGISTRY) -> None:
        handled = Counter(
            "grpc_server_handled",
            "Total number of RPCs completed on the server, regardless of success or failure.",
            (*LABELS, "grpc_code"),
            registry=registry,
        )
        seconds = Histogram(
            "grpc_server_handling_seconds",
            "Histogram of response latency (seconds) of gRPC that had been application-level handled by the server.",
            LABELS,
            buckets=BUCKETS_S,
            registry=registry,
        )
        self._methods = {method.path: MethodMetrics(method, handled, seconds) for method in methods}
        registry.register(self)

    def of(self, method: Method) -> MethodMetrics:
        return self._methods[method.path]

    def collect(self) -> Iterator[Metric]:
        started = CounterMetricFamily(
            "grpc_server_started", "Total number of RPCs started on the server.", labels=LABELS
        )
        received = CounterMetricFamily(
            "grpc_server_msg_received", "Total number of RPC stream messages received on the server.", labels=LABELS
        )
        sent = CounterMetricFamily(
            "grpc_server_msg_sent", "Total number of gRPC stream messages sent by the server.", labels=LABELS
        )
        in_flight = GaugeMetricFamily("signpost_calls_open", "Calls in progress, streams included.", labels=LABELS)
        for method in self._methods.values():
            started.add_metric(method.labels, method.started)
            received.add_metric(method.labels, method.received)
            sent.add_metric(method.labels, method.sent)
            in_flight.add_metric(method.labels, method.open)
        yield from (started, received, sent, in_flight)


def serve_metrics(address: Address, registry: CollectorRegistry = prometheus_client.REGISTRY) -> Address:
    """Serve a registry over HTTP at /metrics for the life of the process, from a thread of its own.

    Answers the address with its port. Raises OSError where it is taken.
    """
    server, _ = prometheus_client.start_http_server(address.port, address.host, registry)
    return Address(address.host, server.server_port)
