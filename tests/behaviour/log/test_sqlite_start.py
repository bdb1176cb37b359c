"""That a process is back with everything, and that writers and readers do not hinder each other."""

import asyncio
import contextlib
import random
import shutil
import sqlite3
import time
from contextlib import aclosing
from itertools import pairwise
from pathlib import Path

import pytest
from signpost.errors import Internal, LogUnavailable
from signpost.log import Append, LogSettings, LogState, Record, Retention, open_store
from signpost.log.sqlite import batches, compaction, schema, subjects, writer
from signpost.log.sqlite.batches import decoded, records_of, rows_after
from signpost.log.sqlite.compaction import Compaction
from signpost.log.sqlite.journal import Journal
from signpost.log.sqlite.store import SQLiteStore
from signpost.log.sqlite.subjects import State
from signpost.log.sqlite.writer import UNFLUSHED_RECORDS

PLACES = 235_000


@pytest.mark.long
async def test_235_000_places_are_replayed(tmp_path: Path) -> None:
    """How long it takes is a row of the benchmarks."""
    url, log = f"sqlite:///{tmp_path / 'a.db'}", LogSettings("features", Retention(max_age_s=86_400, keep_last=True))
    async with open_store(url, [log]) as store:
        for start in range(0, PLACES, 1000):
            entries = [Append(f"places.{i}", b"x" * 100, f"id-{i}") for i in range(start, start + 1000)]
            await store["features"].append_many(entries)
    async with open_store(url, [log]) as store, aclosing(store["features"].follow(0)) as pages:
        replayed = 0
        async for page in pages:
            replayed += len(page.records)
            if page.through == store["features"].head:
                break
    assert replayed == PLACES


async def test_appends_go_on_while_much_is_compacted(tmp_path: Path) -> None:
    """Retention works in slices: no append waits for all of it."""
    url, now_ns = f"sqlite:///{tmp_path / 'a.db'}", time.time_ns()

    def clock() -> int:
        return now_ns

    settings = LogSettings("features", Retention(max_age_s=60, keep_last=True))
    async with open_store(url, [settings], clock=clock) as store:
        log = store["features"]
        for start in range(0, 60_000, 2000):
            await log.append_many([Append(f"s.{i % 1000}", b"x" * 50) for i in range(start, start + 2000)])
        now_ns += 61_000_000_000
        appended = 0
        async with asyncio.timeout(30):
            while (await log.statistics()).records > 1000 + appended:
                await log.append(Append("t", b"x"))
                appended += 1
        assert appended > 5
        assert len(await log.last_of_each("s.*", limit=2000)) == 1000
        assert (await log.bounds()).horizon >= 59_000


async def test_a_record_is_read_at_any_distance_from_the_head(tmp_path: Path) -> None:
    """A rare subject among many: read along its chain, over several pages, from any place."""
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}", [LogSettings("notes", tail_bytes=1)]) as store:
        log = store["notes"]
        rare = []
        for start in range(0, 60_000, 3000):
            entries = [Append(f"s.{i % 7}", b"x") for i in range(start, start + 3000)]
            entries[17] = Append("rare.one", b"%d" % start)
            await log.append_many(entries)
            rare.append(start + 18)
        for pattern in ("rare.one", "rare.*", "rare.>", "*.one"):
            for after in (0, 100, 30_000, 59_999):
                found: list[int] = []
                through = after
                while through < log.head:
                    page = await log.read(through, subjects=pattern, limit=3)
                    found += [record.sequence for record in page.records]
                    through = page.through
                assert found == [sequence for sequence in rare if sequence > after], (pattern, after)


async def test_a_log_at_its_bound_comes_to_rest(tmp_path: Path) -> None:
    """Retention may have written every subject that changed: the writer has nothing left to do, and knows it."""
    bounded = LogSettings("notes", Retention(max_records=100))
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}", [bounded]) as store:
        assert isinstance(store, SQLiteStore)
        await store["notes"].append_many([Append(f"s.{i % 3}", b"x") for i in range(UNFLUSHED_RECORDS + 1000)])
        async with asyncio.timeout(10):
            await store.maintain()  # returns once nothing is due
        assert (await store["notes"].statistics()).records == 100


@pytest.mark.parametrize("steps", range(5))
def test_retention_that_is_killed_at_any_step_leaves_nothing_behind(tmp_path: Path, steps: int) -> None:
    """A tombstone dies after what it superseded, and what was superseded goes although who noted it is gone."""
    settings = LogSettings("notes", Retention(max_age_s=10, keep_last=True))
    schema.prepare(tmp_path / "a.db")
    with contextlib.closing(schema.connect(tmp_path / "a.db")) as connection:
        with schema.transaction(connection):
            schema.new_log(connection, "notes")

        def started() -> tuple[Journal, Compaction]:
            journal = Journal(connection, settings, 0)
            return journal, Compaction(connection, journal)

        def store(journal: Journal, entries: list[Append], now_ns: int) -> None:
            with schema.transaction(connection):
                stored = journal.store(entries, now_ns)
            journal.commit(stored)

        def rest(compaction: Compaction) -> None:
            compaction.hurry()
            while compaction.step(30 * 10**9):
                compaction.hurry()

        journal, compaction = started()
        store(journal, [Append("deleted", b"1"), Append("kept", b"1")], 10**9)
        rest(compaction)
        store(journal, [Append("deleted", b"", tombstone=True), Append("kept", b"2")], 11 * 10**9)
        store(journal, [Append(f"others.{i}", b"") for i in range(3000)], 12 * 10**9)
        journal, compaction = started()
        for _ in range(steps):
            compaction.hurry()
            compaction.step(30 * 10**9)
        journal, compaction = started()
        rest(compaction)
        left = [record for *_, batch in rows_after(connection, 1, 0) for record in records_of(decoded(batch))]
        assert [record.sequence for record in left] == list(range(4, 3005))
        assert (journal.counters.records, journal.counters.bytes, journal.counters.subjects) == (3001, 1, 3001)


def test_what_retention_could_not_remove_goes_later(tmp_path: Path) -> None:
    """As on a full disk, where room comes from what goes."""
    schema.prepare(tmp_path / "a.db")
    with contextlib.closing(schema.connect(tmp_path / "a.db")) as connection:
        with schema.transaction(connection):
            schema.new_log(connection, "notes")
        journal = Journal(connection, LogSettings("notes", Retention(max_age_s=10)), 0)
        compaction = Compaction(connection, journal)
        for at_s in (1, 12):
            with schema.transaction(connection):
                stored = journal.store([Append("a", b"x")], at_s * 10**9)
            journal.commit(stored)
        connection.execute("PRAGMA query_only=ON")
        with pytest.raises(sqlite3.OperationalError):
            compaction.step(15 * 10**9)
        connection.execute("PRAGMA query_only=OFF")
        compaction.step(15 * 10**9)
        assert journal.counters.records == 1


class Steps:
    """Counts the steps of retention; too many are a spin."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = 0
        step = Compaction.step

        def counting(compaction: Compaction, now_ns: int) -> bool:
            self.left -= 1
            assert self.left > 0, "retention does not come to rest"
            return step(compaction, now_ns)

        monkeypatch.setattr(Compaction, "step", counting)


async def test_a_start_at_the_bound_takes_no_step_for_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One record too many, after many that stay as the last of their subjects."""
    steps = Steps(monkeypatch)
    monkeypatch.setattr(compaction, "SLICE", 100)
    url, log = f"sqlite:///{tmp_path / 'a.db'}", LogSettings("features", Retention(max_records=2000, keep_last=True))
    for records in (2000, 1):
        async with open_store(url, [log]) as store:
            assert isinstance(store, SQLiteStore)
            steps.left = 200
            await store["features"].append_many([Append(f"s.{records}.{i}", b"x") for i in range(records)])
            await store.maintain()


@pytest.mark.parametrize("seed", range(24))
async def test_retention_comes_to_rest_and_counts_what_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Whatever bounds there are, and whatever was appended and deleted before a start and after it."""
    dice, steps, now_ns = random.Random(seed), Steps(monkeypatch), 10**18
    for module, name, value in [
        (batches, "BATCH_RECORDS", dice.choice([3, 250])),
        (compaction, "SLICE", dice.choice([1, 4, 2000])),
        (compaction, "SWEEP_BATCHES", dice.choice([1, 50])),
        (subjects, "SLICE", 2),
    ]:
        monkeypatch.setattr(module, name, value)
    bound = Retention(
        dice.choice([None, 50.0]), dice.choice([None, 300]), dice.choice([None, 1, 15]), dice.random() < 0.7
    )
    path, last = tmp_path / "a.db", dict[str, tuple[int, bool]]()

    def clock() -> int:
        return now_ns

    for _ in range(6):
        async with open_store(f"sqlite:///{path}", [LogSettings("notes", bound)], clock=clock) as store:
            assert isinstance(store, SQLiteStore)
            for _ in range(dice.randrange(5)):
                entries = [
                    Append(f"s.{dice.randrange(20)}", b"x" * dice.randrange(40), tombstone=dice.random() < 0.3)
                    for _ in range(dice.randrange(1, 12))
                ]
                steps.left = 2000
                for entry, answer in zip(entries, await store["notes"].append_many(entries), strict=True):
                    assert isinstance(answer, tuple)
                    last[entry.subject] = answer.sequence, entry.tombstone
                now_ns += dice.choice([0, 10**9, 30 * 10**9])
                if dice.random() < 0.7:
                    await store.maintain()
            steps.left = 2000
            await store.maintain()
            there, oldest_ns = stored(path), now_ns - int((bound.max_age_s or 0) * 1e9)
            kept = {record.subject: record.sequence for record in there}
            assert await store["notes"].statistics() == (
                len(there),
                sum(len(record.payload) for record in there),
                len(kept),
                there[0].sequence if there else store["notes"].head + 1,
                store["notes"].head,
            )
            over = len(there) > (bound.max_records or 10**9)
            over |= sum(len(record.payload) for record in there) > (bound.max_bytes or 10**9)
            beyond = [r for r in there if over or (bound.max_age_s is not None and r.time_ns <= oldest_ns)]
            if bound.keep_last:
                assert [r for r in beyond if r.tombstone or last[r.subject][0] != r.sequence] == []
                live = {subject: sequence for subject, (sequence, is_gone) in last.items() if not is_gone}
                assert live.items() <= kept.items()
            else:
                assert beyond == []
            infos = await store["notes"].subjects()
            assert [info.subject for info in infos] == sorted(kept)
            for info in infos:
                standing = [record.sequence for record in there if record.subject == info.subject]
                assert info[1:] == (standing[0], standing[-1], len(standing))


def stored(path: Path) -> list[Record]:
    """What is in the file, whatever its counters say."""
    with contextlib.closing(schema.connect(path, read_only=True)) as connection:
        return [record for _, _, encoded in rows_after(connection, 1, 0) for record in records_of(decoded(encoded))]


async def test_message_ids_leave_the_file_as_fast_as_they_come(tmp_path: Path) -> None:
    """However many commits a second there are, the file holds one window of them."""
    settings = LogSettings("notes", dedupe_window_s=1.0)
    now_ns = time.time_ns()
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}", [settings], clock=lambda: now_ns) as store:
        assert isinstance(store, SQLiteStore)
        for i in range(1000):
            await store["notes"].append(Append("a", b"", f"{i}"))
        now_ns += 2 * 10**9
        await store.maintain()
        with contextlib.closing(sqlite3.connect(tmp_path / "a.db")) as connection:
            assert connection.execute("SELECT count(*) FROM dedupe_1").fetchone() == (0,)


async def test_a_dedupe_window_that_is_longer_after_a_restart(tmp_path: Path) -> None:
    """What was stored again, after the shorter window, is remembered for the whole of the longer one."""
    now_ns = time.time_ns()
    again = Append("a", b"", "id")

    def clock() -> int:
        return now_ns

    for window_s, want in ((1.0, [(1, False), (2, False)]), (60.0, [(2, True)])):
        settings = LogSettings("notes", dedupe_window_s=window_s)
        async with open_store(f"sqlite:///{tmp_path / 'a.db'}", [settings], clock=clock) as store:
            for answer in want:
                now_ns += 2 * 10**9
                assert await store["notes"].append(again) == answer
            if window_s > 1:
                now_ns += 57 * 10**9  # the first is over, the second is not
                assert await store["notes"].append(again) == (2, True)
                now_ns += 2 * 10**9
                assert await store["notes"].append(again) == (3, False)


async def test_a_disk_that_has_gone_is_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def store_nothing(self: Journal, entries: list[Append], now_ns: int) -> None:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR_WRITE
        raise error

    async with asyncio.timeout(10), open_store(f"sqlite:///{tmp_path / 'a.db'}", [LogSettings("notes")]) as store:
        with monkeypatch.context() as gone:
            gone.setattr(Journal, "store", store_nothing)
            (tmp_path / "a.db").rename(tmp_path / "elsewhere.db")
            for _ in range(2):
                with pytest.raises(LogUnavailable):
                    await store["notes"].append(Append("a", b""))
            (tmp_path / "elsewhere.db").rename(tmp_path / "a.db")
        assert (await store["notes"].append(Append("a", b""))).sequence == 1


@pytest.mark.parametrize("replaced", [False, True])
async def test_nothing_is_acknowledged_into_a_file_that_is_not_there_any_more(tmp_path: Path, replaced: bool) -> None:
    path, aside = tmp_path / "a.db", tmp_path / "elsewhere.db"
    async with asyncio.timeout(10), await SQLiteStore.open(path, [LogSettings("notes")]) as store:
        await store["notes"].append(Append("a", b"1"))
        path.rename(aside)
        if replaced:  # as by an operator who moves a backup into its place
            shutil.copy(aside, path)
        for _ in range(2):
            with pytest.raises(LogUnavailable, match="moved or deleted"):
                await store["notes"].append(Append("a", b"lost"))
        while_gone = store.state
        aside.rename(path)
        await store.maintain()
        assert (while_gone, store.state) == (LogState.RECONNECTING, LogState.WRITABLE)
        assert (await store["notes"].append(Append("a", b"2"))).sequence == 2


@pytest.mark.parametrize("method", ["subjects", "last_of_each"])
@pytest.mark.parametrize("keep_last", [False, True])
async def test_a_page_of_subjects_is_whole_though_retention_comes_between(
    tmp_path: Path, method: str, *, keep_last: bool
) -> None:
    """What waits for the subjects table is asked for before the page is read; a short one would pass for the last."""
    settings = LogSettings("notes", Retention(max_records=50, keep_last=keep_last))
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}", [settings]) as store:
        assert isinstance(store, SQLiteStore)
        log = store["notes"]
        want = [f"s.{i}" for i in (range(10, 30) if keep_last else (*range(10, 20), *range(50, 60)))]
        unflushed = log._unflushed

        async def overtaken() -> dict[str, State]:
            states = await unflushed()
            await log.append_many([Append(f"s.{i}", b"2") for i in (*range(10, 20), *range(50, 80))])
            await store.maintain()
            return states

        log._unflushed = overtaken  # type: ignore[method-assign]
        await log.append_many([Append(f"s.{i}", b"1") for i in range(10, 60)])
        if method == "subjects":
            assert [info.subject for info in await log.subjects(limit=20)] == want
        else:
            assert [record.subject for record in await log.last_of_each(limit=20)] == want


async def test_the_write_ahead_log_is_bounded_though_there_is_always_a_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "WAL_BYTES", 6 * 1024 * 1024)
    monkeypatch.setattr(writer, "HOUSEKEEPING_S", 0.1)
    path, stop, sizes = tmp_path / "a.db", asyncio.Event(), [0]

    async def read(pause_s: float) -> None:
        """Each begins before the other ends."""
        await asyncio.sleep(pause_s)
        with contextlib.closing(schema.connect(path, read_only=True)) as connection:
            while not stop.is_set():
                connection.execute("BEGIN")
                connection.execute("SELECT last FROM logs").fetchall()
                await asyncio.sleep(0.02)
                connection.execute("ROLLBACK")

    async with open_store(f"sqlite:///{path}", [LogSettings("notes")]) as store:
        reading = [asyncio.create_task(read(pause_s)) for pause_s in (0.0, 0.01)]
        for _ in range(200):
            await store["notes"].append_many([Append("a", b"x" * 1000) for _ in range(250)])
            sizes.append((await asyncio.to_thread((tmp_path / "a.db-wal").stat)).st_size)
        stop.set()
        await asyncio.gather(*reading)
    assert any(later < earlier for earlier, later in pairwise(sizes))


async def test_what_cannot_be_stored_stops_nothing_beside_it(tmp_path: Path) -> None:
    """Such as text that has no UTF-8, in the commit of many."""
    async with open_store(f"sqlite:///{tmp_path / 'a.db'}", [LogSettings("notes")]) as store:
        log = store["notes"]
        ids = ["first", "\ud800", "second", "third"]
        answers = [(await future)[0] for future in [log.submit([Append("a", b"", text)]) for text in ids]]
        assert [answers[0], *answers[2:]] == [(1, False), (2, False), (3, False)]
        assert isinstance(answers[1], Internal)
        assert [record.message_id for record in (await log.read(0)).records] == ["first", "second", "third"]
