"""The images and docker-compose.yml, for real: built, brought up, called from outside, watched, taken down."""

import json
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from protos.feature.v1 import feature_pb2, feature_pb2_grpc
from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from protos.stream_service import stream_service_pb2, stream_service_pb2_grpc
from tests.e2e.containers import STARTED, Stack, need_engine

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]  # on a new machine the images come from nowhere

EIFFEL = feature_pb2.Feature(
    id="eiffel", name="Eiffel Tower", location=feature_pb2.Point(latitude=48_8583000, longitude=2_2945000)
)
SERVICES = {"feature", "notification"}
_CALL_S = 30.0


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    need_engine()
    stack = Stack()
    try:
        stack.build()
        stack.up()
        yield stack
    finally:
        stack.down()


def _ask_prometheus(stack: Stack, path: str, **parameters: str) -> Any:
    url = f"http://127.0.0.1:{stack.ports['PROMETHEUS']}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
    with urllib.request.urlopen(url, timeout=_CALL_S) as answer:
        return json.load(answer)["data"]


def _jobs(stack: Stack, query: str) -> set[str]:
    """The jobs of the series that a query answers."""
    return {series["metric"]["job"] for series in _ask_prometheus(stack, "query", query=query)["result"]}


def test_the_feature_service_keeps_what_it_is_given_over_a_restart(stack: Stack) -> None:
    target = f"127.0.0.1:{stack.ports['FEATURE']}"
    with grpc.insecure_channel(target) as channel:
        stub = feature_pb2_grpc.FeatureServiceStub(channel)
        stub.PutFeature(feature_pb2.PutFeatureRequest(feature=EIFFEL), timeout=_CALL_S)
        seed = stream_service_pb2_grpc.StreamServiceStub(channel)
        point = stream_service_pb2.Point(latitude=48_8500000, longitude=2_3500000)
        assert [feature.name for feature in seed.ListFeatures(point, timeout=_CALL_S)] == ["Eiffel Tower"]
    stack.compose("stop", "--timeout", "30", "feature")
    assert stack.state("feature")["ExitCode"] == 0
    stack.up()
    with grpc.insecure_channel(target) as channel:
        stub = feature_pb2_grpc.FeatureServiceStub(channel)
        answer = stub.GetFeature(feature_pb2.GetFeatureRequest(id="eiffel"), timeout=_CALL_S)
    assert answer.feature == EIFFEL


def test_the_notification_service_delivers_what_is_published(stack: Stack) -> None:
    with grpc.insecure_channel(f"127.0.0.1:{stack.ports['NOTIFICATION']}") as channel:
        stub = notification_pb2_grpc.NotificationServiceStub(channel)
        published = stub.Publish(notification_pb2.PublishRequest(topic="demo.hello", payload=b"hi"), timeout=_CALL_S)
        start = notification_pb2.Start(earliest=notification_pb2.StartEarliest())
        frames = stub.Subscribe(notification_pb2.SubscribeRequest(filter="demo.>", start=start), timeout=_CALL_S)
        received = next(item for frame in frames for item in frame.delivery.notifications)
        frames.cancel()  # type: ignore[no-untyped-call] # the stubs say nothing of it
    assert (received.topic, received.payload, received.sequence) == ("demo.hello", b"hi", published.sequence)


def test_prometheus_scrapes_both_and_has_the_rules(stack: Stack) -> None:
    deadline = time.monotonic() + 60
    # A target that was away for a restart comes back with the next look at the names.
    while _jobs(stack, "up == 1") != set(STARTED) or _jobs(stack, "grpc_server_started_total > 0") != SERVICES:
        assert time.monotonic() < deadline, _ask_prometheus(stack, "targets")
        time.sleep(1)
    groups = _ask_prometheus(stack, "rules")["groups"]
    assert {rule["health"] for group in groups for rule in group["rules"]} <= {"ok", "unknown"}
    assert any(rule["type"] == "alerting" for group in groups for rule in group["rules"])


def test_the_processes_have_no_root_and_cannot_write_outside_their_data(stack: Stack) -> None:
    for service in sorted(SERVICES):
        script = "import os; print(os.getuid(), os.access('/', os.W_OK), os.access('/data', os.W_OK))"
        assert stack.compose("exec", "-T", service, "python", "-c", script).split() == ["10001", "False", "True"]
