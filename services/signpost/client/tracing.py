"""OpenTelemetry spans of the clients; needs `signpost[tracing]`, imported only by who asks for it.

    client = FeatureClient(instruments=TracingInstruments())

One CLIENT span a call, with the right status for every ending; the trace goes on in the server
(W3C `traceparent`). To have metrics too: `TracingInstruments(PrometheusInstruments())`.
"""

from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from signpost.client.instruments import AnyMethod, CallInstrument, Instruments, MetadataItems, NoInstruments


class TracingInstruments:
    """Spans, and whatever other instruments are to hear the same."""

    def __init__(self, then: Instruments | None = None, provider: TracerProvider | None = None) -> None:
        self._then = then or NoInstruments()
        self._tracer = trace.get_tracer("signpost.client", tracer_provider=provider)

    def call(self, method: AnyMethod, metadata: MetadataItems) -> CallInstrument:
        span = self._tracer.start_span(
            method.path.lstrip("/"),
            kind=SpanKind.CLIENT,
            attributes={"rpc.system": "grpc", "rpc.service": method.service, "rpc.method": method.name},
        )
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        metadata.extend(carrier.items())
        return _Call(span, self._then.call(method, metadata))

    def traceparent(self) -> str:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        return carrier.get("traceparent", "")

    def reconnected(self, stream: str) -> None:
        self._then.reconnected(stream)

    def resumed(self, stream: str) -> None:
        self._then.resumed(stream)

    def duplicates(self, stream: str, count: int) -> None:
        self._then.duplicates(stream, count)

    def gap(self, stream: str) -> None:
        self._then.gap(stream)

    def lag(self, stream: str, records: int, seconds: float) -> None:
        self._then.lag(stream, records, seconds)


class _Call:
    """A span that ends with its call. The number of messages stands in its attributes."""

    __slots__ = ("_received", "_sent", "_span", "_then")

    def __init__(self, span: Span, then: CallInstrument) -> None:
        self._span = span
        self._then = then
        self._sent = self._received = 0

    def sent(self) -> None:
        self._sent += 1
        self._then.sent()

    def received(self) -> None:
        self._received += 1
        self._then.received()

    def ended(self, code: str) -> None:
        self._then.ended(code)
        self._span.set_attributes(
            {"rpc.grpc.status": code, "rpc.messages.sent": self._sent, "rpc.messages.received": self._received}
        )
        # A call that its own side cancelled has not failed.
        if code not in ("OK", "CANCELLED"):
            self._span.set_status(Status(StatusCode.ERROR, code))
        self._span.end()
