"""Appends: order, idempotence, optimistic concurrency, limits."""

import asyncio

import pytest
from signpost.errors import InvalidArgument, StaleSequence, TooLarge
from signpost.log import MAX_RECORD_BYTES, Append, Appended, Log, LogSettings, encode_token

from tests.contract.engines import Engine


async def test_sequences_rise_from_1(log: Log) -> None:
    assert (await log.bounds())[:2] == (1, 0)
    answers = [await log.append(Append("a", b"%d" % i)) for i in range(3)]
    assert answers == [Appended(1, False), Appended(2, False), Appended(3, False)]
    assert log.head == 3


async def test_many_in_flight_are_stored_in_the_order_of_the_calls(log: Log) -> None:
    futures = [log.submit([Append("a", b"%d" % i)]) for i in range(500)]
    answers = [(await future)[0] for future in futures]
    assert answers == [Appended(i + 1, False) for i in range(500)]
    page = await log.read(0)
    assert [record.payload for record in page.records] == [b"%d" % i for i in range(500)]


async def test_a_submission_of_none_is_answered_and_nothing_failed(log: Log, caplog: pytest.LogCaptureFixture) -> None:
    assert await log.append_many([]) == []
    futures = [log.submit([Append("a", b"1")]), log.submit([]), log.submit([Append("a", b"2")])]
    assert [await future for future in futures] == [[Appended(1, False)], [], [Appended(2, False)]]
    assert not [record for record in caplog.records if record.levelname == "ERROR"]


@pytest.mark.parametrize("payload", [b"", b"\x00", b"\xff\x00\xfe" * 7, bytes(range(256)) * 2048])
async def test_payloads_are_opaque(log: Log, payload: bytes) -> None:
    assert len(payload) <= MAX_RECORD_BYTES
    await log.append(Append("a", payload))
    page = await log.read(0)
    assert [record.payload for record in page.records] == [payload]


async def test_a_record_keeps_what_it_was_given(log: Log) -> None:
    await log.append(Append("a.b", b"x", message_id="Größe 1:é\u4e16", principal="me"))
    await log.append(Append("a.b", b"", tombstone=True))
    first, second = (await log.read(0)).records
    assert (first.subject, first.message_id, first.tombstone) == ("a.b", "Größe 1:é\u4e16", False)
    assert (second.message_id, second.tombstone) == ("", True)
    assert 0 < first.time_ns <= second.time_ns


async def test_fault_3_a_retry_gets_the_same_sequence_and_duplicate(log: Log) -> None:
    first = await log.append(Append("a", b"1", message_id="m", principal="p"))
    await log.append(Append("a", b"2"))
    again = await log.append(Append("a", b"1", message_id="m", principal="p"))
    assert (first, again) == (Appended(1, False), Appended(1, True))
    assert (await log.statistics()).records == 2


async def test_duplicates_within_one_submission(log: Log) -> None:
    answers = await log.append_many([Append("a", b"1", "m"), Append("a", b"1", "m"), Append("a", b"2", "n")])
    assert answers == [Appended(1, False), Appended(1, True), Appended(2, False)]


async def test_fault_4_an_equal_id_of_another_client_or_topic_swallows_nothing(log: Log) -> None:
    answers = await log.append_many(
        [
            Append("a", b"1", "m", "p"),
            Append("a", b"2", "m", "q"),
            Append("b", b"3", "m", "p"),
            Append("a", b"4", "mp", ""),
            Append("a", b"5", "", "p"),
            Append("a", b"6", "", "p"),
        ]
    )
    assert answers == [Appended(i, False) for i in range(1, 7)]


async def test_fault_4_after_the_window_it_is_stored_again(engine: Engine) -> None:
    async with engine.open(LogSettings("notes", dedupe_window_s=3.0)) as store:
        log = store["notes"]
        assert await log.append(Append("a", b"1", "m")) == Appended(1, False)
        await engine.advance(store, 0.5)
        assert await log.append(Append("a", b"1", "m")) == Appended(1, True)
        await engine.advance(store, 3.0)
        assert await log.append(Append("a", b"1", "m")) == Appended(2, False)
        assert await log.append(Append("a", b"1", "m")) == Appended(2, True)


async def test_a_duplicate_is_recognised_after_a_restart(engine: Engine) -> None:
    async with engine.open(LogSettings("notes")) as store:
        await store["notes"].append(Append("a", b"1", "m"))
    async with engine.open(LogSettings("notes")) as store:
        assert await store["notes"].append(Append("a", b"1", "m")) == Appended(1, True)


async def test_a_duplicate_is_recognised_before_the_expected_sequence(log: Log) -> None:
    entry = Append("a", b"1", "m", expected_sequence=0)
    assert await log.append(entry) == Appended(1, False)
    assert await log.append(entry) == Appended(1, True)
    await log.append(Append("a", b"2"))
    assert await log.append(entry) == Appended(1, True)


async def test_a_refused_append_is_not_remembered(log: Log) -> None:
    await log.append(Append("a", b"1"))
    with pytest.raises(StaleSequence):
        await log.append(Append("a", b"2", "m", expected_sequence=0))
    assert await log.append(Append("a", b"2", "m", expected_sequence=1)) == Appended(2, False)


async def test_expected_sequence(log: Log) -> None:
    assert (await log.append(Append("a", b"1", expected_sequence=0))).sequence == 1
    await log.append(Append("b", b"1"))
    assert (await log.append(Append("a", b"2", expected_sequence=1))).sequence == 3
    for wrong in (0, 1, 2, 99):
        with pytest.raises(StaleSequence) as raised:
            await log.append(Append("a", b"x", expected_sequence=wrong))
        assert (raised.value.expected, raised.value.actual) == (wrong, 3)
    with pytest.raises(StaleSequence) as raised:
        await log.append(Append("never", b"x", expected_sequence=7))
    assert raised.value.actual == 0
    assert (await log.statistics()).records == 3


async def test_a_tombstone_counts_as_absent(log: Log) -> None:
    await log.append(Append("a", b"1"))
    await log.append(Append("a", b"", tombstone=True, expected_sequence=1))
    with pytest.raises(StaleSequence) as raised:
        await log.append(Append("a", b"2", expected_sequence=1))
    assert raised.value.actual == 0
    assert (await log.append(Append("a", b"2", expected_sequence=0))).sequence == 3


async def test_one_of_many_contenders_wins(log: Log) -> None:
    sequence = (await log.append(Append("a", b"start"))).sequence
    for turn in range(5):
        entries = [Append("a", b"%d %d" % (turn, i), expected_sequence=sequence) for i in range(20)]
        answers = await asyncio.gather(*[log.append_many([entry]) for entry in entries])
        won = [answer for (answer,) in answers if isinstance(answer, Appended)]
        lost = [answer for (answer,) in answers if isinstance(answer, StaleSequence)]
        assert (len(won), len(lost)) == (1, 19)
        sequence = won[0].sequence


async def test_entries_are_independent(log: Log) -> None:
    answers = await log.append_many(
        [
            Append("a", b"1"),
            Append("a", b"x" * (MAX_RECORD_BYTES + 1)),
            Append("b", b"2", expected_sequence=5),
            Append("no subject", b"3"),
            Append("a", b"4"),
        ]
    )
    assert [type(answer) for answer in answers] == [Appended, TooLarge, StaleSequence, InvalidArgument, Appended]
    assert [record.payload for record in (await log.read(0)).records] == [b"1", b"4"]


@pytest.mark.parametrize("subject", ["", ".", "a.", ".a", "a..b", "a b", "a.*", ">", "é", "a\n"])
async def test_an_illegal_subject_is_refused(log: Log, subject: str) -> None:
    with pytest.raises(InvalidArgument) as raised:
        await log.append(Append(subject, b""))
    assert [violation.field for violation in raised.value.violations] == ["subject"]


async def test_any_id_is_legal_once_encoded(log: Log) -> None:
    ids = ["a", "a.b", "*", ">", " ", "ü/%?#", "\u4e16\u754c", "$SYS", "\x00", "%41", "x" * 128]
    for each in ids:
        await log.append(Append("places." + encode_token(each), each.encode()))
    for each in ids:
        record = await log.last("places." + encode_token(each))
        assert record is not None
        assert record.payload == each.encode()


async def test_a_subject_over_the_limit_is_refused_and_the_log_lives(log: Log) -> None:
    with pytest.raises(TooLarge):
        await log.append(Append("x" * 5000, b""))
    assert (await log.append(Append("x", b""))).sequence == 1


async def test_cancelling_the_answer_takes_nothing_back(log: Log) -> None:
    future = log.submit([Append("a", b"1")])
    future.cancel()
    assert (await log.append(Append("a", b"2"))).sequence == 2
    assert [record.payload for record in (await log.read(0)).records] == [b"1", b"2"]


async def test_closing_answers_what_waits(engine: Engine) -> None:
    async with engine.open(LogSettings("notes")) as store:
        futures = [store["notes"].submit([Append("a", b"%d" % i)]) for i in range(200)]
    assert [(await future)[0] for future in futures] == [Appended(i + 1, False) for i in range(200)]
    async with engine.open(LogSettings("notes")) as store:
        assert store["notes"].head == 200


async def test_logs_of_one_store_are_apart(engine: Engine) -> None:
    async with engine.open(LogSettings("one"), LogSettings("two")) as store:
        await store["one"].append(Append("a", b"1", "m"))
        assert await store["two"].append(Append("a", b"2", "m", expected_sequence=0)) == Appended(1, False)
        assert store["one"].epoch != store["two"].epoch
        assert [r.payload for r in (await store["one"].read(0)).records] == [b"1"]
        assert [r.payload for r in (await store["two"].read(0)).records] == [b"2"]
