"""Files and stdin, read in a way that does not hold up the end of the command."""

import asyncio
import io
import os
import select
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any


class Input(io.RawIOBase):
    """An open descriptor. After `end` every read answers the end of the file, also one that waits in a thread.

    A thread cannot be cancelled: Ctrl-C, or an error, would show only when a pipe or a terminal says more.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._told, self._tell = os.pipe()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        ready, _, _ = select.select([self._descriptor, self._told], [], [])
        return 0 if self._told in ready else os.readv(self._descriptor, [buffer])

    def end(self) -> None:
        """Whoever waits goes on, at once."""
        if not self.closed:
            os.write(self._tell, b".")

    def close(self) -> None:
        if not self.closed:
            os.close(self._told)
            os.close(self._tell)
        super().close()


@contextmanager
def stdin_lines() -> Iterator[AsyncIterator[bytes]]:
    """The lines of stdin, without their ends, as they come; nobody waits for more after the block."""
    source = Input(sys.stdin.fileno())
    try:
        yield _lines(io.BufferedReader(source))
    finally:
        source.end()


async def _lines(stream: io.BufferedReader) -> AsyncIterator[bytes]:
    while line := await asyncio.to_thread(stream.readline):
        yield line.removesuffix(b"\n").removesuffix(b"\r")
