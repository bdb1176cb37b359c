"""What the library promises, shown on the two services themselves."""

import asyncio
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
import pytest

from protos.example import greeter_pb2, greeter_pb2_grpc
from protos.feature.v1 import feature_pb2, feature_pb2_grpc
from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from protos.stream_service import stream_service_pb2, stream_service_pb2_grpc
from tests.support.metrics_text import Samples
from tests.support.services import ROOT, ServiceProcess, clean_environment, health_of

NAMES = {
    "feature_service": ("stream_service.StreamService", "feature.v1.FeatureService"),
    "notification_service": ("pb.NotificationService", "example.Greeter", "notification.v1.NotificationService"),
}
both = pytest.mark.parametrize("module", NAMES)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, ServiceProcess]]:
    made = {module: ServiceProcess(module, tmp_path_factory.mktemp(module)) for module in NAMES}
    try:
        for service in made.values():
            asyncio.run(service.start())
        yield made
    finally:
        for service in made.values():
            service.kill()


@both
async def test_health_of_each_service_name_and_of_an_unknown_one(
    services: dict[str, ServiceProcess], module: str
) -> None:
    target = services[module].target
    for name in ("", *NAMES[module]):
        assert await health_of(target, name, timeout_s=10) == "SERVING"
    other = NAMES["feature_service" if module == "notification_service" else "notification_service"][0]
    assert await health_of(target, other, timeout_s=10) == "NOT_FOUND"


@dataclass(frozen=True)
class Shown:
    """A method of each kind, and how it is made to end."""

    module: str
    service: str
    method: str
    kind: str
    how: str
    code: str


SHOWN = [
    Shown("feature_service", "feature.v1.FeatureService", "GetFeature", "unary", "error", "NotFound"),
    Shown("feature_service", "feature.v1.FeatureService", "PutFeature", "unary", "ok", "OK"),
    Shown("feature_service", "stream_service.StreamService", "ListFeatures", "server_stream", "ok", "OK"),
    Shown(
        "feature_service", "stream_service.StreamService", "ListFeatures", "server_stream", "error", "InvalidArgument"
    ),
    Shown("notification_service", "notification.v1.NotificationService", "Publish", "unary", "ok", "OK"),
    Shown(
        "notification_service", "notification.v1.NotificationService", "Publish", "unary", "error", "InvalidArgument"
    ),
    Shown(
        "notification_service",
        "notification.v1.NotificationService",
        "Subscribe",
        "server_stream",
        "cancel",
        "Canceled",
    ),
    Shown("notification_service", "example.Greeter", "Chat", "bidi_stream", "ok", "OK"),
    Shown("notification_service", "example.Greeter", "Chat", "bidi_stream", "cancel", "Canceled"),
    Shown(
        "notification_service",
        "notification.v1.NotificationService",
        "Connect",
        "bidi_stream",
        "error",
        "InvalidArgument",
    ),
]


async def make(channel: grpc.aio.Channel, shown: Shown) -> str:
    """One call that ends as shown; answers the code that the client sees."""
    call: Any
    match shown.method, shown.how:
        case "GetFeature", _:
            features = feature_pb2_grpc.FeatureServiceStub(channel)
            call = features.GetFeature(feature_pb2.GetFeatureRequest(id="nowhere"))
        case "PutFeature", _:
            place = feature_pb2.Feature(id="a", name="a", location=feature_pb2.Point(latitude=1, longitude=1))
            features = feature_pb2_grpc.FeatureServiceStub(channel)
            call = features.PutFeature(feature_pb2.PutFeatureRequest(feature=place))
        case "ListFeatures", how:
            point = stream_service_pb2.Point(latitude=0 if how == "ok" else 2_000_000_000)
            call = stream_service_pb2_grpc.StreamServiceStub(channel).ListFeatures(point)
            while how == "ok" and await call.read() is not EOF:
                pass
        case "Publish", how:
            request = notification_pb2.PublishRequest(topic="a.b" if how == "ok" else "a.>")
            call = notification_pb2_grpc.NotificationServiceStub(channel).Publish(request)
        case "Subscribe", _:
            call = notification_pb2_grpc.NotificationServiceStub(channel).Subscribe(
                notification_pb2.SubscribeRequest(filter="a.>")
            )
            await call.read()
            call.cancel()
        case "Chat", how:
            call = greeter_pb2_grpc.GreeterStub(channel).Chat(None)
            await call.write(greeter_pb2.MessageRequest(content="hi"))
            await call.read()
            if how == "cancel":
                call.cancel()
            else:
                await call.done_writing()
        case "Connect", _:
            call = notification_pb2_grpc.NotificationServiceStub(channel).Connect(None)
            await call.write(notification_pb2.ConnectRequest(ping=notification_pb2.Ping(id=1)))
    return str((await call.code()).name)


EOF: object = grpc.aio.EOF  # type: ignore[attr-defined] # the stubs lack it


@pytest.mark.parametrize("shown", SHOWN, ids=lambda shown: f"{shown.method}-{shown.how}")
async def test_a_call_is_counted_once_with_its_code(services: dict[str, ServiceProcess], shown: Shown) -> None:
    service = services[shown.module]
    labels = {"grpc_type": shown.kind, "grpc_service": shown.service, "grpc_method": shown.method}
    before = Samples(await service.metrics())
    async with grpc.aio.insecure_channel(service.target) as channel:
        seen = await make(channel, shown)
    assert seen.replace("_", "").casefold() == shown.code.replace("Canceled", "Cancelled").casefold()
    deadline = time.monotonic() + 20
    while Samples(await service.metrics()).value("signpost_calls_open", **labels):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    after = Samples(await service.metrics())  # an answer is put together while calls end: one that began after this one
    for metric in ("started_total", "handling_seconds_count", "msg_received_total"):
        grown = after.value(f"grpc_server_{metric}", **labels) - before.value(f"grpc_server_{metric}", **labels)
        assert grown == 1, metric
    handled = {
        dict(found)["grpc_code"]: value - before.value("grpc_server_handled_total", **dict(found))
        for found, value in after.matching("grpc_server_handled_total", **labels).items()
    }
    assert len(handled) == 17
    assert {code: grown for code, grown in handled.items() if grown} == {shown.code: 1}


@both
async def test_version_is_that_of_the_installed_package(module: str) -> None:
    package = f"signpost-{module.replace('_', '-')}"
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{package} {version(package)}\n", "")


@pytest.mark.long
@both
async def test_help_and_refusals(module: str, tmp_path: Path) -> None:
    """--help ends with 0; a wrong setting, a taken port and foreign data end with one line and 2."""
    foreign = tmp_path / "foreign.db"
    foreign.write_text("no database " * 1000)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        cases = {
            "--help": (0, "usage"),
            "--max-message-bytes=much": (2, "SIGNPOST_MAX_MESSAGE_BYTES"),
            f"--listen=127.0.0.1:{port}": (2, f"127.0.0.1:{port}: it is already in use"),
            f"--log=sqlite:///{foreign}": (2, str(foreign)),
        }
        for argument, (code, said) in cases.items():
            done = await asyncio.to_thread(
                subprocess.run,
                [sys.executable, "-m", module, argument],
                cwd=tmp_path,
                env=clean_environment()
                | {"SIGNPOST_LISTEN": "127.0.0.1:0", "SIGNPOST_METRICS_LISTEN": "off", "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
            assert done.returncode == code, done.stderr
            assert said in (done.stdout if code == 0 else done.stderr)
            assert len(done.stderr.splitlines()) == (0 if code == 0 else 1), done.stderr


async def test_fault_7_sigterm_tells_open_streams_to_move_and_ends_with_0(tmp_path: Path) -> None:
    service = ServiceProcess("notification_service", tmp_path, args=["--drain-s=1", "--stop-s=1"])
    try:
        await service.start()
        async with grpc.aio.insecure_channel(service.target) as channel:
            subscription: Any = notification_pb2_grpc.NotificationServiceStub(channel).Subscribe(
                notification_pb2.SubscribeRequest(filter="a.>")
            )
            assert (await subscription.read()).HasField("subscribed")
            chat: Any = greeter_pb2_grpc.GreeterStub(channel).Chat(None)
            await chat.write(greeter_pb2.MessageRequest(content="hi"))
            await chat.read()
            service.signal(signal.SIGTERM)
            frame = await subscription.read()
            while frame is not EOF and not frame.HasField("draining"):
                frame = await subscription.read()
            assert frame is not EOF, "a draining frame comes before the end"
            assert await health_of(service.target, NAMES["notification_service"][-1], 10) in (
                "NOT_SERVING",
                "UNAVAILABLE",
            )
            assert await service.wait(15) == 0
            assert await chat.code() is not grpc.StatusCode.OK
        assert "Traceback" not in service.logs()
    finally:
        service.kill()


async def test_fault_7_sigterm_during_a_watch_ends_with_0(tmp_path: Path) -> None:
    service = ServiceProcess("feature_service", tmp_path, args=["--drain-s=1", "--stop-s=1"])
    try:
        await service.start()
        async with grpc.aio.insecure_channel(service.target) as channel:
            watch: Any = feature_pb2_grpc.FeatureServiceStub(channel).WatchFeatures(feature_pb2.WatchFeaturesRequest())
            reading = asyncio.create_task(watch.read())
            await asyncio.sleep(0.3)
            assert await service.terminate(15) == 0
            await asyncio.gather(reading, return_exceptions=True)
        assert "Traceback" not in service.logs()
    finally:
        service.kill()
