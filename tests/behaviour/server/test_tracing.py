"""Spans say how each call ended, whatever its kind, and keep to the caller's trace."""

import asyncio
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.trace.v1 import trace_pb2

from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from tests.behaviour.server.test_endings import (
    BIDI,
    CODES,
    SERVER_STREAM,
    UNARY,
    call_bidi,
    call_server_stream,
    call_unary,
    counted,
)
from tests.support.otlp import Collector
from tests.support.ports import free_port
from tests.support.services import running

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACEPARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
CALLERS = {
    "/notification.v1.NotificationService/Publish": call_unary,
    "/stream_service.StreamService/ListFeatures": call_server_stream,
    "/example.Greeter/Chat": call_bidi,
}
SERVER_FAULTS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    """A collector, and the URL to send to."""
    async with Collector() as made:
        yield made, made.url


def status_code(span: trace_pb2.Span) -> int:
    return next(int(a.value.int_value) for a in span.attributes if a.key == "rpc.grpc.status_code")


async def test_every_ending_of_every_kind_has_one_span_with_the_right_status(
    collector: tuple[Collector, str], tmp_path: Path
) -> None:
    received, endpoint = collector
    async with (
        running(
            "tests.support.tiny_service", tmp_path, log="memory:", env={"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
        ) as tiny,
        grpc.aio.insecure_channel(tiny.target) as channel,
    ):
        expected: dict[str, list[str]] = {}
        for path, caller in CALLERS.items():
            for how, (seen, _) in CODES.items():
                code, _, _ = await caller(tiny, channel, how)
                assert code == seen
                expected.setdefault(path, []).append(code)
        for labels in (UNARY, SERVER_STREAM, BIDI):
            await counted(tiny, labels)
        assert await tiny.terminate() == 0, "what waits is sent at the end"
    assert received.services == {"signpost-tiny"}
    for path, codes in expected.items():
        spans = sorted((span for span in received.spans if span.name == path), key=lambda s: s.start_time_unix_nano)
        names = {code.value[0]: code.name for code in grpc.StatusCode}
        assert [names[status_code(span)] for span in spans] == codes, path
        for span, code in zip(spans, codes, strict=True):
            assert span.kind == trace_pb2.Span.SPAN_KIND_SERVER
            failed = span.status.code == trace_pb2.Status.STATUS_CODE_ERROR
            assert failed == (code in SERVER_FAULTS), f"{path} {code}"


async def test_spans_belong_to_the_callers_trace_and_reach_histogram_and_log(
    collector: tuple[Collector, str], tmp_path: Path
) -> None:
    received, endpoint = collector
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint}
    metadata = (("traceparent", TRACEPARENT),)
    async with (
        running("tests.support.tiny_service", tmp_path, log="memory:", args=["--log-calls=all"], env=env) as tiny,
        grpc.aio.insecure_channel(tiny.target) as channel,
    ):
        stub = notification_pb2_grpc.NotificationServiceStub(channel)
        await stub.Publish(notification_pb2.PublishRequest(topic="ok"), metadata=metadata)
        chat: Any = channel.stream_stream("/example.Greeter/Chat", bytes, bytes)(None, metadata=metadata)
        await chat.done_writing()
        assert await chat.code() is grpc.StatusCode.OK
        for labels in (UNARY, BIDI):
            await counted(tiny, labels)
        exposed = await asyncio.to_thread(open_metrics, tiny.metrics_url)
        assert await tiny.terminate() == 0
    ours = [span for span in received.spans if span.trace_id.hex() == TRACE]
    assert {span.name for span in ours} == {"/notification.v1.NotificationService/Publish", "/example.Greeter/Chat"}
    assert all(span.parent_span_id.hex() == "00f067aa0ba902b7" for span in ours)
    assert f'# {{trace_id="{TRACE}"}}' in exposed
    assert tiny.logs().count(f'"traceId": "{TRACE}"') == 2


def open_metrics(url: str) -> str:
    """The metrics in the format that has exemplars."""
    request = urllib.request.Request(url, headers={"Accept": "application/openmetrics-text; version=1.0.0"})  # noqa: S310
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310 - a loopback URL of ours
        return str(answer.read().decode())


async def test_without_an_endpoint_nothing_is_exported_and_calls_cost_no_span(tmp_path: Path) -> None:
    async with (
        running("tests.support.tiny_service", tmp_path, log="memory:") as tiny,
        grpc.aio.insecure_channel(tiny.target) as channel,
    ):
        stub = notification_pb2_grpc.NotificationServiceStub(channel)
        await stub.Publish(notification_pb2.PublishRequest(topic="ok"), metadata=(("traceparent", TRACEPARENT),))
        assert await tiny.terminate() == 0


@pytest.mark.long
async def test_a_collector_that_does_not_answer_holds_up_neither_calls_nor_the_end(tmp_path: Path) -> None:
    env = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free_port()}"}
    async with (
        running("tests.support.tiny_service", tmp_path, log="memory:", env=env) as tiny,
        grpc.aio.insecure_channel(tiny.target) as channel,
    ):
        stub = notification_pb2_grpc.NotificationServiceStub(channel)
        assert (await stub.Publish(notification_pb2.PublishRequest(topic="ok"), timeout=10)).sequence == 7
        assert await tiny.terminate(8) == 0, "an export is tried for 10 seconds and more"
