"""The one writer of a file: a thread that groups what waits into commits.

It waits for no timer: a lone append commits at once, a hundred that wait commit together. Between
commits it does a slice of maintenance where there is any: retention, the subjects table, old message
ids. It notices a restore by another process by the epoch in the log's row.
"""

import asyncio
import logging
import os
import sqlite3
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from itertools import chain
from operator import itemgetter
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, TypeAlias

from signpost.errors import Internal, LogUnavailable, SignpostError, StorageFull
from signpost.log.base import Append, Appended, LogSettings, LogState, Record
from signpost.log.sqlite import schema
from signpost.log.sqlite.compaction import Compaction
from signpost.log.sqlite.journal import EpochMoved, Journal, Stored
from signpost.log.sqlite.subjects import State

GROUP_ENTRIES = 4_000  # more in one commit gains nothing and delays the first of them
GROUP_BYTES = 16 * 1024 * 1024
MAINTENANCE_S = 0.25  # between looks at retention when there was nothing to do
HOUSEKEEPING_S = 1.0  # between looks at the epoch, the disk, and what is to be written when idle
DIRTY_SUBJECTS = 10_000
UNFLUSHED_RECORDS = 20_000  # a start reads as many again, and so does the read of a rare subject
ROOM_BYTES = 1024 * 1024  # free space at which a full disk counts as usable again
WAL_BYTES = 64 * 1024 * 1024  # of SQLite's write-ahead log, from which on readers are waited for to empty it
WAL_WAIT_S = 0.1  # a page is read sooner; a backup is not, and appends wait no longer for it

_logger = logging.getLogger(__name__)


Answer: TypeAlias = "asyncio.Future[list[Appended | SignpostError]]"
_LOG, _ENTRIES, _SIZE = map(itemgetter, range(3))  # of a Submission


class Submission(NamedTuple):
    """Entries of one call, for the log with this index; `size` in bytes of memory."""

    log: int
    entries: Sequence[Append]
    size: int
    future: Answer


class Question(NamedTuple):
    """A function to run on the writer's thread between commits."""

    ask: Callable[[], Any]
    future: "asyncio.Future[Any]"


class Committed(NamedTuple):
    """What a commit brought: each log's records and head, and submissions with the answers to their entries."""

    news: list[tuple[int, list[Record], int]]
    answers: list[tuple[list[Submission], list[Appended | SignpostError]]]
    size: int


class Writer:
    """Owns the writing connection. `on_commit` and `on_replaced` are called on the event loop."""

    def __init__(
        self,
        path: Path,
        logs: Sequence[LogSettings],
        clock: Callable[[], int],
        on_commit: Callable[[Committed], None],
        on_replaced: Callable[[int, bytes, int, int], None],
    ) -> None:
        self._path, self._logs, self._clock = path, logs, clock
        self._on_commit, self._on_replaced = on_commit, on_replaced
        self._loop = asyncio.get_running_loop()
        self._waiting: list[Submission | Question | None] = []
        self._signal: SimpleQueue[None] = SimpleQueue()
        self._signalled = False
        self._flushes: dict[int, Iterator[None]] = {}
        self._housekeeping_at = 0.0
        self._moved = False  # another process has restored the file, and it is not loaded yet
        self.state = LogState.WRITABLE
        self.journals: list[Journal] = []

    def open(self) -> None:
        """Load the file and start the thread; blocks for as long as that takes."""
        self._connection = schema.connect(self._path)
        try:
            self._opened = os.stat(self._path)
            self._load()
        except BaseException:
            self._connection.close()
            raise
        self._thread = threading.Thread(target=self._run, name=f"log-writer {self._path.name}", daemon=True)
        self._thread.start()

    def put(self, work: Submission | Question | None) -> None:
        """Hand over work (None: the end); it is done in the order of the calls."""
        self._waiting.append(work)
        if not self._signalled:  # else what waits has not been looked at since the last signal
            self._signalled = True
            self._signal.put(None)

    def close(self) -> None:
        """Do what waits, write what is in memory, close; blocks until then."""
        self.put(None)
        self._thread.join()
        self._connection.close()

    def maintain(self) -> None:
        """All maintenance that is due, now. For the writer's thread."""
        self._housekeeping_at = 0.0
        more = True
        while more:
            for compaction in self._compactions:
                compaction.hurry()
            more = self._maintain(idle=False)

    def unflushed(self, log: int) -> dict[str, State]:
        """The subjects of a log that its table is behind with. For the writer's thread."""
        subjects = self.journals[log].subjects
        return {name: subjects.known[name] for name in subjects.dirty}

    def _load(self) -> None:
        self._connection.execute("PRAGMA journal_mode=WAL")  # a backup, opened as it is, has another
        with schema.transaction(self._connection):
            known = {name for (name,) in self._connection.execute("SELECT name FROM logs").fetchall()}
            for log in self._logs:
                if log.name not in known:
                    schema.new_log(self._connection, log.name)
        self.journals = [Journal(self._connection, log, self._clock()) for log in self._logs]
        self._compactions = [Compaction(self._connection, journal) for journal in self.journals]

    def _run(self) -> None:
        timeout_s, stopping = 0.0, False
        while not stopping:
            group, questions = self._next(timeout_s)
            if group:
                self._tell(self._on_commit, self._commit(group))
            for question in questions:
                if question is None:
                    stopping = True
                else:
                    self._answer(question)
            more = self._attempt(partial(self._maintain, idle=not group))
            timeout_s = 0.0 if more else MAINTENANCE_S
        for journal in self.journals:
            self._attempt(partial(deque, journal.flush_subjects(), maxlen=0))

    def _next(self, timeout_s: float) -> tuple[list[Submission], list[Question | None]]:
        """What goes into the next commit, and what was asked right after it; waits where there is neither."""
        with suppress(Empty):
            self._signal.get(block=timeout_s > 0 and not self._waiting, timeout=timeout_s)
            self._signalled = False  # and then look: what comes from here on signals again
        group, questions = _group(self._waiting[:GROUP_ENTRIES])
        del self._waiting[: len(group) + len(questions)]
        return group, questions

    def _commit(self, group: list[Submission]) -> Committed:
        size = sum(map(_SIZE, group))
        by_log = {log: [one for one in group if one[0] == log] for log in set(map(_LOG, group))}
        while True:
            stored: dict[int, Stored] = {}
            try:
                self._check_file()
                self._catch_up()
                with schema.transaction(self._connection):
                    now_ns = self._clock()
                    for log, submissions in by_log.items():
                        entries = list(chain.from_iterable(map(_ENTRIES, submissions)))
                        stored[log] = self.journals[log].store(entries, now_ns)
                break
            except EpochMoved:
                self._moved = True
            except Exception as error:  # the thread must live; every entry is answered
                if len(group) > 1 and not isinstance(error, sqlite3.Error):
                    # One of them is what nobody foresaw: that is not the fault of the others.
                    alone = [self._commit([submission]) for submission in group]
                    return Committed(
                        [news for one in alone for news in one.news],
                        [answer for one in alone for answer in one.answers],
                        size,
                    )
                faults: list[Appended | SignpostError] = [self._fault(error)]
                return Committed([], [(group, faults * sum(map(len, map(_ENTRIES, group))))], size)
        self.state = LogState.WRITABLE
        committed = Committed([], [], size)
        for log, submissions in by_log.items():
            outcome = stored[log]
            self.journals[log].commit(outcome)
            if outcome.records:
                committed.news.append((log, outcome.records, outcome.counters.last))
            committed.answers.append((submissions, outcome.answers))
        return committed

    def _answer(self, question: Question) -> None:
        try:
            self._catch_up()
            answer, error = question.ask(), None
        except EpochMoved:
            self._moved = True
            self._answer(question)
            return
        except Exception as raised:  # the thread must live; the asker gets it
            answer, error = None, self._fault(raised)
        self._tell(_resolve, question.future, answer, error)

    def _maintain(self, *, idle: bool) -> bool:
        """One slice of each kind that is due; whether there may be more."""
        now_ns, now = self._clock(), time.monotonic()
        more = False
        for compaction in self._compactions:
            more |= compaction.step(now_ns)
        for index, journal in enumerate(self.journals):
            counters = journal.counters
            waits = len(journal.subjects.dirty) >= DIRTY_SUBJECTS or (
                counters.last - counters.flushed >= UNFLUSHED_RECORDS
            )
            if index not in self._flushes and waits:
                self._flushes[index] = journal.flush_subjects()
            if index in self._flushes:
                if next(self._flushes[index], self) is self:
                    del self._flushes[index]
                more = True
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + HOUSEKEEPING_S
            more |= self._housekeeping(now_ns, now, idle=idle)
        return more

    def _housekeeping(self, now_ns: int, now: float, *, idle: bool) -> bool:
        if self.state is not LogState.WRITABLE and self._has_room() and self._is_there():
            self.state = LogState.WRITABLE
        if any(journal.moved() for journal in self.journals):
            self._moved = True
            self._catch_up()
        schema.empty_wal(self._connection, self._path, WAL_BYTES, WAL_WAIT_S)
        more = False
        for index, journal in enumerate(self.journals):
            if journal.remembered.trim(now_ns):
                self._housekeeping_at, more = now, True  # else commits could add more than goes
            if idle and journal.subjects.dirty:
                self._flushes.setdefault(index, journal.flush_subjects())
                more = True
        return more

    def _attempt(self, work: Callable[[], object]) -> bool:
        try:
            self._catch_up()
            return bool(work())
        except EpochMoved:
            self._moved = True
            return True
        except Exception as error:  # the thread must live; maintenance is tried again
            self._flushes.clear()
            self._fault(error)
        return False

    def _catch_up(self) -> None:
        # Where another process has restored the file, go on with what it holds now. It may fail: then again.
        if not self._moved:
            return
        self._flushes.clear()
        for index, journal in enumerate(self.journals):
            before = journal.counters.epoch
            journal.load(self._clock())
            self._compactions[index] = Compaction(self._connection, journal)
            after = journal.counters
            if after.epoch != before:
                self._tell(self._on_replaced, index, after.epoch, after.last, after.horizon)
        self._moved = False

    def _fault(self, error: Exception) -> SignpostError:
        if not isinstance(error, sqlite3.Error):
            _logger.error("the log's writer failed", exc_info=error)
            return Internal(f"the writer of {self._path} failed: {error!r}")
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        no_room = code == sqlite3.SQLITE_IOERR and not self._has_room()
        if code == sqlite3.SQLITE_FULL or no_room:
            self.state = LogState.FULL
            return StorageFull(f"no room to write {self._path}: {error}", retry_after_s=HOUSEKEEPING_S)
        return LogUnavailable(f"cannot write {self._path}: {error}", retry_after_s=HOUSEKEEPING_S)

    def _check_file(self) -> None:
        # Once a commit: what goes to a file that was deleted, or moved aside for another, is lost with this process.
        if not self._is_there():
            self.state = LogState.RECONNECTING
            raise sqlite3.OperationalError("the file was moved or deleted under the service; put it back, or restart")

    def _is_there(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), self._opened)
        except OSError:
            return False

    def _has_room(self) -> bool:
        try:
            return schema.free_bytes(self._path) >= ROOM_BYTES
        except OSError:  # the disk has gone, or the file's name: writing tells
            return True

    def _tell(self, callback: Callable[..., None], *arguments: object) -> None:
        self._loop.call_soon_threadsafe(callback, *arguments)


def _group(work: list[Submission | Question | None]) -> tuple[list[Submission], list[Question | None]]:
    """Of what waits, in its order: what goes into one commit, and the question that was asked right after it."""
    group: list[Submission] = []
    entries = size = 0
    for item in work:
        if not isinstance(item, Submission):
            return group, [item]
        group.append(item)
        entries += len(item[1])
        size += item[2]
        if entries >= GROUP_ENTRIES or size >= GROUP_BYTES:
            break
    return group, []


def _resolve(future: "asyncio.Future[object]", answer: object, error: SignpostError | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(answer)
    else:
        future.set_exception(error)
