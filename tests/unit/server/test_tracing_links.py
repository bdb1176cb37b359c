"""A delivery is a short span, linked to the traces of those who published."""

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from signpost.server.tracing import Tracing, current_trace_id, current_traceparent


def parent(number: int) -> str:
    return f"00-{number:032x}-{number:016x}-01"


def recording() -> tuple[Tracing, InMemorySpanExporter]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return Tracing(provider), exporter


def test_a_delivery_links_each_publisher_once_and_skips_nonsense() -> None:
    tracing, exporter = recording()
    tracing.deliver("deliver demo", [parent(1), "", parent(2), "nonsense", parent(1)])
    (span,) = exporter.get_finished_spans()
    assert span.name == "deliver demo"
    assert [link.context.trace_id for link in span.links] == [1, 2]


def test_a_delivery_links_a_bounded_number() -> None:
    tracing, exporter = recording()
    tracing.deliver("deliver", (parent(number) for number in range(1, 1000)))
    assert len(exporter.get_finished_spans()[0].links) == 128


def test_a_delivery_of_what_nobody_traced_has_no_span() -> None:
    tracing, exporter = recording()
    tracing.deliver("deliver", ["", "nonsense"])
    assert not exporter.get_finished_spans()


def test_the_current_traceparent_is_what_a_record_stores() -> None:
    assert current_traceparent() == current_trace_id() == ""
    span = TracerProvider().get_tracer("test").start_span("put")
    with trace.use_span(span):
        version, trace_id, span_id, _ = current_traceparent().split("-")
        assert (version, trace_id) == ("00", current_trace_id())
        assert span_id == trace.format_span_id(span.get_span_context().span_id)
