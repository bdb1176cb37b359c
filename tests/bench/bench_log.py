"""The log, on both engines: appends by what is in flight, reads, replay, the tail's latency.

Floors: plain `sqlite3` in a loop, one thread, the same pragmas and rows, an INSERT each, as many rows a commit as the
engine has in flight; it stores message ids and recognises none. "Over executemany" is the same with one call for the
rows of a commit, which have to be there together. "Over ids that are unique" is that with an index that recognises
them, per subject. Of appends to a log at its bound: the same to one without. Plain nats-py with as many
publishes in flight. Payloads have 64 bytes; 100 subjects; message ids as the services give them, unless a row
says otherwise.
"""

import asyncio
import contextlib
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path

import nats
from signpost.log import Append, Log, LogSettings, Retention, open_store

from tests.bench.harness import Row, Stopwatch, compare
from tests.bench.plain_nats import callbacks, has_nats
from tests.support.nats import NatsServer

PAYLOAD = b"x" * 64
IN_FLIGHT = {1: 1_500, 10: 10_000, 100: 40_000, 1_000: 60_000}
READ = 200_000
_fresh = count()


def entries(total: int, *, with_ids: bool = True) -> list[Append]:
    """Appends that no log has seen."""
    start = next(_fresh) * 10_000_000
    return [Append(f"topic.{i % 100}", PAYLOAD, f"id-{start + i}" if with_ids else "") for i in range(total)]


async def one_each(log: Log, total: int, in_flight: int, with_ids: bool) -> float:
    """So many tasks, each awaiting its own appends one after the other."""
    work = iter(entries(total, with_ids=with_ids))

    async def worker() -> None:
        for entry in work:
            await log.append(entry)

    watch = Stopwatch()
    await asyncio.gather(*[worker() for _ in range(in_flight)])
    return watch.rate(total)


async def together(log: Log, total: int, in_flight: int, with_ids: bool) -> float:
    """As frames of publishes come in: ten submissions in flight, a tenth of the entries in each."""
    work = entries(total, with_ids=with_ids)
    size = in_flight // 10
    frames = iter([work[at : at + size] for at in range(0, total, size)])

    async def worker() -> None:
        for frame in frames:
            await log.append_many(frame)

    watch = Stopwatch()
    await asyncio.gather(*[worker() for _ in range(10)])
    return watch.rate(total)


async def replay(log: Log) -> float:
    """Everything, page by page, as `follow` hands it on."""
    watch, records = Stopwatch(), 0
    async with contextlib.aclosing(log.follow(0)) as pages:
        async for page in pages:
            records += len(page.records)
            if page.through >= log.head:
                break
    return watch.rate(records)


async def tail_latency_us(log: Log, rounds: int = 300) -> float:
    """From the call of append to the page in a follower's hand; the median."""
    arrived: asyncio.Queue[float] = asyncio.Queue()

    async def follow() -> None:
        async for page in log.follow(log.head):
            if page.records:
                arrived.put_nowait(time.perf_counter())

    follower = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    took: list[float] = []
    for entry in entries(rounds):
        start = time.perf_counter()
        pending = log.submit((entry,))
        took.append(await arrived.get() - start)
        await pending
    follower.cancel()
    return statistics.median(took) * 1e6


class PlainSQLite:
    """The floor: what the sqlite3 module does in the fewest lines."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def append(
        self, total: int, group: int, path: Path | None = None, *, many: bool = False, unique: bool = False
    ) -> float:
        """Rows a second, so many a commit, into a file of their own.

        `many`: by executemany instead of in a loop; `unique`: an id comes in once a subject.
        """
        connection = self._open(path or self._directory / f"floor-{next(_fresh)}.db")
        insert = "INSERT INTO records (subject, message_id, time_ns, payload) VALUES (?, ?, ?, ?)"
        if unique:
            connection.execute("CREATE UNIQUE INDEX by_message_id ON records (subject, message_id)")
            insert += " ON CONFLICT DO NOTHING"
        now = time.time_ns()
        rows = [(entry.subject, entry.message_id, now, entry.payload) for entry in entries(total)]
        watch = Stopwatch()
        for at in range(0, total, group):
            connection.execute("BEGIN IMMEDIATE")
            if many:
                connection.executemany(insert, rows[at : at + group])
            else:
                for row in rows[at : at + group]:
                    connection.execute(insert, row)
            connection.execute("COMMIT")
        rate = watch.rate(total)
        connection.close()
        return rate

    def read(self, total: int) -> float:
        """Rows a second that a plain cursor fetches, one row a record."""
        path = self._directory / "floor-read.db"
        if not path.exists():
            self.append(total, 1_000, path, many=True)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            watch = Stopwatch()
            rows = connection.execute("SELECT sequence, subject, message_id, time_ns, payload FROM records").fetchall()
            return watch.rate(len(rows))

    def _open(self, path: Path) -> sqlite3.Connection:
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(
            "CREATE TABLE records (sequence INTEGER PRIMARY KEY, subject TEXT NOT NULL, message_id TEXT NOT NULL,"
            " time_ns INTEGER NOT NULL, payload BLOB NOT NULL)"
        )
        return connection


class PlainNats:
    """The floor: nats-py's own publish, so many tasks."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def append(self, total: int, in_flight: int) -> float:
        """Acknowledged publishes a second."""
        client = await nats.connect(self._url)
        context = client.jetstream()
        stream = f"floor{next(_fresh)}"
        await context.add_stream(name=stream, subjects=[f"{stream}.>"], duplicate_window=3600)
        work = iter(entries(total))

        async def worker() -> None:
            for entry in work:
                await context.publish(
                    f"{stream}.{entry.subject}", entry.payload, headers={"Nats-Msg-Id": entry.message_id}
                )

        watch = Stopwatch()
        await asyncio.gather(*[worker() for _ in range(in_flight)])
        rate = watch.rate(total)
        await context.delete_stream(stream)
        await client.close()
        return rate

    async def read(self, total: int) -> float:
        """Records a second that a plain push subscription's callback is handed."""
        client = await nats.connect(self._url)
        context = client.jetstream()
        stream = f"floor{next(_fresh)}"
        await context.add_stream(name=stream, subjects=[f"{stream}.>"])
        for at in range(0, total, 500):
            frame = entries(min(500, total - at))
            await asyncio.gather(*[context.publish(f"{stream}.{e.subject}", e.payload) for e in frame])
        rate = await callbacks(self._url, f"{stream}.>", total)
        await context.delete_stream(stream)
        await client.close()
        return rate


async def _filled(log: Log, total: int) -> None:
    work = entries(total)
    for at in range(0, total, 1000):
        await log.append_many(work[at : at + 1000])


async def _appends(
    engine: str, log: Log, repeats: int, sizes: Sequence[int], floor: Callable[[int, int], Awaitable[float]]
) -> AsyncIterator[Row]:
    for in_flight in sizes:
        total = IN_FLIGHT[in_flight] if engine == "sqlite" else min(IN_FLIGHT[in_flight], 10_000)
        name = f"{engine}: appends, {in_flight:,} in flight"
        ways = {
            "one a call": partial(one_each, log, total, in_flight, True),
            "one a call, no message ids": partial(one_each, log, total, in_flight, False),
        }
        if in_flight >= 100:
            ways["ten calls"] = partial(together, log, total, in_flight, True)
            ways["ten calls, no message ids"] = partial(together, log, total, in_flight, False)
        for label, measure in ways.items():
            row = await compare(f"{name}, {label}", "records/s", measure, partial(floor, total, in_flight), repeats)
            yield row
            if in_flight == 1 and label == "one a call" and row.floor:
                yield Row(f"{engine}: lone append latency", 1e6 / row.value, "us", 1e6 / row.floor)


async def sqlite_rows(repeats: int, directory: Path) -> AsyncIterator[Row]:
    """The embedded engine."""
    path, plain = directory / "log.db", PlainSQLite(directory)
    bounded = LogSettings("bounded", Retention(max_records=20_000))
    logs = [LogSettings("appends"), LogSettings("reads", tail_bytes=1), bounded]
    async with open_store(f"sqlite:///{path}", logs) as store:

        async def floor_append(total: int, group: int) -> float:
            return await asyncio.to_thread(plain.append, total, group)

        async def floor_read() -> float:
            return await asyncio.to_thread(plain.read, READ)

        async for row in _appends("sqlite", store["appends"], repeats, list(IN_FLIGHT), floor_append):
            yield row
        for label, measure in (("one a call", one_each), ("ten calls", together)):
            for over, with_ids, unique in (
                ("executemany", True, False),
                ("executemany, no message ids", False, False),
                ("ids that are unique", True, True),
            ):
                yield await compare(
                    f"sqlite: appends, 100 in flight, {label}, over {over}",
                    "records/s",
                    partial(measure, store["appends"], IN_FLIGHT[100], 100, with_ids),
                    partial(asyncio.to_thread, plain.append, IN_FLIGHT[100], 100, many=True, unique=unique),
                    repeats,
                )
        await _filled(store["bounded"], 20_000)
        yield await compare(
            "sqlite: appends, 100 in flight, ten calls, to a log at its bound",
            "records/s",
            lambda: together(store["bounded"], IN_FLIGHT[100], 100, True),
            lambda: together(store["appends"], IN_FLIGHT[100], 100, True),
            repeats,
        )
        await _filled(store["reads"], READ)
        yield await compare("sqlite: replay", "records/s", lambda: replay(store["reads"]), floor_read, repeats)
        yield await compare(
            "sqlite: append to follower, p50", "us", lambda: tail_latency_us(store["appends"]), None, repeats
        )


async def jetstream_rows(repeats: int, directory: Path) -> AsyncIterator[Row]:
    """NATS JetStream, one server, one replica."""
    server = NatsServer(directory / "nats")
    server.start()
    plain = PlainNats(server.url)
    try:
        async with open_store(server.url, [LogSettings("appends"), LogSettings("reads", tail_bytes=1)]) as store:
            async for row in _appends("jetstream", store["appends"], repeats, list(IN_FLIGHT), plain.append):
                yield row
            await _filled(store["reads"], READ // 4)
            yield await compare(
                "jetstream: replay",
                "records/s",
                lambda: replay(store["reads"]),
                lambda: plain.read(READ // 4),
                repeats,
            )
            yield await compare(
                "jetstream: append to follower, p50", "us", lambda: tail_latency_us(store["appends"]), None, repeats
            )
    finally:
        server.kill()


async def rows(repeats: int) -> AsyncIterator[Row]:
    """Every row of this group."""
    with tempfile.TemporaryDirectory() as directory:
        async for row in sqlite_rows(repeats, Path(directory)):
            yield row
        if not has_nats():
            return
        async for row in jetstream_rows(repeats, Path(directory)):
            yield row
