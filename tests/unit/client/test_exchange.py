"""Exchanges: every request answered once, in order; only the unanswered sent again."""

import asyncio
from collections.abc import AsyncIterator
from operator import attrgetter
from typing import Any

import grpc
import pytest
from signpost import errors
from signpost.client import Feature, FeatureClient, NearestFeature
from signpost.client.backoff import Backoff
from signpost.client.channels import Channels
from signpost.client.exchange import Exchange
from signpost.client.methods import IMPORT_FEATURES, NEAREST_FEATURES
from signpost.client.reconnect import Reconnector
from signpost.client.states import State

from protos.feature.v1 import feature_pb2 as fpb
from tests.unit.client.scripted import FAST, Script, fail, failing_stream, serving

CODE = grpc.StatusCode
Import = Exchange[fpb.ImportFeaturesRequest, fpb.ImportFeaturesResponse]


def acknowledging(seen: list[int], *, at_most: int = 1_000_000, code: Any = CODE.UNAVAILABLE) -> Script:
    """Answers so many batches, then fails."""

    async def script(requests: Any, context: Any) -> Any:
        left = at_most
        async for request in requests:
            seen.append(request.id)
            if not left:
                await fail(context, code)
            left -= 1
            yield fpb.ImportFeaturesResponse(id=request.id, written=len(request.features))

    return script


def exchange_of(channels: Channels, source: Any, window: int = 3) -> Import:
    reconnector = Reconnector(channels, backoff=Backoff(first_s=0.001, cap_s=0.01))
    return Exchange(reconnector, IMPORT_FEATURES, source, attrgetter("id"), window=window, silence_s=10)


def requests(count: int) -> list[fpb.ImportFeaturesRequest]:
    return [fpb.ImportFeaturesRequest(id=n) for n in range(1, count + 1)]


async def test_only_the_unanswered_are_sent_again() -> None:
    seen: list[int] = []
    scripts = [acknowledging(seen, at_most=2), failing_stream(CODE.UNAVAILABLE), acknowledging(seen, at_most=5)]
    async with serving({IMPORT_FEATURES: [*scripts, acknowledging(seen)]}) as server:
        channels = Channels(server.target, "")
        exchange = exchange_of(channels, requests(10))
        got = [(request.id, answer.id) async for request, answer in exchange]
        await channels.close()
    assert got == [(n, n) for n in range(1, 11)]
    assert all(seen.count(n) <= 3 for n in range(1, 11))
    assert seen[:3] == [1, 2, 3]
    assert 1 not in seen[3:]
    assert exchange.status.state is State.CLOSED


async def test_the_source_is_asked_for_no_more_than_the_window() -> None:
    taken: list[int] = []
    answer = asyncio.Event()

    async def source() -> AsyncIterator[fpb.ImportFeaturesRequest]:
        for request in requests(10):
            taken.append(request.id)
            yield request

    async def waiting(requests: Any, context: Any) -> Any:
        async for request in requests:
            await answer.wait()
            yield fpb.ImportFeaturesResponse(id=request.id)

    async with serving({IMPORT_FEATURES: [waiting]}) as server:
        channels = Channels(server.target, "")
        exchange = exchange_of(channels, source())
        first = asyncio.create_task(anext(exchange))
        await asyncio.sleep(0.1)
        assert len(taken) <= 4  # the window, and the one that waits for room
        answer.set()
        await first
        assert len([1 async for _ in exchange]) == 9
        await channels.close()


async def test_what_the_source_raises_comes_to_the_caller() -> None:
    def source() -> Any:
        yield from requests(2)
        raise OSError("the file is gone")

    async with serving({IMPORT_FEATURES: [acknowledging([])]}) as server:
        channels = Channels(server.target, "")
        with pytest.raises(OSError, match="the file is gone"):
            async for _ in exchange_of(channels, source()):
                pass
        await channels.close()


async def test_an_answer_to_nothing_ends_it() -> None:
    async def wrong(requests: Any, context: Any) -> Any:
        async for _ in requests:
            yield fpb.ImportFeaturesResponse(id=99)

    async with serving({IMPORT_FEATURES: [wrong]}) as server:
        channels = Channels(server.target, "")
        with pytest.raises(errors.Internal, match="answer 99 came for request 1"):
            await anext(exchange_of(channels, requests(1)))
        await channels.close()


async def test_a_final_error_surfaces_and_an_early_end_does_not() -> None:
    async def early(requests: Any, context: Any) -> Any:
        async for request in requests:
            yield fpb.ImportFeaturesResponse(id=request.id)
            return

    async with serving(
        {IMPORT_FEATURES: [early, early, acknowledging([], at_most=1, code=CODE.PERMISSION_DENIED)]}
    ) as s:
        channels = Channels(s.target, "")
        exchange = exchange_of(channels, requests(5))
        got = []
        with pytest.raises(errors.PermissionDenied):  # noqa: PT012 - how far it came matters
            async for request, _ in exchange:
                got.append(request.id)
        assert got[:3] == [1, 2, 3]
        with pytest.raises(StopAsyncIteration):
            await anext(exchange)
        await channels.close()


async def test_fault_10_a_caller_that_stops_leaves_nothing_open() -> None:
    async def silent(requests: Any, context: Any) -> Any:
        async for _ in requests:
            pass
        yield

    async def endless() -> AsyncIterator[fpb.ImportFeaturesRequest]:
        yield fpb.ImportFeaturesRequest(id=1)
        await asyncio.Event().wait()

    async with serving({IMPORT_FEATURES: [silent]}) as server:
        channels = Channels(server.target, "")
        async with exchange_of(channels, endless()) as exchange:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await anext(exchange)
        await server.none_open()
        await channels.close()


async def test_closing_ends_a_caller_that_waits_for_the_source() -> None:
    async def source() -> AsyncIterator[fpb.ImportFeaturesRequest]:
        yield fpb.ImportFeaturesRequest(id=1)
        await asyncio.Event().wait()

    async with serving({IMPORT_FEATURES: [acknowledging([])]}) as server:
        channels = Channels(server.target, "")
        exchange = exchange_of(channels, source())
        await anext(exchange)
        reading = asyncio.create_task(exchange.__anext__())
        await asyncio.sleep(0)
        await exchange.aclose()
        async with asyncio.timeout(20):
            with pytest.raises(StopAsyncIteration):
                await reading
        await channels.close()


async def test_nothing_to_send_needs_no_server() -> None:
    channels = Channels("127.0.0.1:1", "")
    assert [pair async for pair in exchange_of(channels, [])] == []
    await channels.close()


async def test_import_counts_and_renumbers_the_refused() -> None:
    async def refusing(requests: Any, context: Any) -> Any:
        async for request in requests:
            bad = [i for i, f in enumerate(request.features) if f.id == "bad"]
            yield fpb.ImportFeaturesResponse(
                id=request.id,
                written=len(request.features) - len(bad),
                errors=[fpb.ItemError(index=i, reason="INVALID_ID", field="id", description="bad") for i in bad],
                position=fpb.Position(token=b"p%d" % request.id),
                sequence=request.id,
            )

    features = [Feature("bad" if n in (4, 7) else f"f{n}", 1.5, 2.5) for n in range(8)]
    async with serving({IMPORT_FEATURES: [refusing]}) as server, FeatureClient(server.target, settings=FAST) as client:
        progress = [p async for p in client.import_features(features, batch_size=3)]
        assert client.min_position == b"p3"
    assert [p.written for p in progress] == [3, 5, 6]
    assert progress[-1].refused == 2
    assert [e.index for p in progress for e in p.errors] == [4, 7]


async def test_import_batches_stay_below_half_of_the_message_limit() -> None:
    sizes: list[int] = []

    async def measuring(requests: Any, context: Any) -> Any:
        async for request in requests:
            sizes.append(request.ByteSize())
            yield fpb.ImportFeaturesResponse(id=request.id)

    async def features() -> AsyncIterator[Feature]:
        for n in range(10):
            yield Feature(f"f{n}", 0, 0, name="x" * 1_000_000)

    async with serving({IMPORT_FEATURES: [measuring]}) as server, FeatureClient(server.target, settings=FAST) as client:
        assert len([p async for p in client.import_features(features())]) == 5
    assert max(sizes) < 2.1 * (1 << 20)


async def test_nearest_gives_each_origin_its_neighbours_in_order() -> None:
    async def nearest(requests: Any, context: Any) -> Any:
        async for request in requests:
            count = len(request.latitudes)
            names = [f"{latitude}:{i}" for latitude in request.latitudes for i in range(request.k)]
            answer = fpb.NearestFeaturesResponse(
                id=request.id, counts=[request.k] * count, distances_m=[1.5] * len(names)
            )
            if request.content == fpb.NEAREST_CONTENT_FEATURES:
                answer.features.extend([fpb.Feature(id=n) for n in names])
            else:
                answer.ids.extend(names)
            yield answer

    origins = [(float(n), 0.0) for n in range(5)]
    async with serving({NEAREST_FEATURES: [nearest]}) as server, FeatureClient(server.target, settings=FAST) as client:
        found = [f async for f in client.nearest(origins, k=2, batch_size=2)]
        whole = [f async for f in client.nearest(origins[:1], whole=True)]
    assert [[n.id for n in f] for f in found] == [[f"{n * 10**7}:0", f"{n * 10**7}:1"] for n in range(5)]
    assert found[0][0] == NearestFeature("0:0", 1.5)
    assert whole[0][0].feature is not None
    assert whole[0][0].feature.distance_m == 1.5


async def test_a_refused_batch_of_origins_raises() -> None:
    async def refusing(requests: Any, context: Any) -> Any:
        async for request in requests:
            error = fpb.ItemError(reason="INVALID_K", field="k", description="too many")
            yield fpb.NearestFeaturesResponse(id=request.id, error=error)

    async with serving({NEAREST_FEATURES: [refusing]}) as server, FeatureClient(server.target, settings=FAST) as client:
        with pytest.raises(errors.InvalidArgument) as caught:
            _ = [f async for f in client.nearest([(0, 0)], k=5000)]
    assert caught.value.reason == "INVALID_K"
    assert caught.value.violations[0].field == "k"
