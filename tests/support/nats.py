"""A real nats-server with JetStream for tests, on loopback and a free port.

Found on PATH or in /usr/sbin (where Debian puts it). Where there is none, a test that asks for it is
skipped with the reason, and fails when CI=true.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import pytest

from tests.support.ports import free_port

START_TIMEOUT_S = 20.0


def nats_server_binary() -> str:
    """Where nats-server is; skips the test without one, or fails it when CI=true."""
    binary = shutil.which("nats-server") or shutil.which("nats-server", path="/usr/sbin:/usr/local/bin")
    if binary is None:
        reason = "no nats-server on PATH or in /usr/sbin (Debian: apt-get install nats-server)"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return binary


class NatsServer:
    """One nats-server process. Its port and store directory stay over restarts.

    `extra` is text for the configuration file (users, TLS, a cluster); `store_mb` bounds the store.
    """

    def __init__(
        self,
        directory: Path,
        *,
        name: str = "n1",
        port: int = 0,
        extra: str = "",
        jetstream: bool = True,
        store_mb: int = 8192,
    ) -> None:
        self.binary = nats_server_binary()
        self.directory = directory
        self.port = port or free_port()
        self.log_path = directory / f"{name}.log"
        self._config = directory / f"{name}.conf"
        directory.mkdir(parents=True, exist_ok=True)
        store = f"jetstream {{ store_dir: {json.dumps(str(directory / name))}, max_file_store: {store_mb}MB }}"
        self._text = (
            f"server_name: {name}\n"
            f"listen: 127.0.0.1:{self.port}\n"
            f"{store if jetstream else ''}\n"
            f"logfile: {json.dumps(str(self.log_path))}\n"
            f"{extra}\n"
        )
        self.write_config()
        self.process: subprocess.Popen[bytes] | None = None

    def write_config(self) -> None:
        """Write the configuration file, again where another server of the same directory has written its own."""
        self._config.write_text(self._text)

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def start(self, *, wait: bool = True) -> None:
        """Start it and wait until it takes connections (a cluster's nodes wait for each other)."""
        self.process = subprocess.Popen(
            [self.binary, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if wait:
            self.wait_ready()

    def wait_ready(self) -> None:
        """Return once it greets; raises with its log when it ends first or takes too long."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process is None or self.process.poll() is not None:
                break
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
                    if connection.recv(5).startswith(b"INFO"):
                        return
            except OSError:
                pass
            time.sleep(0.02)
        log = self.log_path.read_text() if self.log_path.exists() else ""
        raise RuntimeError(f"nats-server on port {self.port} did not start: {log[-2000:]}")

    def stop(self) -> None:
        """SIGTERM, as an operator would; SIGKILL where that takes longer than 10 s."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL, in the middle of whatever it does."""
        self._end(signal.SIGKILL)

    def restart(self) -> None:
        """Kill it and start it again on the same port and store."""
        self.kill()
        self.start()

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing answers, from when this returns."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)
        os.waitpid(self.process.pid, os.WUNTRACED)  # its threads stop a moment after the signal

    def thaw(self) -> None:
        """SIGCONT after `freeze`."""
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def _end(self, how: signal.Signals) -> None:
        process, self.process = self.process, None
        if process is None:
            return
        process.send_signal(how)
        process.send_signal(signal.SIGCONT)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class NatsCluster:
    """Nodes in one cluster on loopback; `url` names them all."""

    def __init__(self, directory: Path, nodes: int = 3) -> None:
        routes = [free_port() for _ in range(nodes)]
        route_list = ", ".join(f"nats-route://127.0.0.1:{port}" for port in routes)
        self.nodes = [
            NatsServer(
                directory / f"n{i}",
                name=f"n{i}",
                extra=f"cluster {{ name: test, listen: 127.0.0.1:{routes[i]}, routes: [{route_list}] }}",
            )
            for i in range(nodes)
        ]

    @property
    def url(self) -> str:
        return "nats://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def start(self) -> None:
        """Start every node; JetStream is ready once they have chosen a leader, a few seconds later."""
        for node in self.nodes:
            node.start(wait=False)
        for node in self.nodes:
            node.wait_ready()

    def stop(self) -> None:
        for node in self.nodes:
            node.kill()

    def node_named(self, name: str) -> NatsServer:
        """The node with this server name, as a stream's leader is told."""
        return self.nodes[int(name.removeprefix("n"))]


@contextlib.asynccontextmanager
async def administrator(server: NatsServer) -> AsyncIterator[Any]:
    """A second client, as an operator's tool is."""
    client = await nats.connect(server.url)
    try:
        yield client.jetstream()
    finally:
        await client.close()
