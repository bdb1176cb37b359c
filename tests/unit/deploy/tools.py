"""Programs that check files which others read: found on PATH, or the test is skipped with the reason."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def find_tool(*names: str) -> str:
    """The path of the first that is there. None: fails where CI is set, skips elsewhere."""
    for name in names:
        for path in (shutil.which(name), f"/usr/sbin/{name}"):
            if path and Path(path).exists():
                return path
    message = f"needs {' or '.join(names)} on PATH"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def run_tool(*command: str | Path, env: dict[str, str] | None = None) -> str:
    """What it prints; fails the test with all of its output where its exit code is not 0."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=ROOT,
        env={**os.environ, **(env or {})},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
