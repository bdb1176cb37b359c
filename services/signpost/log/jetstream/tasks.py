"""Tasks that must not end while their log is open."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0


def keep_running(work: Callable[[], Awaitable[None]], name: str) -> asyncio.Task[None]:
    """Run `work` until the task is cancelled: a failure that nobody foresaw is logged, and it begins again."""

    async def run() -> None:
        while True:
            try:
                await work()
            except Exception:
                _log.exception("%s failed; it begins again", name)
            await asyncio.sleep(_PAUSE_S)

    return asyncio.create_task(run(), name=name)
