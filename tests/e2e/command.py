"""The `signpost` command as its users run it: a process with pipes, or one on a terminal."""

import asyncio
import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.services import ROOT, ServiceProcess, clean_environment

_TIMEOUT_S = 30.0


class Signpost:
    """The command, pointed at two services."""

    def __init__(self, feature: str, notification: str, **environment: str) -> None:
        self._env = clean_environment() | {
            "SIGNPOST_FEATURE": feature,
            "SIGNPOST_NOTIFICATION": notification,
            "COLUMNS": "120",
            "TERM": "xterm",
            **environment,
        }

    def run(self, *arguments: str, stdin: str | bytes = b"") -> "subprocess.CompletedProcess[str]":
        """Run it to its end, whatever its exit code."""
        data = stdin.encode() if isinstance(stdin, str) else stdin
        done = subprocess.run(
            self._command(arguments),
            env=self._env,
            cwd=ROOT,
            input=data,
            capture_output=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
        return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())

    def shell(self, line: str) -> "subprocess.CompletedProcess[str]":
        """Run a line of shell, in which "$0" is the command."""
        command = ["/bin/sh", "-c", line, *self._command(())]
        return subprocess.run(
            command, env=self._env, cwd=ROOT, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )

    def __call__(self, *arguments: str, stdin: str | bytes = b"") -> list[Any]:
        """The JSON lines that it prints; it must succeed."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def fails(self, *arguments: str, code: int = 1, stdin: str | bytes = b"") -> str:
        """The one line on stderr with which it must fail."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == code, done.stderr
        assert done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert line.startswith("signpost: ")
        return line.removeprefix("signpost: ")

    @contextmanager
    def background(self, *arguments: str, stdin: int | None = None) -> Iterator["subprocess.Popen[str]"]:
        """Run it beside the test, its output in pipes; interrupted at the end, which must be quiet."""
        process = subprocess.Popen(
            self._command(arguments),
            env=self._env,
            cwd=ROOT,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGINT)
                _, errors = process.communicate(timeout=_TIMEOUT_S)
                assert (process.returncode, errors) == (130, "")
        finally:
            process.kill()
            process.communicate()

    @contextmanager
    def on_terminal(self, *arguments: str) -> Iterator["Terminal"]:
        """Run it on a pseudo-terminal."""
        child, descriptor = pty.fork()
        if child == 0:
            os.chdir(ROOT)
            command = self._command(arguments)
            os.execve(command[0], command, self._env)  # noqa: S606 - in place of this copy of the test
        terminal = Terminal(child, descriptor)
        try:
            yield terminal
        finally:
            terminal.close()

    @staticmethod
    def _command(arguments: tuple[str, ...]) -> list[str]:
        return [str(Path(sys.executable).with_name("signpost")), *arguments]


class Terminal:
    """What a person at a terminal sees of a process, and types."""

    def __init__(self, process: int, descriptor: int) -> None:
        self._process, self._descriptor = process, descriptor
        self._ended = False
        self.seen = ""

    def until(self, text: str) -> str:
        """Wait until this text is there; answers everything seen."""
        deadline = time.monotonic() + _TIMEOUT_S
        while text not in self.seen:
            assert self._read(deadline), f"{text!r} was not seen in:\n{self.seen}"
        return self.seen

    def until_end(self) -> int:
        """Wait for the end of the process; answers its exit code."""
        deadline = time.monotonic() + _TIMEOUT_S
        while self._read(deadline):
            pass
        _, status = os.waitpid(self._process, 0)
        self._ended = True
        return os.waitstatus_to_exitcode(status)

    def type(self, text: str) -> None:
        os.write(self._descriptor, text.encode())

    def _read(self, deadline: float) -> bool:
        """Read what is there; False at the end. Raises AssertionError at the deadline."""
        ready, _, _ = select.select([self._descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more came after:\n{self.seen}"
        try:
            data = os.read(self._descriptor, 65536)
        except OSError:  # how Linux ends a pseudo-terminal
            return False
        self.seen += data.decode(errors="replace")
        return bool(data)

    def close(self) -> None:
        if not self._ended:
            os.kill(self._process, signal.SIGKILL)
            os.waitpid(self._process, 0)
        os.close(self._descriptor)


def serve(module: str, directory: Path) -> Iterator[ServiceProcess]:
    """For fixtures: a service with nothing in it, killed at the end."""
    service = ServiceProcess(module, directory)
    try:
        asyncio.run(service.start())
        yield service
    finally:
        service.kill()
