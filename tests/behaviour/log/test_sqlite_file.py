"""The SQLite file: what is refused at start, and left as it is."""

import asyncio
import os
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from signpost.errors import LogRefused
from signpost.log import Append, LogSettings, open_store
from signpost.log.sqlite import SQLiteStore, schema

LOG = LogSettings("notes")


async def filled(path: Path, records: int = 3) -> None:
    async with open_store(f"sqlite:///{path}", [LOG]) as store:
        await store["notes"].append_many([Append("a", b"%d" % i + b"x" * 500) for i in range(records)])


async def refusal(path: Path) -> str:
    """The text of the refusal; nothing in the file may have changed."""
    before = await asyncio.to_thread(path.read_bytes)
    with pytest.raises(LogRefused) as raised:
        async with open_store(f"sqlite:///{path}", [LOG]):
            pass
    assert await asyncio.to_thread(path.read_bytes) == before
    assert str(path) in str(raised.value)
    return str(raised.value)


async def test_fault_24_text_is_no_log(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    path.write_text("just text, longer than the hundred bytes of a header\n" * 10)
    assert "no SQLite file" in await refusal(path)


async def test_fault_24_a_foreign_database(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    assert "another program" in await refusal(path)


async def test_fault_24_a_newer_format(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute(f"PRAGMA user_version={schema.VERSION + 1}")
    connection.close()
    assert "newer release" in await refusal(path)


@pytest.mark.parametrize("damage", ["truncated", "overwritten", "header"])
async def test_fault_24_a_damaged_file(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.db"
    await filled(path, 500)
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[len(content) // 2 :]
    elif damage == "header":
        content[:16] = b"SQLite format 4\0"
    else:
        content[8192:40960] = os.urandom(32768)
    path.write_bytes(content)
    assert "damaged" in await refusal(path)


async def test_fault_24_a_directory_or_an_unreadable_place(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "file" / "a.db"):
        (tmp_path / "file").write_text("")
        with pytest.raises(LogRefused) as raised:
            async with open_store(f"sqlite:///{path}", [LOG]):
                pass
        assert str(tmp_path) in str(raised.value)


async def test_fault_24_a_place_where_nothing_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    path.with_name("a.db-wal").mkdir()
    assert "cannot be opened" in await refusal(path)
    path.with_name("a.db-wal").rmdir()
    await filled(path)


async def test_fault_25_a_second_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_store(f"sqlite:///{path}", [LOG]) as store:
        second = await asyncio.to_thread(
            subprocess.run,
            [
                sys.executable,
                "-c",
                "import asyncio, sys\n"
                "from signpost.log import LogSettings, open_store\n"
                "async def main():\n"
                "    async with open_store('sqlite:///' + sys.argv[1], [LogSettings('notes')]): pass\n"
                "asyncio.run(main())\n",
                str(path),
            ],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert second.returncode == 1
        assert f"LogRefused: {path} is in use by another process (pid {os.getpid()})" in second.stderr
        assert (await store["notes"].append(Append("a", b"1"))).sequence == 1
    await filled(path)


async def test_a_second_name_of_the_file_is_no_second_log(tmp_path: Path) -> None:
    path, link = tmp_path / "a.db", tmp_path / "links" / "b.db"
    link.parent.mkdir()
    link.symlink_to(path)
    async with open_store(f"sqlite:///{link}", [LOG]) as store:  # made where the link leads
        await store["notes"].append(Append("a", b"1"))
        with pytest.raises(LogRefused, match="in use"):
            async with open_store(f"sqlite:///{path}", [LOG]):
                pass
    async with open_store(f"sqlite:///{path}", [LOG]) as store:
        assert (await store["notes"].append(Append("a", b"2"))).sequence == 2
        with pytest.raises(LogRefused, match="in use"):
            async with open_store(f"sqlite:///{link}", [LOG]):
                pass


async def test_a_second_store_in_the_same_process_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    async with open_store(f"sqlite:///{path}", [LOG]):
        with pytest.raises(LogRefused, match="in use"):
            async with open_store(f"sqlite:///{path}", [LOG]):
                pass


async def test_an_older_format_is_migrated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.db"
    await filled(path)
    monkeypatch.setattr(schema, "MIGRATIONS", [*schema.MIGRATIONS, ["CREATE TABLE added (x)"]])
    monkeypatch.setattr(schema, "VERSION", schema.VERSION + 1)
    async with open_store(f"sqlite:///{path}", [LOG]) as store:
        assert len((await store["notes"].read(0)).records) == 3
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (schema.VERSION,)
    assert connection.execute("SELECT count(*) FROM added").fetchone() == (0,)
    connection.close()


async def test_a_relative_path_and_missing_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with open_store("sqlite:///data/deep/a.db", [LOG]) as store:
        await store["notes"].append(Append("a", b"1"))
    assert (tmp_path / "data" / "deep" / "a.db").exists()


@pytest.mark.parametrize("url", ["sqlite:", "sqlite://host/x", "sqlite:///", "file.db", "http://x", ""])
async def test_a_url_that_names_no_log_is_refused(url: str) -> None:
    with pytest.raises(LogRefused):
        async with open_store(url, [LOG]):
            pass


async def test_who_is_cancelled_while_opening_leaves_the_file_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await filled(tmp_path / "a.db")
    begun, prepare = threading.Event(), schema.prepare

    def slowly(path: Path, *, owned: bool) -> None:
        begun.set()
        time.sleep(0.2)
        prepare(path, owned=owned)

    with monkeypatch.context() as slow:
        slow.setattr(schema, "prepare", slowly)
        opening = asyncio.create_task(SQLiteStore.open(tmp_path / "a.db", [LOG]))
        await asyncio.to_thread(begun.wait)
        opening.cancel()
        await asyncio.wait((opening,))
    assert opening.cancelled()
    async with asyncio.timeout(10):
        while True:
            try:
                await filled(tmp_path / "a.db")
                break
            except LogRefused:  # the thread that was opening it is still at it
                await asyncio.sleep(0.05)
