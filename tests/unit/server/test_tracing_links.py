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
    with tracing.delivery("deliver demo", [parent(1), "", parent(2), "nonsense", parent(1)]):
        assert current_trace_id()
    (span,) = exporter.get_finished_spans()
    assert span.name == "deliver demo"
    assert [link.context.trace_id for link in span.links] == [1, 2]


def test_a_delivery_links_a_bounded_number() -> None:
    tracing, exporter = recording()
    with tracing.delivery("deliver", (parent(number) for number in range(1, 1000))):
        pass
    assert len(exporter.get_finished_spans()[0].links) == 128


def test_without_a_provider_a_delivery_is_nothing() -> None:
    tracing = Tracing()
    assert not tracing.enabled
    with tracing.delivery("deliver", [parent(1)]):
        assert current_traceparent() == current_trace_id() == ""


def test_the_current_traceparent_is_what_a_record_stores() -> None:
    tracing, _ = recording()
    with tracing.delivery("deliver", []):
        version, trace_id, span_id, _ = current_traceparent().split("-")
        assert (version, trace_id) == ("00", current_trace_id())
        assert span_id == trace.format_span_id(trace.get_current_span().get_span_context().span_id)
