"""The service's life: the seed contract, kill -9, restarts, draining, readers that stop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from protos.feature.v1 import feature_pb2 as pb
from protos.feature.v1 import feature_pb2_grpc
from tests.behaviour.feature.test_calls import around, bad_fields, load, next_frame, reason
from tests.support.services import ServiceProcess, running
from tests.unit.feature.inprocess import feature

Connected = tuple[ServiceProcess, grpc.aio.Channel]
SEED = "/stream_service.StreamService/ListFeatures"


@contextlib.asynccontextmanager
async def connected(directory: Path, *args: str) -> AsyncIterator[Connected]:
    async with (
        running("feature_service", directory, args=args) as service,
        grpc.aio.insecure_channel(service.target) as channel,
    ):
        yield service, channel


async def test_the_seed_contract_byte_for_byte(tmp_path: Path) -> None:
    """Nearest first, name and location only, one a message, over a stub that knows no protobuf."""
    async with connected(tmp_path, "--seed-limit=2") as (_, channel):
        stub = feature_pb2_grpc.FeatureServiceStub(channel)
        nameless = pb.Feature(id="c", location=pb.Point(latitude=3))
        position = (await load(stub, "places", [feature("a", 2, -1, x=1.0), feature("b", 90, 0), nameless])).position
        async for _ in stub.ListFeatures(around("places", position)):
            pass
        call = channel.unary_stream(SEED)  # type: ignore[call-arg] # bytes as they are
        answers = [answer async for answer in call(b"")]
        minus_one = b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"
        assert answers == [b"\x0a\x01A" + b"\x12\x0d\x08\x02\x10" + minus_one, b"\x12\x02\x08\x03"]
        with pytest.raises(grpc.aio.AioRpcError) as bad:
            await call(b"\x08" + b"\xff\xff\xff\xff\x07").read()
        assert bad_fields(bad.value) == ["latitude"]


async def test_fault_22_after_kill_everything_acknowledged_is_there_and_streams_go_on(tmp_path: Path) -> None:
    async with running("feature_service", tmp_path) as service:
        async with grpc.aio.insecure_channel(service.target) as channel:
            stub = feature_pb2_grpc.FeatureServiceStub(channel)
            position = (await load(stub, "places", [feature(f"f{n}", n, n) for n in range(3000)])).position
            request = around("places", position, limit=3000, batch_size=1000)
            call = stub.ListFeatures(request)
            first = await call.read()
            assert isinstance(first, pb.ListFeaturesResponse)
            call.cancel()
            watch = stub.WatchFeatures(pb.WatchFeaturesRequest(min_position=position))
            frame = await next_frame(watch)
            while not frame.HasField("caught_up"):
                frame = await next_frame(watch)
            watch.cancel()
            moved = await stub.PutFeature(pb.PutFeatureRequest(feature=feature("f2999", 7, 7)))
            service.kill()
        await service.start()
        async with grpc.aio.insecure_channel(service.target) as channel:
            stub = feature_pb2_grpc.FeatureServiceStub(channel)
            request.continuation = first.continuation
            seen = [each.id for each in first.features]
            seen += [each.id async for b in stub.ListFeatures(request) for each in b.features]
            assert seen == [f"f{n}" for n in range(2999)], "all but the one that has changed since the first batch"
            resumed = stub.WatchFeatures(pb.WatchFeaturesRequest(resume=frame.position))
            events, caught_up = await next_frame(resumed), await next_frame(resumed)
            assert [(e.id, e.location.latitude) for e in events.events.features] == [("f2999", 7)]
            assert caught_up.HasField("caught_up")
            resumed.cancel()
            got = await stub.GetFeature(pb.GetFeatureRequest(id="f2999"))
            assert got.sequence == moved.sequence


async def test_fault_12_a_watch_of_another_log_is_reset(tmp_path: Path) -> None:
    positions = []
    for name in ("one", "two"):
        async with connected(tmp_path / name) as (_, channel):
            stub = feature_pb2_grpc.FeatureServiceStub(channel)
            positions.append((await load(stub, "places", [feature(name, 1, 1)])).position)
            if name == "two":
                call = stub.WatchFeatures(pb.WatchFeaturesRequest(resume=positions[0]))
                frames = [await next_frame(call) for _ in range(3)]
                assert frames[0].reset.reason == "EPOCH_CHANGED"
                assert [each.id for each in frames[1].events.features] == ["two"]
                assert frames[2].caught_up.count == 1
                call.cancel()
                with pytest.raises(grpc.aio.AioRpcError) as late:
                    await stub.GetFeature(pb.GetFeatureRequest(id="two", min_position=positions[0]))
                assert reason(late.value) == "EPOCH_CHANGED"


async def test_fault_7_a_drain_moves_watches_and_ends_with_0(tmp_path: Path) -> None:
    async with connected(tmp_path) as (service, channel):
        stub = feature_pb2_grpc.FeatureServiceStub(channel)
        call = stub.WatchFeatures(pb.WatchFeaturesRequest())
        await next_frame(call)
        ending = asyncio.create_task(service.terminate())
        with pytest.raises(grpc.aio.AioRpcError) as moved:
            await call.read()
        assert (moved.value.code(), reason(moved.value)) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert await ending == 0


def resident_mib(service: ServiceProcess) -> float:
    return int(Path(f"/proc/{service.pid}/statm").read_text().split()[1]) * 4 / 1024


@pytest.mark.long
async def test_fault_17_readers_that_stop_cost_bounded_memory_and_miss_nothing(tmp_path: Path) -> None:
    """Twenty lists of 20 MB each that nobody reads, and a watch that is read again after 60 MB of changes."""
    text = "x" * 1000
    ids = [f"f{n}" for n in range(20_000)]
    async with connected(tmp_path) as (service, channel), contextlib.AsyncExitStack() as stack:
        stub = feature_pb2_grpc.FeatureServiceStub(channel)

        async def move_all(to: int) -> pb.Position:
            position = pb.Position()
            for begin in range(0, len(ids), 1000):
                batch = [feature(each, to, to, text=text) for each in ids[begin : begin + 1000]]
                position = (await load(stub, "places", batch)).position
            return position

        position = await move_all(1)
        watching = grpc.aio.insecure_channel(service.target, options=[("grpc.use_local_subchannel_pool", 1)])
        watch = feature_pb2_grpc.FeatureServiceStub(await stack.enter_async_context(watching)).WatchFeatures(
            pb.WatchFeaturesRequest(min_position=position)
        )
        held: dict[str, int] = {}
        frame = pb.WatchFeaturesResponse()
        while not frame.HasField("caught_up"):
            frame = await next_frame(watch)
            held.update((each.id, 1) for each in frame.events.features)
        assert len(held) == len(ids)
        before = resident_mib(service)
        listing = around("places", position, limit=len(ids))
        stopped = [stub.ListFeatures(listing) for _ in range(20)]
        for call in stopped:
            await call.read()
        for to in (2, 3, 4):
            position = await move_all(to)
        assert resident_mib(service) - before < 300, (
            "beside 125 MB for the log's tail and what died, the readers would cost 460"
        )

        events = 0
        while events < 3 * len(ids):
            frame = await next_frame(watch)
            assert set(frame.events.kinds) <= {pb.EVENT_KIND_MOVED}
            for each in frame.events.features:
                assert each.location.latitude == held[each.id] + 1
                held[each.id] += 1
                events += 1
        for call in stopped:
            call.cancel()
