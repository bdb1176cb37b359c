"""A full disk: writes fail with StorageFull, reads go on, and writes resume when there is room."""

import asyncio
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from signpost.errors import StorageFull
from signpost.log import Append, Appended, Log, LogSettings, LogState, open_store

SIZE = 8 * 1024 * 1024
TIMEOUT_S = 20.0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MiB."""
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"a small tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


async def append_until_full(log: Log) -> list[int]:
    """Sequences that were acknowledged before the disk was full."""
    stored: list[int] = []
    for _ in range(10_000):
        for answer in await log.append_many([Append("a", os.urandom(2000)) for _ in range(20)]):
            if isinstance(answer, StorageFull):
                return stored
            assert isinstance(answer, Appended), answer
            stored.append(answer.sequence)
    raise AssertionError("the disk never filled")


async def until(holds: Callable[[], bool]) -> None:
    """Return once it holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not holds():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.05)


async def test_fault_23_a_full_disk_and_room_again(small_disk: Path) -> None:
    url = f"sqlite:///{small_disk}/a.db"
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"\0" * (3 * 1024 * 1024))
    async with open_store(url, [LogSettings("notes")]) as store:
        log = store["notes"]
        stored = await append_until_full(log)
        await until(lambda: store.state is LogState.FULL)
        with pytest.raises(StorageFull):
            await log.append(Append("a", b"x" * 400_000))
        found = 0
        async with asyncio.timeout(TIMEOUT_S):
            async for page in log.follow(0):
                found += len(page.records)
                if page.through >= log.head:
                    break
            assert found == len(stored)
            assert await log.last("a") is not None
            assert (await log.statistics()).records == len(stored)
            assert [info.subject for info in await log.subjects()] == ["a"]

            ballast.unlink()
            await until(lambda: store.state is LogState.WRITABLE)
        assert await log.append(Append("a", b"after")) == Appended(stored[-1] + 1, False)
        # And full again, to be closed and opened like that.
        stored += [stored[-1] + 1, *await append_until_full(log)]
    async with open_store(url, [LogSettings("notes")]) as store:
        assert store["notes"].head == stored[-1]
        assert stored == list(range(1, stored[-1] + 1))
