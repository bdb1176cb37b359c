"""Backup and restore while the service runs, on the engines that keep anything."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from signpost.errors import EpochChanged, LogRefused, LogUnavailable, PositionError, StaleSequence
from signpost.log import Append, Log, LogSettings, Record, Retention, Store, open_store
from signpost.log.backup import backup, restore
from signpost.log.jetstream.connection import Link

from tests.contract.engines import Engine, JetStream, Memory, SQLite, eventually

TIMEOUT_S = 20.0
LOGS = (LogSettings("notes"), LogSettings("state", Retention(max_age_s=3600.0, keep_last=True)))


@pytest.fixture
def url(engine: Engine) -> str:
    """Where the engine's storage is."""
    if isinstance(engine, Memory):
        pytest.skip("the in-memory engine has nothing that another process could back up")
    assert isinstance(engine, SQLite | JetStream)
    return engine.url


@pytest.fixture
async def store(engine: Engine, url: str) -> AsyncIterator[Store]:
    async with engine.open(*LOGS) as store:
        yield store


async def fill(store: Store) -> None:
    await store["notes"].append_many([Append(f"a.{i % 5}", b"%d" % i, f"m{i}") for i in range(3000)])
    await store["state"].append_many([Append("k", b"1"), Append("gone", b"", tombstone=True), Append("k", b"2")])


async def everything(log: Log) -> list[Record]:
    records: list[Record] = []
    after = 0
    while after < log.head:
        page = await log.read(after, allow_gaps=True)
        records += page.records
        after = page.through
    return records


async def test_restore_brings_back_what_was_backed_up(store: Store, url: str, tmp_path: Path) -> None:
    await fill(store)
    notes, state = store["notes"], store["state"]
    before = {log.name: (log.epoch, await everything(log)) for log in (notes, state)}
    assert await backup(url, tmp_path / "a.backup") == 3003
    token = await notes.position(10)
    await notes.append_many([Append("later", b"x") for _ in range(100)])
    await state.append(Append("k", b"3"))

    assert await restore(url, tmp_path / "a.backup") == 3003

    for log in (notes, state):
        epoch, records = before[log.name]

        async def holds(log: Log = log, epoch: bytes = epoch, count: int = len(records)) -> bool:
            return log.epoch != epoch and log.head == count

        await eventually(holds, "the service goes on in what was restored")
        found = await everything(log)
        assert [record._replace(time_ns=0) for record in found] == [record._replace(time_ns=0) for record in records]
    with pytest.raises(EpochChanged):
        await notes.resolve(token)
    assert [info.subject for info in await notes.subjects()] == [f"a.{i}" for i in range(5)]
    with pytest.raises(StaleSequence) as raised:
        await state.append(Append("k", b"x", expected_sequence=1))
    assert raised.value.actual == 3
    assert (await state.append(Append("k", b"4", expected_sequence=3))).sequence == 4


async def test_followers_of_the_log_before_are_told(store: Store, url: str, tmp_path: Path) -> None:
    await fill(store)
    await backup(url, tmp_path / "a.backup")
    pages = store["notes"].follow(3000)
    assert (await anext(pages)).through == 3000
    waiting = asyncio.create_task(anext(pages))
    await asyncio.sleep(0.05)
    await restore(url, tmp_path / "a.backup")
    with pytest.raises(PositionError) as raised:
        await asyncio.wait_for(waiting, TIMEOUT_S)
    assert isinstance(raised.value, EpochChanged)


async def test_a_backup_under_load_is_one_moment(store: Store, url: str, tmp_path: Path) -> None:
    log = store["notes"]
    stop = asyncio.Event()

    async def load() -> None:
        while not stop.is_set():
            await log.append_many([Append("a", b"x" * 100) for _ in range(50)])

    loading = asyncio.create_task(load())
    try:
        await log.wait_for(500)
        before = log.head
        records = await asyncio.wait_for(backup(url, tmp_path / "a.backup"), TIMEOUT_S)
        assert before <= records <= log.head
    finally:
        stop.set()
        await loading
    async with open_store(f"sqlite:///{tmp_path / 'a.backup'}", LOGS) as copy:
        assert [r.sequence for r in await everything(copy["notes"])] == list(range(1, records + 1))


async def test_a_backup_opens_as_a_log(store: Store, url: str, tmp_path: Path) -> None:
    await fill(store)
    await backup(url, tmp_path / "a.backup")
    async with open_store(f"sqlite:///{tmp_path / 'a.backup'}", LOGS) as copy:
        assert await everything(copy["notes"]) == await everything(store["notes"])
        assert await copy["notes"].statistics() == (3000, 10890, 5, 1, 3000)
        assert (await copy["notes"].append(Append("a.0", b"", expected_sequence=2996))).sequence == 3001


@pytest.mark.parametrize("content", [b"", b"text" * 100, None])
async def test_what_is_no_backup_is_refused(store: Store, url: str, tmp_path: Path, content: bytes | None) -> None:
    await store["notes"].append(Append("a", b"1"))
    path = tmp_path / "a.backup"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LogRefused, match=r"a\.backup"):
        await restore(url, path)
    assert (await store["notes"].append(Append("a", b"2"))).sequence == 2


async def test_a_damaged_backup_deletes_nothing(store: Store, url: str, tmp_path: Path) -> None:
    if url.startswith("sqlite:"):
        pytest.skip("what is damaged there comes back as it is, and readers are told: test_sqlite_formats.py")
    await fill(store)
    await backup(url, tmp_path / "a.backup")
    with contextlib.closing(sqlite3.connect(tmp_path / "a.backup", isolation_level=None)) as damaging:
        damaging.execute("UPDATE batches_1 SET batch = x'ff00ff' WHERE last = 3000")
    with pytest.raises(LogRefused, match=r"a\.backup.*damaged"):
        await restore(url, tmp_path / "a.backup")
    assert len(await everything(store["notes"])) == 3000
    assert (await store["state"].statistics()).last == 3


async def test_a_stream_that_cannot_be_deleted_is_not_restored_into(
    store: Store, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if url.startswith("sqlite:"):
        pytest.skip("there are no streams")
    await fill(store)
    await backup(url, tmp_path / "a.backup")
    api = Link.api

    async def without_leader(link: Link, request: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        if request.startswith("STREAM.DELETE."):
            return {"error": {"code": 503, "err_code": 10008, "description": "JetStream is temporarily unavailable"}}
        return await api(link, request, body)

    monkeypatch.setattr(Link, "api", without_leader)
    with pytest.raises(LogUnavailable, match="temporarily"):
        await restore(url, tmp_path / "a.backup")
    assert len(await everything(store["notes"])) == 3000


async def test_a_backup_that_cannot_be_written_is_refused(store: Store, url: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LogRefused):
        await backup(url, tmp_path / "file" / "a.backup")
    with contextlib.suppress(FileNotFoundError):
        assert not list((tmp_path / "file").glob("*"))


async def test_a_log_is_no_backup_of_itself(store: Store, url: str, tmp_path: Path) -> None:
    if not url.startswith("sqlite:"):
        pytest.skip("only this engine's log is a file")
    live = Path(url.removeprefix("sqlite:///"))
    (tmp_path / "link").symlink_to(live)
    for path in (live, tmp_path / "link"):
        with pytest.raises(LogRefused, match="the log itself"):
            await backup(url, path)
        with pytest.raises(LogRefused, match="the log itself"):
            await restore(url, path)
    assert (await store["notes"].append(Append("a", b"1"))).sequence == 1
