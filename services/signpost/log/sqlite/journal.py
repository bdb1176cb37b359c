"""One log as its writer sees it: decides about entries, stores them, keeps the counters."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import compress, repeat
from typing import NamedTuple

from signpost.errors import SignpostError, StaleSequence, TooLarge
from signpost.log.admission import dedupe_key, subject_fault
from signpost.log.base import MAX_RECORD_BYTES, Append, Appended, LogSettings, Record
from signpost.log.sqlite import batches
from signpost.log.sqlite.remembered import Remembered
from signpost.log.sqlite.schema import transaction
from signpost.log.sqlite.subjects import SLICE, State, Subjects

_new = tuple.__new__  # a NamedTuple's own constructor takes twice as long, three times for each record
_AS_APPENDED: Callable[[tuple[int, bool]], Appended] = partial(_new, Appended)
_NO_STATE = State(0, 0, 0, False)


class EpochMoved(Exception):
    """Another process has restored the file since it was loaded."""


class Counters(NamedTuple):
    """The log's row in `logs`."""

    id: int
    epoch: bytes
    last: int
    horizon: int
    examined: int
    flushed: int
    records: int
    bytes: int
    subjects: int
    time_ns: int


COUNTERS = "SELECT id, epoch, last, horizon, examined, flushed, records, bytes, subjects, time_ns FROM logs WHERE "


class Stored(NamedTuple):
    """What one transaction does to one log; takes effect with `Journal.commit`."""

    answers: list[Appended | SignpostError]
    records: list[Record]
    changed: dict[str, State]
    fresh: dict[bytes, int]
    superseded: list[int]
    counters: Counters


class Journal:
    """For the writer's thread. `store` within a transaction, then `commit` once that is durable."""

    def __init__(self, connection: sqlite3.Connection, settings: LogSettings, now_ns: int) -> None:
        self._connection = connection
        self.settings = settings
        self.load(now_ns)

    def load(self, now_ns: int) -> None:
        """Read everything again from the file; where that fails, all is as it was."""
        row = self._connection.execute(COUNTERS + "name = ?", (self.settings.name,)).fetchone()
        counters = Counters(*row)
        subjects = Subjects(self._connection, counters.id)
        remembered = Remembered(self._connection, counters.id, self.settings.dedupe_window_s)
        remembered.load(max(now_ns, counters.time_ns))
        self._catch_up(subjects, counters)
        self.counters, self.subjects, self.remembered = counters, subjects, remembered
        self.superseded: set[int] = set()  # was the last of its subject when the pass of retention examined it

    def store(self, entries: Sequence[Append], now_ns: int) -> Stored:
        """Decide about the entries, in order, and write what they add, within the caller's transaction."""
        counters, base = self.counters, self.counters.last
        if not entries:  # a submission may be of none
            return Stored([], [], {}, {}, [], counters)
        time_ns = max(now_ns, counters.time_ns)
        self.remembered.forget(time_ns)
        names, payloads, message_ids, principals, expected, tombstones = zip(*entries, strict=True)
        unknown = self.subjects.find(names)
        keys = [
            dedupe_key(principal, subject, message_id) if message_id else b""
            for principal, subject, message_id in zip(principals, names, message_ids, strict=True)
        ]
        refused: dict[int, Appended | SignpostError] = {}
        if not (
            expected.count(None) == len(expected)
            and max(map(len, payloads)) <= MAX_RECORD_BYTES
            and self.remembered.are_new(keys)
            and not any(map(subject_fault, unknown))
        ):
            refused = self._refused(entries, keys)
        taken = len(entries) - len(refused)
        sequences = range(base + 1, base + 1 + taken)
        answers: list[Appended | SignpostError] = list(map(_AS_APPENDED, zip(sequences, repeat(False))))
        if refused:
            stays = [index not in refused for index in range(len(entries))]
            stored = iter(answers)
            answers = [next(stored) if stay else refused[index] for index, stay in enumerate(stays)]
            names, payloads, message_ids, tombstones = (
                tuple(compress(column, stays)) for column in (names, payloads, message_ids, tombstones)
            )
            keys = list(compress(keys, stays))
        if not taken:
            return Stored(answers, [], {}, {}, [], counters)
        changed, chain = self._chained(sequences, names, tombstones)
        counters = counters._replace(
            last=sequences[-1],
            records=counters.records + taken,
            bytes=counters.bytes + sum(map(len, payloads)),
            subjects=counters.subjects + len(unknown & changed.keys()),
            time_ns=time_ns,
        )
        columns = batches.Columns(sequences, names, message_ids, [time_ns] * taken, payloads, tombstones, chain)
        batches.insert(self._connection, counters.id, columns)
        fresh = dict(zip(keys, sequences, strict=True))
        fresh.pop(b"", None)
        if fresh:
            self.remembered.write(fresh, base, time_ns)
        self.write_counters(counters)
        superseded = [one for one in chain if 0 < one <= counters.examined] if counters.examined else []
        return Stored(answers, batches.as_records(columns), changed, fresh, superseded, counters)

    def _refused(self, entries: Sequence[Append], keys: Sequence[bytes]) -> dict[int, Appended | SignpostError]:
        """The entries, by their place, that add nothing, and what each is answered; each sees those before it."""
        known, remembered = self.subjects.known, self.remembered.sequences
        refused: dict[int, Appended | SignpostError] = {}
        fresh: dict[bytes, int] = {}
        last: dict[str, int] = {}  # as an expectation has it: 0 after a tombstone
        sequence = self.counters.last
        for index, (entry, key) in enumerate(zip(entries, keys, strict=True)):
            subject, payload, _, _, expected, tombstone = entry
            if key and (stored := remembered.get(key) or fresh.get(key)):
                refused[index] = Appended(stored, True)
                continue
            if len(payload) > MAX_RECORD_BYTES:
                refused[index] = TooLarge("a record", len(payload), MAX_RECORD_BYTES)
                continue
            actual = last.get(subject)
            if actual is None:
                state = known.get(subject)
                if state is None and (fault := subject_fault(subject)):
                    refused[index] = fault
                    continue
                actual = 0 if state is None or state.tombstone else state.last
            if expected is not None and actual != expected:
                refused[index] = StaleSequence(subject, expected, actual)
                continue
            sequence += 1
            last[subject] = 0 if tombstone else sequence
            if key:
                fresh[key] = sequence
        return refused

    def _chained(
        self, sequences: Sequence[int], names: Sequence[str], tombstones: Sequence[bool]
    ) -> tuple[dict[str, State], list[int]]:
        """The states of subjects after these records, and for each record the one before it of its subject."""
        known, new = self.subjects.known, _new
        changed: dict[str, State] = {}
        chain: list[int] = []
        for sequence, name, tombstone in zip(sequences, names, tombstones, strict=True):
            previous, records, first, _ = changed.get(name) or known.get(name) or _NO_STATE
            changed[name] = new(State, (sequence, records + 1, first or sequence, tombstone))
            chain.append(previous)
        return changed, chain

    def store_as_they_are(self, records: Sequence[Record]) -> Stored:
        """Write records of another log, sequences and times as they are, within the caller's transaction."""
        counters = self.counters
        self.subjects.find([record.subject for record in records])
        changed: dict[str, State] = {}
        chain: list[int] = []
        for sequence, subject, _, time_ns, payload, tombstone in records:
            state = changed.get(subject) or self.subjects.known.get(subject) or _NO_STATE
            changed[subject] = State(sequence, state.records + 1, state.first or sequence, tombstone)
            chain.append(state.last)
            counters = counters._replace(
                last=sequence,
                records=counters.records + 1,
                bytes=counters.bytes + len(payload),
                subjects=counters.subjects + (state is _NO_STATE),
                time_ns=max(counters.time_ns, time_ns),
            )
        if records:
            sequences, names, message_ids, times, payloads, tombstones = zip(*records, strict=True)
            columns = batches.Columns(sequences, names, message_ids, times, payloads, tombstones, chain)
            batches.insert(self._connection, counters.id, columns)
        self.write_counters(counters)
        return Stored([], list(records), changed, {}, [], counters)

    def commit(self, stored: Stored) -> None:
        """Take over what `store` wrote, once it is durable."""
        if stored.records:
            if stored.fresh:
                self.remembered.commit(stored.fresh, stored.counters.time_ns)
            self.counters = stored.counters
            self.subjects.commit(stored.changed)
            self.superseded.update(stored.superseded)

    def write_counters(self, counters: Counters) -> None:
        """Write the log's row within the caller's transaction; EpochMoved where the log is another one by now."""
        cursor = self._connection.execute(
            "UPDATE logs SET last = ?, horizon = ?, examined = ?, flushed = ?, records = ?, bytes = ?, subjects = ?,"
            " time_ns = ? WHERE id = ? AND epoch = ?",
            (*counters[2:], counters.id, counters.epoch),
        )
        if cursor.rowcount != 1:
            raise EpochMoved(self.settings.name)

    def moved(self) -> bool:
        """Whether another process has restored the log since it was loaded."""
        row = self._connection.execute("SELECT epoch FROM logs WHERE name = ?", (self.settings.name,)).fetchone()
        return row is None or row[0] != self.counters.epoch

    def flush_subjects(self) -> Iterator[None]:
        """Bring the subjects table up to date: each step is one slice in a transaction of its own."""
        subjects, last = self.subjects, self.counters.last
        names = sorted(subjects.dirty)
        # Retention may have written every one of them: there is a step all the same, so that `flushed` moves on.
        for start in range(0, len(names), SLICE) or range(1):
            some = names[start : start + SLICE]
            states: dict[str, State | None] = {name: subjects.known[name] for name in some if name in subjects.dirty}
            done = start + SLICE >= len(names)
            counters = self.counters._replace(flushed=last) if done else self.counters
            with transaction(self._connection):
                subjects.write(states)
                self.write_counters(counters)
            self.counters = counters
            subjects.written(states)
            yield
        subjects.forget_clean()

    def _catch_up(self, subjects: Subjects, counters: Counters) -> None:
        # What was stored after the last flush of the subjects.
        flushed = counters.flushed
        changed: dict[str, State] = {}
        for _, _, encoded in batches.rows_after(self._connection, counters.id, flushed):
            batch = batches.decoded(encoded)
            subjects.find(batch.subjects)
            for sequence, subject, tombstone in zip(batch.sequences, batch.subjects, batch.tombstones, strict=True):
                state = changed.get(subject) or subjects.known.get(subject) or _NO_STATE
                if sequence > max(flushed, state.last):
                    changed[subject] = State(sequence, state.records + 1, state.first or sequence, tombstone)
        subjects.commit(changed)
