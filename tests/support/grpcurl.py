"""grpcurl, the client that a person would use."""

import asyncio
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

INSTALL = "go install github.com/fullstorydev/grpcurl/cmd/grpcurl@latest"


def find() -> str:
    """Its path: from PATH or Go's bin directory. Skips the test where it is missing; in CI that is a failure."""
    gobin = os.environ.get("GOBIN") or Path(os.environ.get("GOPATH") or Path.home() / "go") / "bin"
    found = shutil.which("grpcurl") or shutil.which("grpcurl", path=str(gobin))
    if found is None:
        message = f"grpcurl is not installed, so nothing was called with it: {INSTALL}"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return found


@dataclass(frozen=True, slots=True)
class Answer:
    """What it printed, and its exit code (64 + the status code where a call failed)."""

    exit_code: int
    out: str
    err: str


async def grpcurl(*arguments: str, stdin: str = "", timeout_s: float = 30.0) -> Answer:
    """Run it with `-plaintext`."""
    process = await asyncio.create_subprocess_exec(
        find(),
        "-plaintext",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(timeout_s):
        out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Answer(process.returncode, out.decode(), err.decode())
