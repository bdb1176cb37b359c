"""A file of an older release: brought to this one's format whole, or read from a copy; never under its service."""

import asyncio
import contextlib
import fcntl
import sqlite3
from pathlib import Path

import pytest
from signpost.errors import LogRefused, LogUnavailable
from signpost.log import Append, Appended, Log, LogSettings, Retention, open_store
from signpost.log.backup import backup, restore
from signpost.log.describing import describe
from signpost.log.sqlite import schema

# Written by the release before record batches: 301 notes, and places of which compaction had taken some. Neither
# was closed: its subjects lag behind its records.
FORMAT_1 = Path(__file__).parent / "format_1.sql"
NOW_NS = 1_790_007_200_000_099_000
NOTES, PLACES = LogSettings("notes"), LogSettings("places", Retention(max_age_s=3600, keep_last=True))
NOTES_150 = bytes.fromhex("012a77dd0be35be464960146b5eaf9")
PLACES_30 = bytes.fromhex("01904765c0b2bbf5111e3e266484")


@pytest.fixture
def older(tmp_path: Path) -> Path:
    """A file of format 1."""
    path = tmp_path / "older.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(FORMAT_1.read_text())
    return path


async def sequences(log: Log, subjects: str | None = None) -> list[int]:
    return [record.sequence for record in (await log.read(0, subjects=subjects, allow_gaps=True)).records]


async def test_format_1_is_migrated_with_everything_in_it(older: Path) -> None:
    async with open_store(f"sqlite:///{older}", [NOTES, PLACES], clock=lambda: NOW_NS) as store:
        notes, places = store["notes"], store["places"]
        records = (await notes.read(0)).records
        assert [record.sequence for record in records] == list(range(1, 302))
        for record in records[:300]:
            i = record.sequence
            assert record[1:3] == (f"note.{i % 7}", f"id-{i}")
            assert (record.payload, record.tombstone) == (b"note %d" % i, False)
        assert records[300].payload == bytes(1500)
        assert records[0].time_ns < records[-1].time_ns < NOW_NS
        assert await notes.resolve(NOTES_150) == 150
        assert await sequences(notes, "note.3") == [i for i in range(1, 301) if i % 7 == 3]
        assert (await notes.statistics())[:3] == (301, 3792, 8)

        assert await places.resolve(PLACES_30) == 30
        assert await sequences(places) == [13, 14, 15, *range(20, 31)]
        assert await places.bounds() == (13, 30, 19)
        assert [(record.subject, record.sequence) for record in await places.last_of_each()] == [
            *[(f"place.{i}", sequence) for i, sequence in enumerate([30, 28, 29])],
            *[(f"place.{i}", sequence) for i, sequence in [(4, 20), (5, 13), (6, 14), (7, 15)]],
        ]
        last = await places.last("place.2")
        assert last is not None
        assert last.tombstone is True

        # Message ids and expected sequences of before hold, and it goes on where it was.
        assert await notes.append(Append("note.1", b"again", "id-1", "ann")) == Appended(1, True)
        assert await notes.append(Append("note.1", b"new", expected_sequence=295)) == Appended(302, False)
        assert await places.append(Append("place.9", b"new")) == Appended(31, False)
    async with open_store(f"sqlite:///{older}", [NOTES, PLACES], clock=lambda: NOW_NS) as store:
        assert await sequences(store["notes"]) == list(range(1, 303))
        assert await sequences(store["places"], "place.4") == [20]


async def test_format_1_stays_as_it_is_where_it_is_only_read(older: Path, tmp_path: Path) -> None:
    before = await asyncio.to_thread(older.read_bytes)
    figures = await describe(f"sqlite:///{older}")
    assert figures["notes"] == (301, 3792, 8, 1, 301)
    assert figures["places"] == (14, 128, 7, 13, 30)
    assert await backup(f"sqlite:///{older}", tmp_path / "made.backup") == 315
    assert await restore(f"sqlite:///{tmp_path / 'new.db'}", older) == 315
    assert await asyncio.to_thread(older.read_bytes) == before
    assert not [path for path in await asyncio.to_thread(lambda: list(tmp_path.iterdir())) if path.is_dir()]
    for path in (tmp_path / "made.backup", tmp_path / "new.db"):
        async with open_store(f"sqlite:///{path}", [NOTES, PLACES], clock=lambda: NOW_NS) as store:
            assert await sequences(store["notes"]) == list(range(1, 302))
            assert await sequences(store["places"]) == [13, 14, 15, *range(20, 31)]


async def test_format_1_is_not_changed_under_its_service(older: Path, tmp_path: Path) -> None:
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}", [NOTES]):
        pass
    await backup(f"sqlite:///{tmp_path / 'a.db'}", tmp_path / "a.backup")
    with (tmp_path / "older.db.lock").open("w") as held:
        held.write("pid 4711")
        held.flush()
        fcntl.flock(held, fcntl.LOCK_EX)
        before = await asyncio.to_thread(older.read_bytes)
        with pytest.raises(LogRefused, match=r"older\.db is in use by another process \(pid 4711\)"):
            await restore(f"sqlite:///{older}", tmp_path / "a.backup")
        assert await asyncio.to_thread(older.read_bytes) == before


async def test_a_failed_migration_leaves_format_1(older: Path) -> None:
    """A record that cannot be taken over ends it; nothing of it stays."""
    with contextlib.closing(sqlite3.connect(older, isolation_level=None)) as connection:
        connection.execute("UPDATE records_2 SET subject = X'FFFE' WHERE sequence = 30")
    with pytest.raises(LogRefused, match=r"older\.db cannot be opened: a record between 13 and 30 of log 2 is damaged"):
        async with open_store(f"sqlite:///{older}", [NOTES, PLACES]):
            pass
    with contextlib.closing(sqlite3.connect(older)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        assert "records_1" in tables
        assert not any(name.startswith("batches") for name in tables)


@pytest.mark.parametrize("damage", [b"\xff", b"\x0a\x01\x05"], ids=["no message", "columns of different lengths"])
async def test_fault_24_a_damaged_batch_is_named_and_hides_nothing_else(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.db"
    async with open_store(f"sqlite:///{path}", [LogSettings("notes", tail_bytes=1)]) as store:
        log = store["notes"]
        for i in range(4):
            await log.append(Append("a", b"%d" % i))
        with contextlib.closing(schema.connect(path)) as connection:
            connection.execute("UPDATE batches_1 SET batch = ? WHERE last = 2", (damage,))
        with pytest.raises(LogUnavailable, match=r"a\.db: a batch of records is damaged"):
            await log.read(0)
        assert [record.payload for record in (await log.read(2)).records] == [b"2", b"3"]
        assert await log.append(Append("b", b"4")) == Appended(5, False)
