"""Any interleaving of appends, reads, restarts and retention keeps the promises, on every engine."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from signpost.errors import PositionCompacted, StaleSequence
from signpost.log import Append, Appended, Log, LogSettings, Record, Retention, Store, matcher
from signpost.log.sqlite import batches, compaction, reading, subjects

from tests.contract.engines import Engine, JetStream, Memory, SQLite

AGE_S = 100.0
WINDOW_S = 250.0
LOG = LogSettings("notes", Retention(max_age_s=AGE_S, keep_last=True), dedupe_window_s=WINDOW_S, tail_bytes=2000)
SUBJECTS = st.sampled_from(["a", "a.b", "a.c", "b", "_x.b"])
FILTERS = st.sampled_from([None, ">", "a.*", "a.>", "a", "*.b", "_x.>", "nothing"])
ENTRIES = st.builds(
    Append,
    subject=SUBJECTS,
    payload=st.binary(max_size=300),
    message_id=st.sampled_from(["", "", "m", "n"]),
    principal=st.sampled_from(["", "p"]),
    expected_sequence=st.sampled_from([None, None, -1, 0, 1]),
    tombstone=st.sampled_from([False, False, False, True]),
)


class LogMachine(RuleBasedStateMachine):
    """The log beside a list of everything that was ever stored in it."""

    engine_type: type[Engine]

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.directory = TemporaryDirectory()
        self.stored: list[Record] = []
        self.last: dict[str, Record] = {}
        self.ids: dict[tuple[str, str, str], tuple[int, float]] = {}
        self.now_s = 0.0

    @initialize()
    def start(self) -> None:
        path = Path(self.directory.name)
        self.engine: Engine = Memory() if self.engine_type is Memory else self.engine_type(path)  # type: ignore[call-arg]
        self.runner.run(self._open())

    async def _open(self) -> None:
        self.stack = AsyncExitStack()
        self.store: Store = await self.stack.enter_async_context(self.engine.open(LOG))
        self.log: Log = self.store["notes"]

    @rule(entries=st.lists(ENTRIES, min_size=1, max_size=5))
    def append(self, entries: list[Append]) -> None:
        # JetStream promises no order among the entries of one call.
        entries = entries[:1] if self.engine_type is JetStream else entries
        # -1 stands for the right one.
        entries = [
            entry._replace(expected_sequence=self._standing(entry.subject)) if entry.expected_sequence == -1 else entry
            for entry in entries
        ]
        answers = self.runner.run(self._append(entries))
        for entry, answer in zip(entries, answers, strict=True):
            key = (entry.principal, entry.subject, entry.message_id)
            sequence, at_s = self.ids.get(key, (0, 0.0))
            if entry.message_id and sequence and self.now_s - at_s < WINDOW_S:
                assert answer == Appended(sequence, True)
            elif entry.expected_sequence not in {None, self._standing(entry.subject)}:
                assert isinstance(answer, StaleSequence)
                assert answer.actual == self._standing(entry.subject)
            else:
                assert answer == Appended(len(self.stored) + 1, False)
                record = Record(
                    len(self.stored) + 1, entry.subject, entry.message_id, 0, entry.payload, entry.tombstone
                )
                self.stored.append(record)
                self.last[entry.subject] = record
                self.ids[key] = (record.sequence, self.now_s)

    async def _append(self, entries: list[Append]) -> list[object]:
        return list(await self.log.append_many(entries))

    @rule(pattern=FILTERS, back=st.integers(0, 40), limit=st.integers(1, 10))
    def read(self, pattern: str | None, back: int, limit: int) -> None:
        self.runner.run(self._read(pattern, max(0, len(self.stored) - back), limit))

    async def _read(self, pattern: str | None, after: int, limit: int) -> None:
        horizon = (await self.log.bounds()).horizon
        if after < horizon:
            with pytest.raises(PositionCompacted):
                await self.log.read(after, subjects=pattern)
            after = horizon
        match = matcher(pattern) if pattern else lambda _: True
        want = [record for record in self.stored[after:] if match(record.subject)]
        found: list[Record] = []
        while after < len(self.stored):
            page = await self.log.read(after, subjects=pattern, limit=limit)
            assert page.after == after < page.through
            assert await self.log.resolve(page.position) == page.through
            found += page.records
            after = page.through
        assert [record._replace(time_ns=0) for record in found] == want

    @rule(back=st.integers(0, 40))
    def follow(self, back: int) -> None:
        self.runner.run(self._follow(max(0, len(self.stored) - back)))

    async def _follow(self, after: int) -> None:
        after = max(after, (await self.log.bounds()).horizon)
        want, found = self.stored[after:], []
        async for page in self.log.follow(after):
            assert page.after == after
            found += [record._replace(time_ns=0) for record in page.records]
            after = page.through
            if after >= len(self.stored):
                break
        assert found == want

    @rule()
    def restart(self) -> None:
        self.runner.run(self.stack.aclose())
        self.runner.run(self._open())

    @rule(seconds=st.sampled_from([1.0, 60.0, 130.0]))
    def time_passes(self, seconds: float) -> None:
        if self.engine_type is JetStream:
            return  # it has no clock of ours: tests/contract/test_log_retention.py waits for real
        self.runner.run(self.engine.advance(self.store, seconds))
        self.now_s += seconds

    @invariant()
    def subjects_are_what_was_stored(self) -> None:
        if hasattr(self, "log"):
            self.runner.run(self._subjects())

    async def _subjects(self) -> None:
        await self.engine.advance(self.store, 0)  # retention must not come between the questions
        assert self.log.head == len(self.stored)
        found = {record.subject: record._replace(time_ns=0) for record in await self.log.last_of_each()}
        live = {subject: record for subject, record in self.last.items() if not record.tombstone}
        assert {subject: record for subject, record in found.items() if not record.tombstone} == live
        assert all(record == self.last[subject] for subject, record in found.items())
        infos = await self.log.subjects()
        assert [info.subject for info in infos] == sorted(found)
        everything = (await self.log.read(0, limit=10_000, allow_gaps=True)).records
        for info in infos:
            standing = [record.sequence for record in everything if record.subject == info.subject]
            assert info[1:] == (standing[0], standing[-1], len(standing))
        statistics = await self.log.statistics()
        assert (statistics.records, statistics.subjects) == (len(everything), len(infos))

    def teardown(self) -> None:
        async def close() -> None:
            await self.stack.aclose()
            await self.engine.stop()

        if hasattr(self, "stack"):
            self.runner.run(close())
        self.runner.close()
        self.directory.cleanup()

    def _standing(self, subject: str) -> int:
        record = self.last.get(subject)
        return 0 if record is None or record.tombstone else record.sequence


@pytest.mark.long
def test_any_interleaving_where_everything_is_cut_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """On SQLite: batches, slices, scans and sweeps of a few records each, and every exact filter along its chain."""
    for module, name, value in [
        (batches, "BATCH_RECORDS", 3),
        (batches, "BATCH_BYTES", 400),
        (compaction, "SLICE", 4),
        (compaction, "SWEEP_BATCHES", 1),
        (reading, "RANGE", 5),
        (reading, "HOP_RECORDS", 0),
        (subjects, "SLICE", 2),
    ]:
        monkeypatch.setattr(module, name, value)
    test_any_interleaving(SQLite, 40)


@pytest.mark.parametrize(
    ("engine_type", "examples"), [(Memory, 40), (SQLite, 20), (JetStream, 5)], ids=["memory", "sqlite", "jetstream"]
)
def test_any_interleaving(engine_type: type[Engine], examples: int) -> None:
    machine = type("Machine", (LogMachine,), {"engine_type": engine_type})
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            derandomize=True,
            # To make a failure smaller takes many starts of a server.
            phases=[Phase.generate] if engine_type is JetStream else list(Phase),
        ),
    )
