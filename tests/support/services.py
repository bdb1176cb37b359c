"""Real services as processes: started on free ports, waited for, their logs shown when something is wrong.

async with running("feature_service", tmp_path) as feature:
    async with grpc.aio.insecure_channel(feature.target) as channel: ...
    feature.kill(); await feature.start()  # the same ports, the same data
"""

import asyncio
import os
import signal
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.support.ports import free_port

ROOT = Path(__file__).parents[2]
_START_S = 30.0


class ServiceProcess:
    """One service. Its ports, data directory and logs stay the same over restarts."""

    def __init__(
        self,
        module: str,
        directory: Path,
        *,
        args: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
        log: str | None = None,
        host: str = "127.0.0.1",
        health: str = "",
    ) -> None:
        """`log`: the log's URL (default: a SQLite file in `directory`). `health`: whose readiness to wait for;
        default: any service that is not infrastructure, by the name of its module."""
        self.module, self.directory = module, directory
        self.port, self.metrics_port = free_port(), free_port()
        self.target = f"{host}:{self.port}"
        self.metrics_url = f"http://{host}:{self.metrics_port}/metrics"
        self.health = health or HEALTH_NAMES.get(module, "")
        self.output = directory / f"{module.rpartition('.')[2]}.{self.port}.log"
        self._args = [
            f"--listen={host}:{self.port}",
            f"--metrics-listen={host}:{self.metrics_port}",
            f"--data-dir={directory / 'data'}",
            "--log-format=json",
            *([f"--log={log}"] if log else []),
            *args,
        ]
        self._env = clean_environment() | dict(env or {})
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._running().pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._running().poll()

    def spawn(self) -> None:
        """Start the process; does not wait for it."""
        assert self._process is None, "it runs already"
        self.directory.mkdir(parents=True, exist_ok=True)
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", self.module, *self._args],
                cwd=ROOT,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    async def start(self, timeout_s: float = _START_S) -> None:
        """Start the process and wait until it says SERVING."""
        self.spawn()
        await self.wait_serving(timeout_s)

    async def wait_serving(self, timeout_s: float = _START_S) -> None:
        """Wait until health says SERVING; the logs are in the error if it does not."""
        process = self._running()
        try:
            async with asyncio.timeout(timeout_s):
                while await health_of(self.target, self.health) != "SERVING":
                    if process.poll() is not None:
                        raise AssertionError(f"{self.module} ended with {process.returncode}:\n{self.logs()}")
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"{self.module} is not serving after {timeout_s} s:\n{self.logs()}") from None

    def signal(self, number: signal.Signals) -> None:
        self._running().send_signal(number)

    def freeze(self) -> None:
        """SIGSTOP: connections stay, nothing answers."""
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.signal(signal.SIGCONT)

    async def terminate(self, timeout_s: float = 30.0) -> int:
        """SIGTERM, and wait; answers the exit code."""
        self.signal(signal.SIGTERM)
        return await self.wait(timeout_s)

    async def wait(self, timeout_s: float = 30.0) -> int:
        """Wait for the end of the process; answers the exit code."""
        process = self._running()
        async with asyncio.timeout(timeout_s):
            while process.poll() is None:  # noqa: ASYNC110 - a process sets no event
                await asyncio.sleep(0.02)
        self._process = None
        return process.returncode

    def kill(self) -> None:
        """SIGKILL. `start` brings it back."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def logs(self) -> str:
        """Everything that it has written."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""

    async def metrics(self) -> str:
        """The text of /metrics."""
        return await asyncio.to_thread(_get, self.metrics_url)

    def _running(self) -> "subprocess.Popen[bytes]":
        assert self._process is not None, "it does not run"
        return self._process


HEALTH_NAMES = {
    "feature_service": "feature.v1.FeatureService",
    "notification_service": "notification.v1.NotificationService",
}
"""Whose readiness says that a process is up."""


@asynccontextmanager
async def running(
    module: str,
    directory: Path,
    *,
    args: Sequence[str] = (),
    env: Mapping[str, str] | None = None,
    log: str | None = None,
) -> AsyncIterator[ServiceProcess]:
    """A service that serves; killed at the end of the block if it still runs."""
    service = ServiceProcess(module, directory, args=args, env=env, log=log)
    try:
        await service.start()
        yield service
    finally:
        service.kill()


async def health_of(target: str, name: str = "", timeout_s: float = 1.0) -> str:
    """What health says of a name: SERVING, NOT_SERVING, ...; a status code's name where it does not answer."""
    options = [("grpc.use_local_subchannel_pool", 1)]  # a connection of its own: no backoff from an earlier try
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        try:
            answer = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=name), timeout=timeout_s
            )
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status))


def clean_environment() -> dict[str, str]:
    """This process's environment without any settings of Signpost or OpenTelemetry."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("SIGNPOST_", "OTEL_"))}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - a loopback URL of ours
        return str(answer.read().decode())
