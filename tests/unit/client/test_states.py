"""The states of a connection."""

import asyncio
import logging

import pytest
from signpost.client.states import State, StateChange, Status
from signpost.errors import Unavailable


async def test_a_change_is_told_logged_and_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[StateChange] = []
    status = Status("watch", seen.append)
    assert status.state is State.CONNECTING
    waiting = asyncio.create_task(status.wait_for(State.CONNECTED))
    await asyncio.sleep(0)
    error = Unavailable("gone")
    with caplog.at_level(logging.INFO, "signpost.client"):
        status.move(State.RECONNECTING, error)
        status.move(State.RECONNECTING)
        await asyncio.sleep(0)
        assert not waiting.done()
        status.move(State.CONNECTED)
    assert await waiting is State.CONNECTED
    assert [c.state for c in seen] == [State.RECONNECTING, State.CONNECTED]
    assert seen[0].error is error
    assert status.last_error is error
    line = caplog.records[0]
    assert (line.stream, line.state, line.reason) == ("watch", "reconnecting", "UNAVAILABLE")  # type: ignore[attr-defined]
    assert "watch: connected" in repr(status)


async def test_closed_is_the_end_and_ends_every_wait() -> None:
    status = Status("list")
    waiting = asyncio.create_task(status.wait_for(State.CONNECTED))
    await asyncio.sleep(0)
    status.move(State.CLOSED)
    status.move(State.CONNECTED)
    assert await waiting is State.CLOSED


async def test_a_callback_that_raises_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    def callback(change: StateChange) -> None:
        raise RuntimeError("a bug of the caller's")

    status = Status("watch", callback)
    status.move(State.CONNECTED)
    assert status.state is State.CONNECTED
    assert "a state callback raised" in caplog.text
