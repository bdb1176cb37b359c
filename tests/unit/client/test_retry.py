"""Unary calls: what is tried again, how often, and until when."""

import asyncio
from typing import Any

import grpc
import pytest
from signpost import errors
from signpost.client.backoff import Backoff
from signpost.client.channels import Channels
from signpost.client.clock import FakeClock
from signpost.client.methods import DELETE_FENCE, GET_FEATURE
from signpost.client.retry import Retry, RetryBudget
from signpost.client.settings import RetrySettings

from protos.feature.v1 import feature_pb2 as fpb
from tests.support.ports import free_port
from tests.unit.client.scripted import answering, failing, serving

CODE = grpc.StatusCode
GET = fpb.GetFeatureRequest(id="a")
ANSWER = answering(lambda request: fpb.GetFeatureResponse(sequence=7))
DELETED = answering(lambda request: fpb.DeleteFenceResponse(deleted=True))


def _retry(channels: Channels, clock: FakeClock | None = None, **settings: float) -> Retry:
    return Retry(channels, RetrySettings(**settings), Backoff(), clock=clock or FakeClock(), random=lambda: 0.5)


async def test_a_passing_failure_is_tried_again_with_backoff() -> None:
    clock = FakeClock()
    async with serving({GET_FEATURE: [failing(CODE.UNAVAILABLE), failing(CODE.UNAVAILABLE), ANSWER]}) as server:
        channels = Channels(server.target, "")
        assert (await _retry(channels, clock).call(GET_FEATURE, GET)).sequence == 7
        await channels.close()
    assert clock.slept_s == [0.05, 0.1]
    assert server.calls["GetFeature"] == 3


async def test_retry_info_is_obeyed() -> None:
    clock = FakeClock()
    limited = failing(CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_s=3.0)
    async with serving({GET_FEATURE: [limited, ANSWER]}) as server:
        channels = Channels(server.target, "")
        await _retry(channels, clock).call(GET_FEATURE, GET)
        await channels.close()
    assert clock.slept_s == [3.05]


@pytest.mark.parametrize("code", [CODE.INVALID_ARGUMENT, CODE.PERMISSION_DENIED, CODE.UNIMPLEMENTED, CODE.INTERNAL])
async def test_what_trying_again_cannot_mend_surfaces_at_once(code: CODE) -> None:
    async with serving({GET_FEATURE: [failing(code), ANSWER]}) as server:
        channels = Channels(server.target, "")
        with pytest.raises(errors.SignpostError):
            await _retry(channels).call(GET_FEATURE, GET)
        await channels.close()
    assert server.calls["GetFeature"] == 1


async def test_a_call_that_is_not_repeatable_is_tried_again_only_after_a_refusal() -> None:
    request = fpb.DeleteFenceRequest(id="f")
    async with serving({DELETE_FENCE: [failing(CODE.UNAVAILABLE, "DRAINING"), DELETED]}) as server:
        channels = Channels(server.target, "")
        assert (await _retry(channels).call(DELETE_FENCE, request)).deleted
        await channels.close()
    async with serving({DELETE_FENCE: [failing(CODE.UNAVAILABLE), DELETED]}) as server:
        channels = Channels(server.target, "")
        with pytest.raises(errors.Unavailable):
            await _retry(channels).call(DELETE_FENCE, request)
        await channels.close()
    assert server.calls["DeleteFence"] == 1


async def test_the_deadline_bounds_all_tries_together() -> None:
    clock = FakeClock()
    async with serving({GET_FEATURE: [failing(CODE.UNAVAILABLE)]}) as server:
        channels = Channels(server.target, "")
        # Each try may take, of real time, what is left by the clock: 5 s at least.
        retry = Retry(channels, RetrySettings(), Backoff(first_s=2.0), clock=clock, random=lambda: 0.5)
        with pytest.raises(errors.Unavailable):
            await retry.call(GET_FEATURE, GET, timeout_s=20.0)
        await channels.close()
    assert clock.now_s() < 20.0
    assert server.calls["GetFeature"] == 5  # 1 + 2 + 4 + 8; 10 more would be too late


async def test_a_silent_try_is_given_up_for_another_connection() -> None:
    async def never(request: Any, context: Any) -> None:
        await asyncio.Event().wait()

    async with serving({GET_FEATURE: [never, ANSWER]}) as server:
        channels = Channels(server.target, "")
        first = channels.current
        assert (await _retry(channels, try_timeout_s=0.2).call(GET_FEATURE, GET)).sequence == 7
        assert channels.current is not first
        await channels.close()


async def test_the_budget_keeps_an_outage_from_being_made_worse() -> None:
    async with serving({GET_FEATURE: [failing(CODE.UNAVAILABLE)]}) as server:
        channels = Channels(server.target, "")
        retry = Retry(
            channels,
            RetrySettings(budget_refill_s=1e9),
            Backoff(first_s=0, cap_s=0),
            clock=FakeClock(),
        )
        for _ in range(200):
            with pytest.raises(errors.Unavailable):
                await retry.call(GET_FEATURE, GET, timeout_s=10)
        await channels.close()
    assert 200 + 20 <= server.calls["GetFeature"] <= 200 + 31  # ten in reserve, and one in ten


def test_the_reserve_comes_back_with_time() -> None:
    clock = FakeClock()
    budget = RetryBudget(RetrySettings(budget_reserve=2, budget_refill_s=60), clock)
    assert [budget.take() for _ in range(3)] == [True, True, False]
    clock.advance(30)
    assert [budget.take() for _ in range(2)] == [True, False]
    clock.advance(1e6)
    budget.called()
    assert budget.balance == 2


async def test_a_refused_token_is_refreshed_once() -> None:
    seen: list[str] = []
    tokens = iter(["old", "new", "newer"])

    async def check(request: Any, context: Any) -> fpb.GetFeatureResponse:
        token = dict(context.invocation_metadata())["authorization"]
        seen.append(token)
        if token != "Bearer new":
            await context.abort(CODE.UNAUTHENTICATED, "expired")
        return fpb.GetFeatureResponse(sequence=1)

    async def source() -> str:
        return next(tokens)

    async with serving({GET_FEATURE: [check]}) as server:
        channels = Channels(server.target, "", token=source)
        retry = _retry(channels)
        await retry.call(GET_FEATURE, GET)
        await retry.call(GET_FEATURE, GET)
        assert seen == ["Bearer old", "Bearer new", "Bearer new"]
        channels.refresh_token()
        with pytest.raises(errors.Unauthenticated):
            await _retry(Channels(server.target, "", token=lambda: "bad")).call(GET_FEATURE, GET)
        with pytest.raises(errors.Unauthenticated):
            await _retry(Channels(server.target, "", token="fixed")).call(GET_FEATURE, GET)  # noqa: S106 - no secret
        assert seen[3:] == ["Bearer bad", "Bearer bad", "Bearer fixed"]
        await channels.close()


async def test_several_addresses_are_tried_in_turn() -> None:
    async with serving({GET_FEATURE: [ANSWER]}) as server:
        for _ in range(4):  # the first one is drawn
            channels = Channels([f"127.0.0.1:{free_port()}", server.target], "")
            assert (await _retry(channels).call(GET_FEATURE, GET)).sequence == 7
            await channels.close()


async def test_a_cancelled_call_is_cancelled_on_the_server() -> None:
    began, ended = asyncio.Event(), asyncio.Event()

    async def wait(request: Any, context: Any) -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async with serving({GET_FEATURE: [wait]}) as server:
        channels = Channels(server.target, "")
        call = asyncio.create_task(_retry(channels).call(GET_FEATURE, GET))
        await began.wait()
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        async with asyncio.timeout(20):
            await ended.wait()
        await channels.close()


async def test_closing_the_channels_ends_what_is_open() -> None:
    began = asyncio.Event()

    async def wait(request: Any, context: Any) -> None:
        began.set()
        await asyncio.Event().wait()

    async with serving({GET_FEATURE: [wait]}) as server:
        channels = Channels(server.target, "")
        call = asyncio.create_task(_retry(channels, budget_reserve=0.5).call(GET_FEATURE, GET))
        await began.wait()
        await channels.close()
        with pytest.raises(errors.Unavailable) as caught:
            await call
        assert caught.value.reason == "CONNECTION_CLOSED"


async def test_a_connection_that_another_call_left_is_not_used() -> None:
    """The token takes a moment; meanwhile somebody else finds the connection dead."""
    channels: list[Channels] = []

    async def source() -> str:
        channels[0].leave(channels[0].current)
        await asyncio.sleep(0.05)
        return "token"

    async with serving({GET_FEATURE: [ANSWER]}) as server:
        channels.append(Channels(server.target, "", token=source))
        assert (await _retry(channels[0]).call(GET_FEATURE, GET)).sequence == 7
        await channels[0].close()


def test_no_target_is_refused() -> None:
    with pytest.raises(ValueError, match="no target"):
        Channels([], "")
