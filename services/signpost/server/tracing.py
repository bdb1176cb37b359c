"""Traces: a span for each call with the right status however it ends, and links from deliveries.

Off (and free) unless an OTLP endpoint is configured, by `OTEL_EXPORTER_OTLP_ENDPOINT` or its settings.
A caller's `traceparent` is taken up either way, so that what is stored names its publisher's trace.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import grpc
from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from signpost.server.methods import Kind, Method

ENDPOINT_VARIABLES = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
ERROR_CODES = frozenset(
    {
        grpc.StatusCode.UNKNOWN,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNIMPLEMENTED,
        grpc.StatusCode.INTERNAL,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)
"""Codes that are the server's fault: OpenTelemetry's conventions mark only these as errors of a server span."""

_PROPAGATOR = TraceContextTextMapPropagator()
_MAX_LINKS = 128
_CLOSE_S = 3.0


def configure(service_name: str, environment: Any = os.environ) -> "trace.TracerProvider | None":
    """Set up the export of spans where the environment asks for it; None where it does not.

    The SDK reads the rest from `OTEL_*` by itself: sampler, headers, certificates, limits. The provider is
    the process's own from then on, so that libraries which look for one find it.
    """
    if not any(environment.get(name) for name in ENDPOINT_VARIABLES) or environment.get("OTEL_SDK_DISABLED") == "true":
        return None
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - slow import
    from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    resource = Resource.create({"service.name": service_name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)  # `Tracing.close` does it, in bounded time
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider


class CallSpan:
    """The span of one call. One of ours is current in its task until `finish`, which ends it; one that
    the instrumentation library has begun (no context given) is only told how the call ended."""

    __slots__ = ("_span", "_token")

    def __init__(self, span: trace.Span, context: otel_context.Context | None) -> None:
        self._span = span
        self._token = None if context is None else otel_context.attach(context)

    @property
    def trace_id(self) -> str:
        """32 hex digits; what goes into exemplars."""
        return trace.format_trace_id(self._span.get_span_context().trace_id)

    def finish(self, code: grpc.StatusCode, error: BaseException | None) -> None:
        span = self._span
        if span.is_recording():
            span.set_attribute("rpc.grpc.status_code", code.value[0])
            if code in ERROR_CODES:
                span.set_status(trace.StatusCode.ERROR, code.name)
        if self._token is None:
            return
        otel_context.detach(self._token)
        if error is not None and span.is_recording():
            span.record_exception(error)
        span.end()


class Tracing:
    """Makes the spans of a server. Without a provider it only takes up the caller's context.

    Unary calls get theirs from opentelemetry-instrumentation-grpc, corrected here where it does not see
    the end (a cancellation, a deadline); streams get ours (docs/decisions/0021-spans.md has the evidence).
    """

    def __init__(self, provider: "trace.TracerProvider | None" = None) -> None:
        self._provider = provider
        self.enabled = provider is not None
        self._tracer = (provider or trace.NoOpTracerProvider()).get_tracer("signpost.server")

    def interceptors(self, methods: Iterable[Method]) -> "list[grpc.aio.ServerInterceptor[Any, Any]]":
        """What the server needs for the unary ones of its methods; nothing while tracing is off."""
        if not self.enabled:
            return []
        from opentelemetry.instrumentation.grpc import aio_server_interceptor  # noqa: PLC0415 - slow import

        unary = frozenset(method.path for method in methods if method.kind is Kind.UNARY)

        def is_unary(details: grpc.HandlerCallDetails) -> bool:
            return details.method in unary

        make: Any = aio_server_interceptor  # the package is not typed
        return [make(tracer_provider=self._provider, filter_=is_unary)]

    def start(self, method: Method, context: grpc.aio.ServicerContext[Any, Any]) -> CallSpan | None:
        """The span of a call; None where nobody traces it."""
        if self.enabled and method.kind is Kind.UNARY:
            return CallSpan(trace.get_current_span(), None)
        parent = _parent(context.invocation_metadata() or ())
        if parent is None and not self.enabled:
            return None
        attributes = (
            {
                "rpc.system": "grpc",
                "rpc.service": method.service,
                "rpc.method": method.name,
                "network.peer.address": context.peer(),
            }
            if self.enabled
            else None
        )
        kind = trace.SpanKind.SERVER
        span = self._tracer.start_span(method.path, context=parent, kind=kind, attributes=attributes)
        return CallSpan(span, trace.set_span_in_context(span, parent))

    def deliver(self, name: str, traceparents: Iterable[str]) -> None:
        """A span of this moment, in which records were handed on, linked to the traces of their publishers.

        At most 128 links; where there is none, no span. Ask `enabled` first: collecting traceparents costs time too.
        """
        links = [trace.Link(linked) for linked in _linked(traceparents)]
        if links:
            self._tracer.start_span(name, kind=trace.SpanKind.PRODUCER, links=links).end()

    def close(self) -> None:
        """Send what waits. Blocks, but a collector that does not answer holds the process up for 3 seconds at most."""
        shutdown = getattr(self._provider, "shutdown", None)
        if shutdown is not None:
            sending = threading.Thread(target=shutdown, name="spans", daemon=True)
            sending.start()
            sending.join(_CLOSE_S)


def current_traceparent() -> str:
    """The W3C traceparent of the span that is current, the caller's where we make none; empty: none."""
    carrier: dict[str, str] = {}
    _PROPAGATOR.inject(carrier)
    return carrier.get("traceparent", "")


def current_trace_id() -> str:
    """The trace id in hex of the span that is current; empty: none."""
    span = trace.get_current_span().get_span_context()
    return trace.format_trace_id(span.trace_id) if span.is_valid else ""


def _parent(metadata: Sequence[tuple[str, str | bytes]] | Any) -> otel_context.Context | None:
    carrier = {key: value for key, value in metadata if key in ("traceparent", "tracestate") and isinstance(value, str)}
    return _PROPAGATOR.extract(carrier) if "traceparent" in carrier else None


def _linked(traceparents: Iterable[str]) -> Iterator[trace.SpanContext]:
    for _, traceparent in zip(range(_MAX_LINKS), dict.fromkeys(filter(None, traceparents)), strict=False):
        span = trace.get_current_span(_PROPAGATOR.extract({"traceparent": traceparent})).get_span_context()
        if span.is_valid:
            yield span
