"""The SQLite engine behind the interface."""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from signpost.errors import EpochChanged, LogRefused, LogUnavailable, ResourceExhausted, SignpostError
from signpost.log import positions
from signpost.log.base import (
    Append,
    Appended,
    Bounds,
    Log,
    LogSettings,
    LogState,
    Page,
    Record,
    Statistics,
    Store,
    SubjectInfo,
)
from signpost.log.sqlite import schema
from signpost.log.sqlite.journal import EpochMoved
from signpost.log.sqlite.reading import Listing, Query, Reading
from signpost.log.sqlite.subjects import State
from signpost.log.sqlite.writer import Committed, Question, Submission, Writer
from signpost.log.tail import Tail, follow

READERS = 4  # threads: SQLite reads in parallel, Python mostly does not
WAITING_BYTES = 64 * 1024 * 1024  # of appends that wait for the disk
ENTRY_BYTES = 1024  # what one costs beside its payload

_new = tuple.__new__  # twice as fast as a NamedTuple's own constructor, once for each append

T = TypeVar("T")


class SQLiteLog(Log):
    """One log of the file."""

    exclusive: ClassVar[bool] = True

    def __init__(self, store: "SQLiteStore", settings: LogSettings, index: int) -> None:
        counters = store.writer.journals[index].counters
        self.settings = settings
        self.tail = Tail(settings.tail_bytes, counters.last)
        self._store = store
        self._index = index
        self._epoch = counters.epoch
        self._reading = Reading(counters.id)

    @property
    def epoch(self) -> bytes:
        return self._epoch

    @property
    def head(self) -> int:
        return self.tail.head

    @property
    def state(self) -> LogState:
        return self._store.state

    def submit(self, entries: Sequence[Append]) -> "asyncio.Future[list[Appended | SignpostError]]":
        return self._store.submit(self._index, entries)

    async def append(self, entry: Append) -> Appended:
        store = self._store
        if store.is_busy:
            await store.room()
        (answer,) = await store.submit(self._index, (entry,))
        if isinstance(answer, SignpostError):
            raise answer
        return answer

    async def append_many(self, entries: Sequence[Append]) -> list[Appended | SignpostError]:
        if self._store.is_busy:
            await self._store.room()
        return await self._store.submit(self._index, entries)

    async def read(
        self,
        after: int,
        *,
        subjects: str | None = None,
        limit: int = 1000,
        max_bytes: int = 1 << 20,
        allow_gaps: bool = False,
    ) -> Page:
        return await self._read(self._reading.page, Query(after, subjects, limit, max_bytes, allow_gaps))

    def follow(
        self, after: int, *, subjects: str | None = None, allow_gaps: bool = False
    ) -> AsyncGenerator[Page, None]:
        return follow(self, self.tail, after, subjects=subjects, allow_gaps=allow_gaps)

    async def last(self, subject: str) -> Record | None:
        state = self._store.writer.journals[self._index].subjects.known.get(subject)
        return await self._read(self._reading.last, subject, state.last if state else None)

    async def last_of_each(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[Record]:
        listing = Listing(subjects, after_subject, limit, await self._unflushed())
        return await self._read(self._reading.last_of_each, listing)

    async def subjects(
        self, subjects: str | None = None, *, after_subject: str = "", limit: int = 1000
    ) -> list[SubjectInfo]:
        listing = Listing(subjects, after_subject, limit, await self._unflushed())
        return await self._read(self._reading.subjects, listing)

    async def bounds(self) -> Bounds:
        return await self._read(self._reading.bounds)

    async def before_time(self, time_ns: int) -> int:
        return await self._read(self._reading.before_time, time_ns)

    async def position(self, sequence: int) -> bytes:
        return positions.encode(self._epoch, sequence, positions.check_of(await self._record_at(sequence)))

    def position_of(self, record: Record) -> bytes:
        return positions.encode_record(self._epoch, record)

    async def resolve(self, position: bytes) -> int:
        return await positions.resolve(
            position, epoch=self._epoch, bounds=await self.bounds(), record_at=self._record_at
        )

    async def statistics(self) -> Statistics:
        return await self._read(self._reading.statistics)

    async def wait_for(self, sequence: int) -> None:
        await self.tail.wait(sequence - 1, self.tail.generation)

    def replaced(self, epoch: bytes, last: int, horizon: int) -> None:
        """Go on with what another process has restored."""
        self._epoch = epoch
        self.tail.reset(last, EpochChanged("the log was restored", first_available=horizon + 1))

    async def _record_at(self, sequence: int) -> Record | None:
        return await self._store.read(lambda connection: self._reading.record(connection, sequence))

    async def _read(self, statement: Callable[..., T], *arguments: Any) -> T:
        epoch = self._epoch
        try:
            return await self._store.read(lambda connection: statement(connection, epoch, *arguments))
        except EpochMoved:
            await self._store.maintain()
            raise EpochChanged("the log was restored", first_available=(await self.bounds()).horizon + 1) from None

    async def _unflushed(self) -> dict[str, State]:
        return await self._store.ask(lambda: self._store.writer.unflushed(self._index))


class SQLiteStore(Store):
    """The logs of one process in one file."""

    def __init__(self, path: Path, logs: Sequence[LogSettings], clock: Callable[[], int]) -> None:
        self._path = path
        self._settings = logs
        self._waiting_bytes = 0
        self._room = asyncio.Event()
        self._idle: deque[sqlite3.Connection] = deque()
        self._readers = ThreadPoolExecutor(READERS, thread_name_prefix=f"log-reader {path.name}")
        self._logs: list[SQLiteLog] = []
        self._by_name: dict[str, SQLiteLog] = {}
        self._closing: asyncio.Task[None] | None = None
        self._loop = asyncio.get_running_loop()
        self.writer = Writer(path, logs, clock, self._committed, self._replaced)

    @classmethod
    async def open(
        cls, path: str | Path, logs: Sequence[LogSettings], *, clock: Callable[[], int] = time.time_ns
    ) -> "SQLiteStore":
        """Open the file, made where it is missing; LogRefused where it must not be opened."""
        store = cls(Path(path), logs, clock)
        opening = asyncio.create_task(asyncio.to_thread(store._open))
        try:
            await asyncio.shield(opening)
        except asyncio.CancelledError:
            # Its thread goes on: what that has opened is closed, or the file would stay ours.
            await asyncio.wait((opening,))
            if opening.exception() is None:
                await store.close()
            raise
        store._logs = [SQLiteLog(store, settings, index) for index, settings in enumerate(logs)]
        store._by_name = {log.name: log for log in store._logs}
        return store

    def __getitem__(self, name: str) -> SQLiteLog:
        return self._by_name[name]

    @property
    def state(self) -> LogState:
        return LogState.CLOSED if self._closing else self.writer.state

    @property
    def is_busy(self) -> bool:
        """Whether the queue is full."""
        return self._waiting_bytes >= WAITING_BYTES

    async def room(self) -> None:
        """Return once the queue has room."""
        while self.is_busy:
            self._room.clear()
            await self._room.wait()

    def submit(self, log: int, entries: Sequence[Append]) -> "asyncio.Future[list[Appended | SignpostError]]":
        """`Log.submit`."""
        if self.is_busy:
            raise ResourceExhausted("too many appends wait for the disk", reason="LOG_BUSY", retry_after_s=0.1)
        future: asyncio.Future[list[Appended | SignpostError]] = self._loop.create_future()
        if self._closing:
            future.set_result([LogUnavailable("the log is closed")] * len(entries))
            return future
        size = ENTRY_BYTES * len(entries)
        for entry in entries:
            size += len(entry[1])
        self._waiting_bytes += size
        self.writer.put(_new(Submission, (log, entries, size, future)))
        return future

    async def read(self, statement: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function on a reader's thread with a connection of its own."""
        if self._closing:
            raise LogUnavailable("the log is closed")
        try:
            return await self._loop.run_in_executor(self._readers, self._with_connection, statement)
        except sqlite3.Error as error:
            raise LogUnavailable(f"cannot read {self._path}: {error}", retry_after_s=1.0) from error

    async def ask(self, question: Callable[[], T]) -> T:
        """What a function answers on the writer's thread, after what was submitted before."""
        if self._closing:
            raise LogUnavailable("the log is closed")
        future: asyncio.Future[T] = self._loop.create_future()
        self.writer.put(Question(question, future))
        return await future

    async def maintain(self) -> None:
        """Do all maintenance that is due now, instead of within the second."""
        await self.ask(self.writer.maintain)

    async def close(self) -> None:
        if self._closing is None:
            self._closing = asyncio.create_task(self._close())
        await asyncio.shield(self._closing)

    def _open(self) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LogRefused(f"{self._path.parent}: {error.strerror}") from error
        self._lock = schema.FileLock(self._path)
        try:
            schema.prepare(self._path, owned=True)
            self.writer.open()
        except sqlite3.Error as error:
            self._lock.release()
            raise LogRefused(f"{self._path} cannot be opened: {error}") from error
        except BaseException:
            self._lock.release()
            raise

    async def _close(self) -> None:
        await asyncio.to_thread(self.writer.close)
        await asyncio.to_thread(self._readers.shutdown)
        for log in self._logs:
            log.tail.close()
        while self._idle:
            self._idle.pop().close()
        self._lock.release()

    def _with_connection(self, statement: Callable[[sqlite3.Connection], T]) -> T:
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = schema.connect(self._path)
            connection.execute("PRAGMA query_only=ON")
        try:
            return statement(connection)
        finally:
            self._idle.append(connection)

    def _committed(self, committed: Committed) -> None:
        for index, records, head in committed.news:
            self._logs[index].tail.extend(records, head)
        for submissions, answers in committed.answers:
            start = 0
            for _, entries, _, future in submissions:
                end = start + len(entries)
                if not future.done():
                    future.set_result(answers[start:end])
                start = end
        self._waiting_bytes -= committed.size
        self._room.set()

    def _replaced(self, index: int, epoch: bytes, last: int, horizon: int) -> None:
        self._logs[index].replaced(epoch, last, horizon)
