"""`kill -9` at random moments under load: every acknowledged append is there, in order, once."""

import asyncio
import random
import sys
from pathlib import Path

import pytest
from signpost.log import Log, LogSettings, Record, SubjectInfo, open_store

ROOT = Path(__file__).parents[3]


async def killed_round(path: Path, number: int, after: int, and_s: float) -> list[tuple[int, str]]:
    """What a process had acknowledged when it was killed: a moment after it had told so many acknowledgements."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.behaviour.log.appender", str(path), str(number), stdout=-1, stderr=-1, cwd=ROOT
    )
    assert process.stdout is not None
    assert process.stderr is not None
    first = [await process.stdout.readline() for _ in range(after)]
    await asyncio.sleep(and_s)
    process.kill()
    rest, errors = await process.communicate()
    assert not errors, errors.decode()
    # The last line may be half written: that append was not told.
    lines = (b"".join(first) + rest).decode().split("\n")[:-1]
    return [(int(sequence), message_id) for sequence, message_id in (line.split() for line in lines)]


async def everything(log: Log) -> list[Record]:
    records: list[Record] = []
    after = 0
    while after < log.head:
        page = await log.read(after)
        records += page.records
        after = page.through
    return records


async def validate(path: Path, acknowledged: list[tuple[int, str]]) -> int:
    """Open the file without help and look at all of it; answers how many records it has."""
    async with open_store(f"sqlite:///{path}", [LogSettings("notes")]) as store:
        log = store["notes"]
        records = await everything(log)
        assert [record.sequence for record in records] == list(range(1, len(records) + 1))
        ids = [record.message_id for record in records]
        assert len(set(ids)) == len(ids)
        lost = [(sequence, each) for sequence, each in acknowledged if ids[sequence - 1] != each]
        assert not lost
        by_worker: dict[str, int] = {}
        for each in ids:
            worker, sent = each.rsplit(".", 1)
            assert by_worker.setdefault(worker, 0) == int(sent)
            by_worker[worker] += 1

        subjects: dict[str, SubjectInfo] = {}
        for record in records:
            had = subjects.get(record.subject, SubjectInfo(record.subject, record.sequence, 0, 0))
            subjects[record.subject] = had._replace(last_sequence=record.sequence, records=had.records + 1)
        assert await log.subjects(limit=10_000) == [subjects[name] for name in sorted(subjects)]
        statistics = await log.statistics()
        size = sum(len(record.payload) for record in records)
        assert statistics == (len(records), size, len(subjects), 1, len(records))
        return len(records)


async def kill_rounds(path: Path, rounds: int) -> None:
    acknowledged: list[tuple[int, str]] = []
    for number in range(rounds):
        if number % 5 == 0:  # in its first steps, which may take it longer than this
            acknowledged += await killed_round(path, number, 0, random.uniform(0.1, 0.9))
        else:
            acknowledged += await killed_round(path, number, random.randrange(20, 1000), random.uniform(0, 0.02))
        if number % 5 == 4:
            await validate(path, acknowledged)
    assert await validate(path, acknowledged) >= len(acknowledged) > rounds * 10


async def test_fault_22_kill_9(tmp_path: Path) -> None:
    await kill_rounds(tmp_path / "a.db", 5)


@pytest.mark.long
async def test_fault_22_kill_9_fifty_times(tmp_path: Path) -> None:
    await kill_rounds(tmp_path / "a.db", 50)
