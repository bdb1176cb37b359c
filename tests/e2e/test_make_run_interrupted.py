"""Ctrl-C at any moment of `make run`, also again and again: it ends with 0, quietly, and leaves nothing behind."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.ports import free_port
from tests.support.services import clean_environment

_ON_FREE_PORTS = """
import sys
from signpost.cli import dev, make_run
ports = [f"localhost:{port}" for port in sys.argv.pop().split(",")]
dev.SERVICES = (
    dev.Service("feature_service", "feature.v1.FeatureService", *ports[:2]),
    dev.Service("notification_service", "notification.v1.NotificationService", *ports[2:]),
)
print("begin", flush=True)
make_run.main()
"""


def arguments(data_dir: Path) -> list[str]:
    return ["--data-dir", str(data_dir), "--places", str(data_dir / "none.geojsonl")]


def test_while_it_is_being_imported(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "signpost.cli.make_run", *arguments(tmp_path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=clean_environment()) as process:
        assert process.stderr is not None
        assert any("grpc" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        errors = process.stderr.read()
        assert process.wait(20) == 0, errors
        assert "Traceback" not in errors


@pytest.mark.parametrize("after_s", [0.02, 0.1, 0.3, 0.6, 1.0])
def test_before_the_services_serve(tmp_path: Path, after_s: float) -> None:
    ports = ",".join(str(free_port()) for _ in range(4))
    command = [sys.executable, "-c", _ON_FREE_PORTS, *arguments(tmp_path), ports]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "begin\n"
        time.sleep(after_s)
        while process.poll() is None:  # somebody who cannot wait
            process.send_signal(signal.SIGINT)
            time.sleep(0.001)
        output = process.stdout.read()
    assert process.returncode == 0, output
    assert "Traceback" not in output
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True, timeout=10).stdout
    assert str(tmp_path) not in running
