"""From start to end of a process: refusals in one line, health, reflection, drain, exit codes."""

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

from protos.example import greeter_pb2, greeter_pb2_grpc
from tests.support.services import ROOT, ServiceProcess, clean_environment, health_of, running

TINY = "tests.support.tiny_service"
SERVING, NOT_SERVING = health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING
LISTEN = {"SIGNPOST_LISTEN": "127.0.0.1:0", "SIGNPOST_METRICS_LISTEN": "off"}


async def ended(args: Sequence[str], **env: str) -> tuple[int, list[str]]:
    """Run the tiny service until it ends; answers its exit code and the lines on stderr."""
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", TINY, *args],
        cwd=ROOT,
        env=clean_environment() | LISTEN | env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr.splitlines()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--heartbeat-s=0"], "--heartbeat-s (SIGNPOST_HEARTBEAT_S)"),
        (["--listen=nonsense"], "--listen (SIGNPOST_LISTEN): expected host:port"),
        (["--compression=brotli"], "--compression"),
        (["--no-such-flag=1"], "--no-such-flag"),
        (["--log=redis://localhost"], "redis://localhost"),
    ],
)
async def test_a_wrong_setting_is_one_line_and_exit_code_2(args: list[str], said: str) -> None:
    code, lines = await ended(args)
    assert code == 2
    assert len(lines) == 1
    assert lines[0].startswith("tiny_service: ")
    assert said in lines[0]


async def test_a_wrong_variable_names_the_variable() -> None:
    code, lines = await ended([], SIGNPOST_DRAIN_S="soon")
    assert (code, len(lines)) == (2, 1)
    assert "SIGNPOST_DRAIN_S" in lines[0]
    assert "soon" in lines[0]


@pytest.mark.parametrize("flag", ["--listen", "--metrics-listen"])
async def test_a_port_already_taken_is_one_line_and_exit_code_2(flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, lines = await ended([f"{flag}=127.0.0.1:{port}", "--log=memory:"])
    assert (code, len(lines)) == (2, 1)
    assert lines[0] == f"tiny_service: cannot listen on 127.0.0.1:{port}: it is already in use"


async def test_data_that_cannot_be_read_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    foreign = tmp_path / "tiny.db"
    foreign.write_bytes(b"this is no database" * 1000)
    code, lines = await ended([f"--data-dir={tmp_path}"])
    assert (code, len(lines)) == (2, 1)
    assert str(foreign) in lines[0]
    assert foreign.read_bytes() == b"this is no database" * 1000, "it is not touched"


async def test_a_data_directory_that_cannot_be_made_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, lines = await ended([f"--data-dir={tmp_path / 'file' / 'data'}"])
    assert (code, len(lines)) == (2, 1)
    assert str(tmp_path / "file") in lines[0]


async def test_help_gives_defaults_units_and_ends_with_0() -> None:
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-m", TINY, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    text = " ".join(done.stdout.split())
    for said in ("--listen", "localhost:50051", "--max-message-bytes", "4194304", "in seconds", "in bytes", "--log "):
        assert said in text


async def test_environment_and_flags_say_the_same_and_flags_win(tmp_path: Path) -> None:
    async with running(TINY, tmp_path, log="memory:", env={"SIGNPOST_LOG_LEVEL": "error"}) as quiet:
        pass
    assert "listening" not in quiet.logs()
    async with running(
        TINY, tmp_path, log="memory:", env={"SIGNPOST_LOG_LEVEL": "error"}, args=["--log-level=info"]
    ) as loud:
        pass
    assert "listening" in loud.logs()


async def test_localhost_is_both_loopbacks(tmp_path: Path) -> None:
    service = ServiceProcess(TINY, tmp_path, log="memory:", host="localhost")
    try:
        await service.start()
        assert await health_of(f"127.0.0.1:{service.port}", timeout_s=10) == "SERVING"
        with contextlib.closing(socket.socket(socket.AF_INET6)) as probe:
            if probe.connect_ex(("::1", service.port)) != 0:
                pytest.skip("this machine has no IPv6 loopback")
        assert await health_of(f"[::1]:{service.port}", timeout_s=10) == "SERVING"
    finally:
        service.kill()


async def test_health_of_each_service_of_the_process_and_of_an_unknown_one(tiny: ServiceProcess) -> None:
    for name in ("", "example.Greeter", "stream_service.StreamService", "notification.v1.NotificationService"):
        assert await health_of(tiny.target, name, timeout_s=10) == "SERVING"
    assert await health_of(tiny.target, "no.such.Service", timeout_s=10) == "NOT_FOUND"


async def test_watching_an_unknown_service_answers_service_unknown(channel: grpc.aio.Channel) -> None:
    call: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
    call.cancel()


@pytest.mark.parametrize("package", ["grpc.reflection.v1", "grpc.reflection.v1alpha"])
async def test_reflection_lists_and_describes(channel: grpc.aio.Channel, package: str) -> None:
    call = channel.stream_stream(
        f"/{package}.ServerReflection/ServerReflectionInfo",
        reflection_pb2.ServerReflectionRequest.SerializeToString,
        reflection_pb2.ServerReflectionResponse.FromString,
    )
    listed, described, itself = [
        answer
        async for answer in call(
            iter(
                [
                    reflection_pb2.ServerReflectionRequest(list_services=""),
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol="example.Greeter"),
                    reflection_pb2.ServerReflectionRequest(file_containing_symbol=f"{package}.ServerReflection"),
                ]
            )
        )
    ]
    names = {service.name for service in listed.list_services_response.service}
    assert names >= {"example.Greeter", "grpc.health.v1.Health", f"{package}.ServerReflection"}
    for answer, symbol in ((described, "Greeter"), (itself, "ServerReflection")):
        files = [
            descriptor_pb2.FileDescriptorProto.FromString(encoded)
            for encoded in answer.file_descriptor_response.file_descriptor_proto
        ]
        assert symbol in [service.name for file in files for service in file.service]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_fault_7_a_signal_during_an_open_stream_drains_and_ends_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    """NOT_SERVING first; calls that are there go on; new ones are refused; watches end; exit code 0."""
    async with (
        running(TINY, tmp_path, log="memory:", args=["--drain-s=1", "--stop-s=5"]) as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        watch: Any = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service="example.Greeter"))
        assert (await watch.read()).status == SERVING
        stub = greeter_pb2_grpc.GreeterStub(channel)
        chat: Any = stub.Chat(None)
        await chat.write(greeter_pb2.MessageRequest(content="a"))
        assert (await chat.read()).reply == "Received: a"

        service.signal(number)
        assert (await watch.read()).status == NOT_SERVING
        assert await watch.code() is grpc.StatusCode.UNAVAILABLE

        late: Any = stub.Chat(None)
        assert await late.code() is grpc.StatusCode.UNAVAILABLE

        await chat.write(greeter_pb2.MessageRequest(content="b"))
        assert (await chat.read()).reply == "Received: b", "a call that was there goes on"
        await chat.done_writing()
        assert await chat.code() is grpc.StatusCode.OK
        assert await service.wait(10) == 0
    assert "Traceback" not in service.logs()


async def test_new_calls_are_refused_with_draining_while_the_streams_move(tmp_path: Path) -> None:
    args = ["--drain-s=5", "--stop-s=5"]
    env = {"TINY_SLOW_DRAIN": "1"}
    async with (
        running(TINY, tmp_path, log="memory:", args=args, env=env) as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        await channel.channel_ready()
        service.signal(signal.SIGTERM)
        while await health_of(service.target, "example.Greeter") != "NOT_SERVING":  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
        late: Any = greeter_pb2_grpc.GreeterStub(channel).Chat(None)
        assert await late.code() is grpc.StatusCode.UNAVAILABLE
        trailers = dict(await late.trailing_metadata())
        rich = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
        info, retry = error_details_pb2.ErrorInfo(), error_details_pb2.RetryInfo()
        assert rich.details[0].Unpack(info)
        assert rich.details[1].Unpack(retry)
        assert info.reason == "DRAINING"
        assert await health_of(service.target, timeout_s=10) == "NOT_SERVING", "health goes on answering"
        assert await service.wait(10) == 0


async def test_a_second_signal_cuts_the_drain_short(tmp_path: Path) -> None:
    async with (
        running(TINY, tmp_path, log="memory:", args=["--drain-s=60", "--stop-s=60"]) as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        chat: Any = greeter_pb2_grpc.GreeterStub(channel).Chat(None)
        await chat.write(greeter_pb2.MessageRequest(content="a"))
        await chat.read()
        service.signal(signal.SIGTERM)
        while '"draining"' not in service.logs():  # noqa: ASYNC110 - another process; two signals at once are one
            await asyncio.sleep(0.02)
        service.signal(signal.SIGTERM)
        assert await service.wait() == 0, "half of the drain's time at most"


async def test_the_log_is_one_json_object_a_line(tiny: ServiceProcess, channel: grpc.aio.Channel) -> None:
    chat: Any = greeter_pb2_grpc.GreeterStub(channel).Chat(None)
    await chat.write(greeter_pb2.MessageRequest(content="error"))
    await chat.read()
    assert await chat.code() is grpc.StatusCode.NOT_FOUND
    async with asyncio.timeout(10):
        while "THING_NOT_FOUND" not in tiny.logs():  # noqa: ASYNC110 - another process
            await asyncio.sleep(0.02)
    lines = [parsed(line) for line in tiny.logs().splitlines()]
    call = next(line for line in lines if line["message"] == "call" and line["method"] == "/example.Greeter/Chat")
    assert call["code"] == "NotFound"
    assert call["level"] == "info"
    assert str(call["peer"]).startswith("ipv4:127.0.0.1:")
    assert float(str(call["durationMs"])) > 0
    assert call["reason"] == "THING_NOT_FOUND"


def parsed(line: str) -> dict[str, object]:
    found: dict[str, object] = json.loads(line)
    assert {"time", "level", "logger", "message"} <= found.keys()
    return found


async def test_no_more_file_descriptors_after_many_calls(tiny: ServiceProcess) -> None:
    """Connections that come and go leave nothing behind."""

    def descriptors() -> int:
        return len(os.listdir(f"/proc/{tiny.pid}/fd"))

    await health_of(tiny.target)
    before = descriptors()
    for _ in range(20):
        await health_of(tiny.target)
    deadline = time.monotonic() + 10
    while descriptors() > before + 2:
        assert time.monotonic() < deadline, (before, descriptors())
        await asyncio.sleep(0.05)
