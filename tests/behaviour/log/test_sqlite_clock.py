"""Retention by age on SQLite where the clock is wrong for a while: it goes on, and takes nothing too early."""

import contextlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from signpost.log import Append, LogSettings, Retention
from signpost.log.sqlite import schema
from signpost.log.sqlite.batches import decoded, rows_after
from signpost.log.sqlite.compaction import MARKS, Compaction
from signpost.log.sqlite.journal import Journal

S = 10**9
YEAR_S = 365 * 86_400
START_S = 1_800_000_000
AGE_S = 160
PART_S = AGE_S // MARKS


class Retained:
    """A journal under retention, and a clock that is set by hand."""

    def __init__(self, path: Path, *, keep_last: bool) -> None:
        schema.prepare(path)
        self._settings = LogSettings("notes", Retention(max_age_s=AGE_S, keep_last=keep_last))
        self._connection = schema.connect(path)
        with schema.transaction(self._connection):
            schema.new_log(self._connection, "notes")
        self.restart()

    def restart(self) -> None:
        self._journal = Journal(self._connection, self._settings, 0)
        self._compaction = Compaction(self._connection, self._journal)

    def append(self, subject: str, clock_s: int) -> int:
        with schema.transaction(self._connection):
            stored = self._journal.store([Append(subject, b"x")], clock_s * S)
        self._journal.commit(stored)
        return self._journal.counters.last

    def left(self, clock_s: int) -> list[int]:
        """The sequences that are there after retention has come to rest."""
        self._compaction.hurry()
        while self._compaction.step(clock_s * S):
            self._compaction.hurry()
        return [s for *_, batch in rows_after(self._connection, 1, 0) for s in decoded(batch).sequences]

    def close(self) -> None:
        self._connection.close()


@pytest.fixture(params=[False, True])
def retained(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Retained]:
    with contextlib.closing(Retained(tmp_path / "a.db", keep_last=request.param)) as made:
        yield made


def test_a_clock_that_was_a_year_ahead_for_a_moment_stops_no_retention(retained: Retained) -> None:
    retained.append("a", START_S)
    retained.append("a", START_S + YEAR_S)
    assert retained.left(START_S + 1) == [1, 2]
    third = retained.append("a", START_S + 100)
    assert retained.left(START_S + 100) == [1, 2, third]
    assert retained.left(START_S + AGE_S) == [2, third]
    assert retained.left(START_S + AGE_S + PART_S + 1) == [third]
    retained.append("a", START_S + AGE_S + 50)
    assert retained.left(START_S + 100 + AGE_S + PART_S) == [4]


def test_a_process_that_starts_while_times_are_ahead_counts_anew(retained: Retained) -> None:
    retained.append("a", START_S + YEAR_S)
    retained.append("a", START_S)
    assert retained.left(START_S) == [1, 2]
    retained.restart()
    assert retained.left(START_S + AGE_S) == [1, 2]
    retained.append("a", START_S + AGE_S)
    assert retained.left(START_S + 2 * AGE_S) == [3]


@pytest.mark.parametrize("seed", range(5))
def test_nothing_goes_too_early_nor_much_too_late(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    with contextlib.closing(Retained(tmp_path / "a.db", keep_last=False)) as retained:
        stored: dict[int, int] = {}  # when, in truth
        late = PART_S + 10  # what a clock that is a little behind adds
        for now_s in range(START_S, START_S + 4 * AGE_S, 5):
            is_ahead = rng.random() < 0.1
            sequence = retained.append("a", now_s + is_ahead * rng.choice([1, AGE_S, YEAR_S]))
            stored[sequence] = now_s
            left = set(retained.left(now_s - rng.choice([0, 0, 0, 3])))
            for each, at_s in stored.items():
                if now_s - at_s < AGE_S:
                    assert each in left
                elif now_s - at_s > AGE_S + late:
                    assert each not in left
