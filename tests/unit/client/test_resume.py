"""The resume layer alone, over a service that is not Signpost's: it counts, and each number is its position."""

import asyncio
import gc
from typing import Any

import grpc
import pytest
from google.protobuf.wrappers_pb2 import UInt64Value
from signpost import errors
from signpost.client.backoff import Backoff
from signpost.client.channels import Channels
from signpost.client.methods import bidi_stream, server_stream
from signpost.client.reconnect import Reconnector
from signpost.client.resume import ResumableStream
from signpost.client.settings import StreamSettings
from signpost.client.states import State, StateChange, Status

from tests.unit.client.scripted import Script, fail, failing_stream, serving

CODE = grpc.StatusCode
COUNT = server_stream("/demo.Counter/Count", UInt64Value, UInt64Value)
COUNT_BOTH_WAYS = bidi_stream("/demo.Counter/CountBothWays", UInt64Value, UInt64Value)
DRAINING = 0  # as a number that is no position

Numbers = ResumableStream[UInt64Value, UInt64Value, int]


def counting(to: int, *, then: Script | None = None) -> Script:
    """Counts from the position up to a number, then ends with OK or as told."""

    async def script(request: Any, context: Any) -> Any:
        if not isinstance(request, UInt64Value):
            request = await context.read()
        for number in range(request.value + 1, to + 1):
            yield UInt64Value(value=number)
        if then is not None:
            async for message in then(request, context):
                yield message

    return script


async def silent(request: Any, context: Any) -> Any:
    await asyncio.Event().wait()
    yield


def stream_of(channels: Channels, method: Any = COUNT, **more: Any) -> Numbers:
    seen = more.pop("on_state", None)
    silence_s = more.pop("silence_s", None)
    reconnector = Reconnector(
        channels,
        Status("count", seen),
        backoff=more.pop("backoff", Backoff(first_s=0.001, cap_s=0.01)),
        settings=StreamSettings(**{"connect_timeout_s": 10.0, **more}),
    )
    return ResumableStream(
        reconnector,
        method,
        lambda position: UInt64Value(value=position or 0),
        lambda message: message.value,
        silence_s=silence_s,
        is_draining=lambda message: message.value == DRAINING,
    )


@pytest.mark.parametrize("method", [COUNT, COUNT_BOTH_WAYS])
async def test_every_message_comes_once_and_in_order_however_often_it_breaks(method: Any) -> None:
    broken = failing_stream(CODE.UNAVAILABLE)
    changes: list[StateChange] = []
    scripts = [counting(3, then=broken), broken, broken, counting(7, then=broken), counting(10)]
    async with serving({method: scripts}) as server:
        channels = Channels(server.target, "")
        stream = stream_of(channels, method, on_state=changes.append)
        got = []
        async for message in stream:
            got.append(message.value)
            assert stream.position == message.value
        await channels.close()
    assert got == list(range(1, 11))
    assert [c.state for c in changes] == [
        State.CONNECTED,
        State.RECONNECTING,
        State.CONNECTED,
        State.RECONNECTING,
        State.CONNECTED,
        State.CLOSED,
    ]
    assert stream.status.state is State.CLOSED


async def test_fault_10_a_caller_that_times_out_its_own_wait_loses_nothing() -> None:
    async with serving({COUNT: [counting(2, then=silent), counting(3, then=silent), counting(5)]}) as server:
        channels = Channels(server.target, "")
        stream = stream_of(channels)
        got = []
        for count in (2, 1):
            got += [(await anext(stream)).value for _ in range(count)]
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(stream)
            await server.none_open()
        got += [message.value async for message in stream]
        await channels.close()
    assert got == [1, 2, 3, 4, 5]


async def test_fault_10_a_stream_that_is_left_is_cancelled_on_the_server() -> None:
    async with serving({COUNT: [counting(2, then=silent)]}) as server:
        channels = Channels(server.target, "")
        async for _ in stream_of(channels):
            break
        gc.collect()
        await server.none_open()
        async with stream_of(channels) as stream:
            await anext(stream)
        await server.none_open()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await channels.close()


async def test_closing_ends_a_caller_in_another_task_and_leaves_the_connection_to_others() -> None:
    async with serving({COUNT: [counting(1, then=silent)]}) as server:
        channels = Channels(server.target, "")
        stream, channel = stream_of(channels), channels.current
        await anext(stream)
        reading = asyncio.create_task(stream.__anext__())
        await asyncio.sleep(0)
        await stream.aclose()
        async with asyncio.timeout(20):
            with pytest.raises(StopAsyncIteration):
                await reading
        assert channels.current is channel
        await channels.close()


async def test_fault_5_silence_is_a_dead_connection() -> None:
    async with serving({COUNT: [counting(2, then=silent), silent, counting(4)]}) as server:
        channels = Channels(server.target, "")
        stream = stream_of(channels, silence_s=0.2, connect_timeout_s=0.5)
        assert [message.value async for message in stream] == [1, 2, 3, 4]
        assert stream.status.last_error is not None
        assert stream.status.last_error.reason == "SILENT"
        await channels.close()


async def test_a_slow_caller_is_not_silence() -> None:
    async with serving({COUNT: [counting(3)]}) as server:
        channels = Channels(server.target, "")
        got = []
        async for message in stream_of(channels, silence_s=0.5):
            got.append(message.value)
            await asyncio.sleep(0.6)
        await channels.close()
    assert got == [1, 2, 3]
    assert server.calls["Count"] == 1


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (CODE.INVALID_ARGUMENT, errors.InvalidArgument),
        (CODE.PERMISSION_DENIED, errors.PermissionDenied),
        (CODE.UNAUTHENTICATED, errors.Unauthenticated),
        (CODE.UNIMPLEMENTED, errors.Unimplemented),
    ],
)
async def test_what_a_reconnect_cannot_mend_surfaces_at_once(code: CODE, kind: type[errors.SignpostError]) -> None:
    async with serving({COUNT: [counting(1, then=failing_stream(code))]}) as server:
        channels = Channels(server.target, "")
        stream = stream_of(channels)
        assert (await anext(stream)).value == 1
        with pytest.raises(kind):
            await anext(stream)
        assert stream.status.state is State.CLOSED
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        await channels.close()
    assert server.calls["Count"] == 1


async def test_a_servers_own_fault_is_tried_again_a_few_times() -> None:
    async with serving({COUNT: [failing_stream(CODE.INTERNAL)]}) as server:
        channels = Channels(server.target, "")
        with pytest.raises(errors.Internal):
            await anext(stream_of(channels, fault_limit=3))
        await channels.close()
    assert server.calls["Count"] == 3


async def test_an_expired_token_is_refreshed_once_for_each_time_it_expires() -> None:
    tokens = iter("abcdef")

    async def check(request: Any, context: Any) -> Any:
        token = dict(context.invocation_metadata())["authorization"][-1]
        if token in "ac":
            await fail(context, CODE.UNAUTHENTICATED)
        yield UInt64Value(value=request.value + 1)
        await fail(context, CODE.UNAUTHENTICATED if request.value < 1 else CODE.PERMISSION_DENIED)

    async with serving({COUNT: [check]}) as server:
        channels = Channels(server.target, "", token=lambda: next(tokens))
        stream = stream_of(channels)
        assert (await anext(stream)).value == 1  # a was refused, b was good
        with pytest.raises(errors.Unauthenticated):
            await anext(stream)  # b expired, c was refused: not a third
        await channels.close()


async def test_fault_7_draining_moves_before_the_break_with_no_duplicate() -> None:
    old_open = asyncio.Event()

    async def draining(request: Any, context: Any) -> Any:
        yield UInt64Value(value=1)
        yield UInt64Value(value=DRAINING)
        yield UInt64Value(value=2)  # on its way while the client moves
        try:
            await asyncio.Event().wait()
        finally:
            old_open.set()

    async with serving({COUNT: [draining]}) as old, serving({COUNT: [counting(4)]}) as new:
        channels = Channels([old.target, new.target], "")
        channels._index = 0
        changes: list[State] = []
        stream = stream_of(channels, on_state=lambda change: changes.append(change.state))
        assert [message.value async for message in stream] == [1, 2, 3, 4]
        async with asyncio.timeout(20):
            await old_open.wait()
        assert changes == [State.CONNECTED, State.DRAINING, State.CONNECTED, State.CLOSED]
        assert new.requests[0].value == 1
        await channels.close()


async def test_fault_7_where_no_other_server_answers_the_draining_one_goes_on_to_its_end() -> None:
    async def draining(request: Any, context: Any) -> Any:
        yield UInt64Value(value=1)
        yield UInt64Value(value=DRAINING)
        yield UInt64Value(value=2)

    async with serving({COUNT: [draining, failing_stream(CODE.UNAVAILABLE, "DRAINING")]}) as server:
        channels = Channels(server.target, "")
        assert [message.value async for message in stream_of(channels)] == [1, 2]
        await channels.close()


async def test_a_caller_that_leaves_while_it_moves_leaves_nothing_open() -> None:
    async def draining(request: Any, context: Any) -> Any:
        yield UInt64Value(value=DRAINING)
        await asyncio.Event().wait()

    async with serving({COUNT: [draining, silent]}) as server:
        channels = Channels(server.target, "")
        stream = stream_of(channels)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.15):
                await anext(stream)
        await server.none_open()
        await channels.close()


async def test_the_backoff_grows_over_connections_that_die_at_once() -> None:
    waits: list[float] = []

    class Watching:
        def now_s(self) -> float:
            return 0.0

        async def sleep(self, delay_s: float) -> None:
            waits.append(delay_s)

    broken = failing_stream(CODE.UNAVAILABLE)
    async with serving({COUNT: [counting(n, then=broken) for n in range(1, 5)] + [counting(5)]}) as server:
        channels = Channels(server.target, "")
        reconnector = Reconnector(channels, clock=Watching(), random=lambda: 0.5)
        stream: Numbers = ResumableStream(reconnector, COUNT, lambda p: UInt64Value(value=p or 0), lambda m: m.value)
        assert [m.value async for m in stream] == [1, 2, 3, 4, 5]
        await channels.close()
    assert waits == [0.05, 0.1, 0.2, 0.4]


async def test_a_connection_that_another_call_left_is_not_used() -> None:
    async with serving({COUNT: [counting(3)], COUNT_BOTH_WAYS: [counting(3)]}) as server:
        for method in (COUNT, COUNT_BOTH_WAYS):
            channels = Channels(server.target, "", token=lambda: _leave(channels))  # noqa: B023 - called in this round
            assert [m.value async for m in stream_of(channels, method)] == [1, 2, 3]
            await channels.close()


async def _leave(channels: Channels) -> str:
    channels.leave(channels.current)
    await asyncio.sleep(0.05)
    return "token"


async def test_a_closed_client_ends_its_streams() -> None:
    async with serving({COUNT: [counting(1, then=silent)]}) as server:
        channels = Channels(server.target, "")
        stream = stream_of(channels)
        await anext(stream)
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0.05)
        await channels.close()
        with pytest.raises(errors.Unavailable) as caught:
            await reading
        assert caught.value.reason == "CLIENT_CLOSED"
