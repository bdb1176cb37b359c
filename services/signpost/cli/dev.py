"""Both services on this machine, on real places, until Ctrl-C: `make run`.

Guarantees: nothing is started where a port is taken, and nothing is written to another service,
whatever the environment names; the first command to try is printed only once both services say SERVING
and the places are there; Ctrl-C or SIGTERM drains both services and exits with 0; a service that ends by itself
takes the other one with it and the exit code is not 0. The places are loaded into an empty
collection only; where that was cut short, the next start loads those that are missing, and changes none
that is there.
"""

import argparse
import asyncio
import json
import os
import signal
import socket
import sys
import tempfile
from collections.abc import Container
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from signpost.cli.geojson import open_source
from signpost.client import Box, FeatureClient
from signpost.errors import SignpostError

STOP_TIMEOUT_S = 30.0
"""A service that has not drained by then is killed."""
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends it; `make_run` hears them before."""


@dataclass(frozen=True, slots=True)
class Service:
    """How to start one service and where it answers."""

    module: str
    name: str
    listen: str
    metrics_listen: str

    async def start(self, data_dir: Path) -> asyncio.subprocess.Process:
        """A process in a session of its own, so that Ctrl-C reaches it through us, once."""
        settings = ["--listen", self.listen, "--metrics-listen", self.metrics_listen, "--data-dir", str(data_dir)]
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            self.module,
            *settings,
            env=environment(),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )

    def taken(self) -> str:
        """The first of its addresses at which somebody answers already, or an empty text."""
        for address in (self.listen, self.metrics_listen):
            host, _, port = address.rpartition(":")
            try:
                socket.create_connection((host, int(port)), timeout=1).close()
            except OSError:
                continue
            return address
        return ""

    async def serving(self) -> None:
        """Return once its health says SERVING."""
        options = [("grpc.initial_reconnect_backoff_ms", 100), ("grpc.max_reconnect_backoff_ms", 500)]
        async with grpc.aio.insecure_channel(self.listen, options=options) as channel:
            request = health_pb2.HealthCheckRequest(service=self.name)
            async for answer in health_pb2_grpc.HealthStub(channel).Watch(request, wait_for_ready=True):
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return


FEATURE = Service("feature_service", "feature.v1.FeatureService", "localhost:50051", "localhost:9101")
NOTIFICATION = Service(
    "notification_service", "notification.v1.NotificationService", "localhost:50052", "localhost:9102"
)
SERVICES = (FEATURE, NOTIFICATION)

READY = f"""
  feature service       {FEATURE.listen}   metrics http://{FEATURE.metrics_listen}/metrics
  notification service  {NOTIFICATION.listen}   metrics http://{NOTIFICATION.metrics_listen}/metrics

  In another terminal:  .venv/bin/signpost near 48.85,2.35 --radius 5km
  Ctrl-C ends both.
"""


class LoadFailed(Exception):
    """`signpost import` did not end well; it has said why."""


class Taken(Exception):
    """Somebody listens where a service of ours should."""


def environment() -> dict[str, str]:
    """Ours, but that the services are these two."""
    return os.environ | {"SIGNPOST_FEATURE": FEATURE.listen, "SIGNPOST_NOTIFICATION": NOTIFICATION.listen}


async def is_empty() -> bool:
    """Whether the feature service holds no place."""
    async with FeatureClient(FEATURE.listen) as client:
        async for _ in client.list(near=(0.0, 0.0), limit=1):
            return False
    return True


async def load(places: Path) -> None:
    """`signpost import` of a file, its progress on this terminal."""
    command = [str(Path(sys.executable).with_name("signpost")), "import", str(places)]
    process = await asyncio.create_subprocess_exec(*command, env=environment(), start_new_session=True)
    try:
        if await process.wait():
            raise LoadFailed(f"{places} could not be loaded")
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()


async def ids() -> set[str]:
    """The ids of all places that the feature service holds."""
    async with FeatureClient(FEATURE.listen) as client:
        return {place.id async for place in client.list(area=Box(-90, -180, 90, 180), read_mask=["id"])}


def write_missing(places: Path, there: Container[str], missing: IO[str]) -> None:
    """Copy the places of a file whose ids are not there, one a line."""
    with open_source(str(places)) as source, source:
        for item in source.items():
            if not (isinstance(item.value, dict) and str(item.value.get("id")) in there):
                missing.write(json.dumps(item.value) + "\n")
    missing.flush()


async def fill(places: Path, data_dir: Path) -> None:
    """Load the places where there is none, and the missing ones where loading them was cut short."""
    unfinished = data_dir / "places-unfinished"
    if unfinished.exists():
        with tempfile.NamedTemporaryFile("w", suffix=".geojsonl") as missing:
            await asyncio.to_thread(write_missing, places, await ids(), missing)
            await load(Path(missing.name))
    elif await is_empty():
        unfinished.touch()
        await load(places)
    unfinished.unlink(missing_ok=True)


async def prepare(places: Path, data_dir: Path) -> None:
    """Wait for both services, load the places, say what to do next."""
    await asyncio.gather(*(service.serving() for service in SERVICES))
    await fill(places, data_dir)
    print(READY, flush=True)  # noqa: T201 - this is what the person at the terminal waits for


async def stop(process: asyncio.subprocess.Process) -> None:
    """Drain one service; kill it if that takes too long."""
    if process.returncode is None:
        process.terminate()
    try:
        await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
    except TimeoutError:
        process.kill()
        await process.wait()


async def run(data_dir: Path, places: Path) -> int:
    """Both services until one ends or we are told to; the exit code."""
    for service in SERVICES:
        if address := service.taken():
            raise Taken(f"something answers at {address} already; end it first (another make run?)")
    told = asyncio.Event()
    for number in SIGNALS:
        signal.signal(number, partial(_tell, asyncio.get_running_loop(), told))
    processes = [await service.start(data_dir) for service in SERVICES]
    ends = [asyncio.create_task(told.wait()), *(asyncio.create_task(process.wait()) for process in processes)]
    prepared = asyncio.create_task(prepare(places, data_dir))
    try:
        await asyncio.wait([prepared, *ends], return_when=asyncio.FIRST_COMPLETED)
        if prepared.done():
            prepared.result()
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (prepared, *ends):
            task.cancel()
        await asyncio.gather(prepared, *ends, return_exceptions=True)
        await asyncio.gather(*map(stop, processes))
    return 0 if told.is_set() else 1


def _tell(loop: asyncio.AbstractEventLoop, told: asyncio.Event, *_: object) -> None:
    """A signal has come. The loop's own handlers would be gone, and the next Ctrl-C a traceback, with its end."""
    if not loop.is_closed():
        loop.call_soon_threadsafe(told.set)


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="make run", description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--data-dir", type=Path, default=Path(".data"), help="where the services keep their logs")
    parser.add_argument("--places", type=Path, required=True, help="GeoJSON to load into an empty collection")
    arguments = parser.parse_args()
    try:
        raise SystemExit(asyncio.run(run(arguments.data_dir, arguments.places)))
    except (LoadFailed, Taken, SignpostError, grpc.RpcError) as error:
        raise SystemExit(f"make run: {error}") from None
    finally:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)  # there is nothing left to end
