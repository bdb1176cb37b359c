"""Positions: tokens that are checked before reading goes on."""

import pytest
from signpost.errors import EpochChanged, InvalidArgument, LogRewound, PositionAhead
from signpost.log import Append, Log, LogSettings
from signpost.log import positions as tokens

from tests.contract.engines import Engine


async def test_a_position_resolves_to_its_sequence(log: Log) -> None:
    await log.append_many([Append("a", b"%d" % i) for i in range(300)])
    for sequence in (0, 1, 127, 128, 300):
        token = await log.position(sequence)
        assert len(token) <= 32
        assert await log.resolve(token) == sequence
    page = await log.read(10, limit=5)
    assert [log.position_of(record) for record in page.records] == [await log.position(s) for s in range(11, 16)]
    assert page.position == log.position_of(page.records[-1])


async def test_a_position_outlives_a_restart(engine: Engine) -> None:
    async with engine.open(LogSettings("notes")) as store:
        await store["notes"].append_many([Append("a", b"1"), Append("a", b"2")])
        token = await store["notes"].position(1)
        epoch = store["notes"].epoch
    async with engine.open(LogSettings("notes")) as store:
        assert store["notes"].epoch == epoch
        assert await store["notes"].resolve(token) == 1
        assert [record.payload for record in (await store["notes"].read(1)).records] == [b"2"]


async def test_fault_12_a_recreated_log_is_noticed(engine: Engine) -> None:
    async with engine.open(LogSettings("notes")) as store:
        await store["notes"].append(Append("a", b"1"))
        token = await store["notes"].position(1)
        start = await store["notes"].position(0)
    await engine.wipe()
    async with engine.open(LogSettings("notes")) as store:
        await store["notes"].append(Append("a", b"1"))
        for old in (token, start):
            with pytest.raises(EpochChanged) as raised:
                await store["notes"].resolve(old)
            assert raised.value.first_available == 1


async def test_fault_12_a_rewound_log_is_noticed(log: Log) -> None:
    await log.append_many([Append("a", b"1"), Append("a", b"2")])
    here = tokens.decode(await log.position(2))
    with pytest.raises(LogRewound):
        await log.resolve(tokens.encode(here.epoch, 2, here.check ^ 1))
    with pytest.raises(LogRewound):
        await log.resolve(tokens.encode(here.epoch, 1, here.check))


async def test_fault_14_a_position_ahead_of_the_head(log: Log) -> None:
    await log.append(Append("a", b"1"))
    with pytest.raises(PositionAhead) as raised:
        await log.resolve(tokens.encode(log.epoch, 2, 5))
    assert raised.value.first_available == 1


async def test_bytes_that_are_no_position(log: Log) -> None:
    token = await log.position(0)
    for wrong in (b"", b"1", token[:-1], token + b"\0", b"\x02" + token[1:], b"x" * 40):
        with pytest.raises(InvalidArgument):
            await log.resolve(wrong)
