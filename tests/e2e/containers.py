"""A Docker engine, the images that the stack stands on, and the stack itself by docker-compose.

Where images cannot be pulled, SIGNPOST_CONTAINERS_DIR names a directory with two programs:
`engine.sh` (makes sure that an engine answers) and `standin-image.sh IMAGE SUITE PACKAGES [CHANGE ...]`
(builds a stand-in under the same name from Debian's packages).
"""

import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.ports import free_port
from tests.support.services import ROOT

# Image: arguments of standin-image.sh.
BASES: Mapping[str, Sequence[str]] = {
    "python:3.13-slim-trixie": ("trixie", "python3 python3-venv python3-pip"),
    "prom/prometheus:v3.5.0": ("bookworm", "prometheus", 'ENTRYPOINT ["/usr/bin/prometheus"]'),
}
STARTED = ("feature", "notification", "prometheus")
"""What of docker-compose.yml is brought up: Grafana has no stand-in."""
PORTS = ("FEATURE", "FEATURE_METRICS", "NOTIFICATION", "NOTIFICATION_METRICS", "PROMETHEUS")
_HEALTHY_S = 180.0


def need_engine() -> None:
    """Make sure that a Docker engine answers and the base images are there, or skip (fail in CI) with the reason."""
    helpers = os.environ.get("SIGNPOST_CONTAINERS_DIR")
    if helpers:
        run(str(Path(helpers) / "engine.sh"))
    reason = None
    if shutil.which("docker") is None:
        reason = "needs docker on PATH"
    elif subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False).returncode:
        reason = "needs a Docker engine that answers"
    elif not compose_command():
        reason = "needs docker compose"
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    for image, standin in BASES.items():
        if helpers:
            run(str(Path(helpers) / "standin-image.sh"), image, *standin)
        elif subprocess.run(["docker", "image", "inspect", image], capture_output=True, check=False).returncode:
            run("docker", "pull", "--quiet", image)


def compose_command() -> list[str]:
    """The plugin, or the program of its own; empty where there is neither."""
    if subprocess.run(["docker", "compose", "version"], capture_output=True, check=False).returncode == 0:
        return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else []


class Stack:
    """docker-compose.yml under a project name and on ports of its own."""

    def __init__(self) -> None:
        self.ports = {name: free_port() for name in PORTS}
        self.project = f"signpost-test-{self.ports['FEATURE']}"
        self._environment = {
            **os.environ,
            **{f"SIGNPOST_{name}_PORT": str(port) for name, port in self.ports.items()},
            "SIGNPOST_VERSION": f"0.0.0-test{self.ports['FEATURE']}",
        }

    def build(self) -> None:
        for target in ("feature", "notification"):
            tag = f"signpost-{target}:{self._environment['SIGNPOST_VERSION']}"
            run("docker", "build", "--quiet", "--network", "host", "--file", "deploy/docker/Dockerfile",
                "--target", target, "--tag", tag, ".")  # fmt: skip

    def up(self) -> None:
        """Start, and wait until the containers' own health checks say healthy."""
        self.compose("up", "-d", "--no-build", *STARTED)
        deadline = time.monotonic() + _HEALTHY_S
        while waiting := {
            name: state for name in STARTED if (state := self.state(name)["Health"]["Status"]) != "healthy"
        }:
            assert time.monotonic() < deadline, f"{waiting}\n{self.compose('logs', '--tail=30')}"
            time.sleep(1)

    def state(self, service: str) -> dict[str, Any]:
        """Docker's state of a container: Status, ExitCode, Health."""
        labels = (f"project={self.project}", f"service={service}")
        filters = [f"--filter=label=com.docker.compose.{label}" for label in labels]
        container = run("docker", "ps", "--all", "--quiet", *filters).strip()
        state: dict[str, Any] = json.loads(run("docker", "inspect", "--format", "{{json .State}}", container))
        return state

    def compose(self, *arguments: str) -> str:
        return run(*compose_command(), "--project-name", self.project, *arguments, env=self._environment)

    def down(self) -> None:
        """Remove the containers, networks, volumes and images of this stack."""
        self.compose("down", "--volumes", "--remove-orphans", "--timeout", "30")
        images = run(
            "docker", "images", "--quiet", "--filter", f"reference=signpost-*:{self._environment['SIGNPOST_VERSION']}"
        )
        if images.strip():
            run("docker", "rmi", "--force", *images.split())


def run(*command: str, env: Mapping[str, str] | None = None) -> str:
    """What it prints; raises with all of its output where its exit code is not 0."""
    done = subprocess.run(
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=800, check=False, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    return done.stdout
