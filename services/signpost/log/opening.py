"""From a URL to an open store."""

import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

from signpost.errors import LogRefused
from signpost.log.base import LogSettings, Store
from signpost.log.memory import MemoryStore

NATS_SCHEMES = ("nats", "tls", "ws", "wss")


@asynccontextmanager
async def open_store(
    url: str,
    logs: Sequence[LogSettings],
    *,
    settings: Any = None,
    clock: Callable[[], int] = time.time_ns,
) -> AsyncIterator[Store]:
    """Open the logs of one process on the engine that the URL names; closed at the end of the block.

    - `sqlite:///PATH`: an SQLite file, made where it is missing. PATH as it stands: `sqlite:///data/a.db` is
      relative to the working directory, `sqlite:////var/lib/a.db` absolute.
    - `nats://HOST:PORT` (several, joined by commas) or `tls://...`: NATS JetStream; needs the extra
      `signpost[nats]`. `settings` is a `signpost.log.jetstream.JetStreamSettings`.
    - `memory:` or `memory:NAME`: nothing is kept beyond the process. For tests.

    `clock` answers Unix nanoseconds; on JetStream the server's clock counts. Raises LogRefused, with
    the file or stream in its text, where the log must not be opened as it is.
    """
    store = await _open(url, logs, settings, clock)
    async with store:
        yield store


async def _open(url: str, logs: Sequence[LogSettings], settings: Any, clock: Callable[[], int]) -> Store:
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return MemoryStore(logs, url.removeprefix("memory:"), clock)
    if scheme == "sqlite":
        from signpost.log.sqlite import SQLiteStore  # noqa: PLC0415 - an engine is imported where it is used

        return await SQLiteStore.open(sqlite_path(url), logs, clock=clock)
    if scheme in NATS_SCHEMES:
        try:
            from signpost.log.jetstream import JetStreamStore  # noqa: PLC0415 - and needs an extra
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] != "nats":
                raise
            raise LogRefused(f"{url} needs nats-py: pip install 'signpost[nats]'") from error
        return await JetStreamStore.open(url, logs, settings)
    raise LogRefused(f"{url!r} is no log: use sqlite:///PATH or nats://HOST:PORT")


def sqlite_path(url: str) -> str:
    """The path in a `sqlite:///PATH` URL, behind its symbolic links: one file under two names is one log."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path:
        raise LogRefused(f"{url!r} names no file: write sqlite:///PATH")
    return os.path.realpath(path)
