"""Metrics and spans: optional, imported only when asked for, each call counted once however it ends."""

import asyncio
import subprocess
import sys
from typing import Any

import grpc
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode
from prometheus_client import CollectorRegistry
from signpost import errors
from signpost.client import FeatureClient, NotificationClient
from signpost.client.methods import CONNECT, GET_FEATURE, LIST_FEATURES
from signpost.client.metrics import PrometheusInstruments, code_label
from signpost.client.tracing import TracingInstruments

from protos.feature.v1 import feature_pb2 as fpb
from protos.notification.v1 import notification_pb2 as npb
from tests.unit.client.scripted import FAST, Script, answering, failing, serving
from tests.unit.client.test_feature_client import batch, batches
from tests.unit.client.test_notification_client import CODE, Hub, records

ANSWER = answering(lambda request: fpb.GetFeatureResponse())


async def test_nothing_that_is_not_asked_for_is_imported() -> None:
    code = (
        "import sys, signpost.client, signpost.client.sync\n"
        "extra = {m.split('.')[0] for m in sys.modules} & {'prometheus_client', 'opentelemetry', 'nats', 'numpy',"
        " 'scipy', 'uvloop', 'pydantic', 'typer', 'rich'}\n"
        "extra |= {m for m in sys.modules if m.startswith(('signpost.server', 'signpost.log', 'signpost.cli'))"
        " and not m.startswith('signpost.client')}\n"
        "sys.exit(', '.join(sorted(extra)) or 0)"
    )
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", code, stderr=subprocess.PIPE)
    _, said = await process.communicate()
    assert process.returncode == 0, said


async def test_every_call_is_counted_once_with_its_code() -> None:
    registry = CollectorRegistry()
    scripts: dict[Any, list[Script]] = {
        GET_FEATURE: [ANSWER, failing(CODE.UNAVAILABLE), ANSWER, failing(CODE.NOT_FOUND)],
        LIST_FEATURES: [batches(batch(1), end=CODE.UNAVAILABLE), batches(batch(2, last=True))],
    }
    instruments = PrometheusInstruments(registry)
    async with (
        serving(scripts) as server,
        FeatureClient(server.target, settings=FAST, instruments=instruments) as client,
    ):
        await client.get("a")
        await client.get("a")
        with pytest.raises(errors.NotFound):
            await client.get("a")
        assert len([f async for f in client.list((0, 0))]) == 2

    def value(name: str, method: str = "GetFeature", kind: str = "unary", **more: str) -> float | None:
        labels = {"grpc_type": kind, "grpc_service": "feature.v1.FeatureService", "grpc_method": method, **more}
        return registry.get_sample_value(name, labels)

    def ended() -> tuple[float | None, float | None]:
        name = "grpc_client_handling_seconds_count"
        return value(name), value(name, "ListFeatures", "server_stream")

    async with asyncio.timeout(20):
        while ended() != (4, 2):  # noqa: ASYNC110 - a counter sets no event
            await asyncio.sleep(0.01)
    assert value("grpc_client_started_total") == 4
    assert value("grpc_client_handled_total", grpc_code="OK") == 2
    assert value("grpc_client_handled_total", grpc_code="Unavailable") == 1
    assert value("grpc_client_handled_total", grpc_code="NotFound") == 1
    assert value("grpc_client_msg_sent_total") == 4
    assert value("grpc_client_msg_received_total") == 2
    assert value("grpc_client_handling_seconds_count") == 4
    assert value("grpc_client_handled_total", "ListFeatures", "server_stream", grpc_code="Unavailable") == 1
    assert value("grpc_client_msg_received_total", "ListFeatures", "server_stream") == 2
    assert registry.get_sample_value("signpost_client_reconnects_total", {"stream": "list"}) == 1
    assert registry.get_sample_value("signpost_client_resumes_total", {"stream": "list"}) == 1


async def test_duplicates_gaps_and_lag_are_counted() -> None:
    registry, hub = CollectorRegistry(), Hub()
    gap = npb.ConnectResponse(gap=npb.Gap(subscription="s1", first_available=9))
    script = hub.script(records("s1", 0, 1, 2), records("s1", 0, 2, 3), gap, records("s1", 8, 9))
    instruments = PrometheusInstruments(registry)
    async with (
        serving({CONNECT: [script]}) as server,
        NotificationClient(server.target, settings=FAST, instruments=TracingInstruments(instruments)) as client,
    ):
        subscription = client.subscribe("t", on_gap="continue")
        assert [(await anext(subscription)).sequence for _ in range(4)] == [1, 2, 3, 9]
    stream = {"stream": "unnamed"}
    assert registry.get_sample_value("signpost_client_duplicates_dropped_total", stream) == 1
    assert registry.get_sample_value("signpost_client_gaps_total", stream) == 1
    assert registry.get_sample_value("signpost_client_lag_records", stream) == 1
    assert (registry.get_sample_value("signpost_client_lag_seconds", stream) or 0) > 1e9  # the record has no time


async def test_subscriptions_that_come_and_go_leave_no_series_each() -> None:
    registry, hub = CollectorRegistry(), Hub()
    deliveries = [records(name, 0, 1) for name in ("s1", "s2", "s3", "n")]
    async with (
        serving({CONNECT: [hub.script(*deliveries)]}) as server,
        NotificationClient(server.target, settings=FAST, instruments=PrometheusInstruments(registry)) as client,
    ):
        for name in ("", "", "", "n"):
            async with client.subscribe("t", name=name) as subscription:
                await anext(subscription)
    lag = next(family for family in registry.collect() if family.name == "signpost_client_lag_records")
    assert [sample.labels["stream"] for sample in lag.samples] == ["unnamed", "n"]


def test_codes_are_written_as_go_writes_them() -> None:
    names = [code_label(c.name) for c in grpc.StatusCode]
    assert "Canceled" in names
    assert "OK" in names
    assert "FailedPrecondition" in names


async def test_a_span_for_every_call_with_the_right_status_and_the_trace_goes_on() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    parents: list[str] = []

    async def get(request: Any, context: Any) -> fpb.GetFeatureResponse:
        parents.append(dict(context.invocation_metadata())["traceparent"])
        if request.id == "b":
            await context.abort(CODE.INTERNAL, "broken")
        return fpb.GetFeatureResponse()

    async def endless(request: Any, context: Any) -> Any:
        yield batch(1)
        await asyncio.Event().wait()

    instruments = TracingInstruments(PrometheusInstruments(CollectorRegistry()), provider)
    async with (
        serving({GET_FEATURE: [get], LIST_FEATURES: [endless]}) as server,
        FeatureClient(server.target, settings=FAST, instruments=instruments) as client,
    ):
        await client.get("a")
        with pytest.raises(errors.Internal):
            await client.get("b")
        async with client.list((0, 0)) as found:
            await anext(found)
        await server.none_open()
        async with asyncio.timeout(20):
            while len(exporter.get_finished_spans()) < 3:  # noqa: ASYNC110 - an exporter sets no event
                await asyncio.sleep(0.01)
    spans = exporter.get_finished_spans()
    assert [s.name.rsplit("/", 1)[1] for s in spans] == ["GetFeature", "GetFeature", "ListFeatures"]
    assert [s.status.status_code for s in spans] == [StatusCode.UNSET, StatusCode.ERROR, StatusCode.UNSET]
    attributes = [dict(s.attributes or {}) for s in spans]
    assert [a["rpc.grpc.status"] for a in attributes] == ["OK", "INTERNAL", "CANCELLED"]
    assert attributes[2]["rpc.messages.received"] == 1
    context = spans[0].get_span_context()
    assert context is not None
    assert f"{context.trace_id:032x}-{context.span_id:016x}" in parents[0]


async def test_a_publish_carries_the_running_span() -> None:
    hub, provider = Hub(), TracerProvider()
    instruments = TracingInstruments(provider=provider)
    async with (
        serving({CONNECT: [hub.script()]}) as server,
        NotificationClient(server.target, settings=FAST, instruments=instruments) as client,
    ):
        with provider.get_tracer("test").start_as_current_span("work") as span:
            await client.publish("t")
            await client.publish("t", traceparent="00-given")
        await client.publish("t")
    context = span.get_span_context()
    sent = [p.traceparent for frame in hub.of("publish") for p in frame.publications]
    assert sent[0].startswith(f"00-{context.trace_id:032x}-{context.span_id:016x}-")
    assert sent[1:] == ["00-given", ""]
    assert PrometheusInstruments(CollectorRegistry()).traceparent() == ""
