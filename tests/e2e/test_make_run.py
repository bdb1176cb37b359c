"""The first two minutes of somebody new: an empty clone, `make run`, a first look, Ctrl-C."""

import json
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest
from signpost.cli import dev
from signpost.client import Feature, FeatureClient

from tests.support.services import running

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0
"""On two cores, installs included, where the package index is near."""
PORTS = (50051, 50052, 9101, 9102)


def taken(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def environment() -> dict[str, str]:
    """Ours, without what a virtual environment or make have put there."""
    names = ("SIGNPOST_", "MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTEST_", "COVERAGE", "COV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(names)}


def wait_for(text: str, output: Path, process: "subprocess.Popen[bytes]", limit_s: float) -> None:
    """Wait until a process has written a text; its whole output is in the error if it does not."""
    deadline = time.monotonic() + limit_s
    while text not in (written := output.read_text(errors="replace")):
        assert process.poll() is None, f"make run ended with {process.returncode}:\n{written}"
        assert time.monotonic() < deadline, f"no {text!r} after {limit_s} s:\n{written}"
        time.sleep(0.1)


@pytest.mark.long
def test_make_run_serves_from_an_empty_clone_and_ends_with_0(tmp_path: Path) -> None:
    if shutil.which("script") is None:
        pytest.skip("no `script` (util-linux) to give make a terminal")
    if any(taken(port) for port in PORTS):
        assert os.environ.get("CI") != "true", "the default ports are taken"
        pytest.skip("the default ports are taken: is `make run` running?")
    clone, output = tmp_path / "clone", tmp_path / "output"
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
    command = ["script", "--quiet", "--flush", "--return", "--command", "make run", "/dev/null"]
    with (
        output.open("wb") as terminal,
        subprocess.Popen(
            command, cwd=clone, env=environment(), stdin=subprocess.PIPE, stdout=terminal, stderr=terminal
        ) as process,
    ):
        try:
            wait_for("Ctrl-C ends both", output, process, LIMIT_S)
            near = subprocess.run(
                [".venv/bin/signpost", "near", "48.85,2.35", "--limit", "1", "--json"],
                cwd=clone,
                env=environment(),
                capture_output=True,
                check=True,
                timeout=20,
            )
            assert "Paris" in json.dumps(json.loads(near.stdout))
            assert process.stdin is not None
            process.stdin.write(b"\x03")
            process.stdin.flush()
            assert process.wait(60) == 0, output.read_text(errors="replace")
            assert not any(taken(port) for port in PORTS)
        finally:
            process.terminate()


def place(id: str) -> str:
    point = {"type": "Point", "coordinates": [1, 2]}
    return json.dumps({"type": "Feature", "id": id, "geometry": point, "properties": {"name": id}}) + "\n"


async def test_places_whose_load_was_cut_short_are_completed_and_what_changed_since_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, damaged = tmp_path / "whole.geojsonl", tmp_path / "damaged.geojsonl"
    whole.write_text(place("a") + place("b") + place("c"))
    damaged.write_text(place("a") + place("b") + "{\n")
    async with running("feature_service", tmp_path) as service, FeatureClient(service.target) as client:
        monkeypatch.setattr(dev, "FEATURE", dev.Service("m", "n", service.target, "localhost:1"))

        async def names() -> list[str]:
            return [found.name async for found in client.list((2.0, 1.0))]

        with pytest.raises(dev.LoadFailed):
            await dev.fill(damaged, tmp_path)
        await client.put(Feature("a", 2.0, 1.0, name="mine"))
        assert await names() == ["mine", "b"]
        await dev.fill(whole, tmp_path)
        assert await names() == ["mine", "b", "c"]
        await client.delete("b")
        await dev.fill(whole, tmp_path)
        assert await names() == ["mine", "c"], "what was whole once is left alone"
