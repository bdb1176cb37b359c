"""Tasks that must not end while their log is open."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

_log = logging.getLogger(__name__)
_PAUSE_S = 1.0
_AGAIN_S = 2.0  # longer than what a task may take to end in order


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


async def stop(*tasks: asyncio.Task[None]) -> None:
    """Cancel tasks and return when they have ended.

    Once is not always enough: nats-py swallows a cancellation that meets it while it flushes, and one that meets it
    as a wait of its own ends.
    """
    running = set(tasks)
    while running:
        for task in running:
            task.cancel()
        _, running = await asyncio.wait(running, timeout=_AGAIN_S)
