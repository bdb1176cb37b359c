"""The feature client over scripted calls: lists that break, writes that are seen, fences, shapes."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from signpost import errors
from signpost.client import Box, Circle, EventKind, Feature, FeatureClient, Fence, Filter, Polygon, State
from signpost.client.features import to_timestamp
from signpost.client.geo import to_value
from signpost.client.methods import (
    DELETE_FEATURE,
    DELETE_FENCE,
    GET_FEATURE,
    IMPORT_FEATURES,
    LIST_FEATURES,
    LIST_FENCES,
    NEAREST_FEATURES,
    PUT_FEATURE,
    PUT_FENCE,
    WATCH_FEATURES,
)

from protos.feature.v1 import feature_pb2 as fpb
from tests.unit.client.scripted import FAST, Script, answering, fail, failing, serving

CODE = grpc.StatusCode


def batch(*numbers: int, last: bool = False, distances: bool = True) -> fpb.ListFeaturesResponse:
    return fpb.ListFeaturesResponse(
        features=[fpb.Feature(id=str(n), location=fpb.Point(latitude=n)) for n in numbers],
        distances_m=[n * 1.5 for n in numbers] if distances else [],
        sequences=[n + 100 for n in numbers],
        change_times_ns=[n + 200 for n in numbers],
        continuation=b"" if last else b"after %d" % numbers[-1],
        snapshot=fpb.Position(token=b"snap"),
    )


def batches(*messages: fpb.ListFeaturesResponse, end: Any = None) -> Script:
    async def script(request: Any, context: Any) -> Any:
        for message in messages:
            yield message
        if end is not None:
            await fail(context, end)

    return script


async def test_fault_1_a_list_goes_on_with_its_token_and_nothing_twice() -> None:
    scripts = [
        batches(batch(1, 2), batch(3, 4), end=CODE.UNAVAILABLE),
        batches(end=CODE.UNAVAILABLE),
        batches(batch(5, last=True), end=CODE.UNAVAILABLE),  # the cut between the last batch and the status
    ]
    async with serving({LIST_FEATURES: scripts}) as server, FeatureClient(server.target, settings=FAST) as client:
        found = client.list((1.0, 2.0), limit=5, read_mask=["name"])
        got = []
        tokens = []
        async for feature in found:
            got.append((feature.id, feature.distance_m, feature.sequence, feature.change_time_ns))
            tokens.append(found.continuation)
        assert found.status.state is State.CLOSED
        assert found.snapshot is not None
        assert found.snapshot.token == b"snap"
        assert found.continuation == b""
    assert got == [(str(n), n * 1.5, n + 100, n + 200) for n in range(1, 6)]
    assert tokens == [b"", b"", b"after 2", b"after 2", b"after 4"]  # only of batches that were handed over whole
    assert [r.continuation for r in server.requests] == [b"", b"after 4", b"after 4"]
    assert all(r.limit == 5 and r.origin.latitude == 10**7 for r in server.requests)


async def test_a_list_goes_on_elsewhere_with_a_stored_token() -> None:
    async with (
        serving({LIST_FEATURES: [batches(batch(7, 8, last=True))]}) as server,
        FeatureClient(server.target, settings=FAST) as client,
    ):
        found = [b async for b in client.list(area=Box(0, 0, 1, 1), continuation=b"after 6").batches()]
    assert server.requests[0].continuation == b"after 6"
    assert [f.id for f in found[0]] == ["7", "8"]
    assert found[0][1].sequence == 108
    assert [f.id for f in found[0][:1]] == ["7"]


async def test_a_list_without_an_origin_has_no_distances() -> None:
    message = fpb.ListFeaturesResponse(features=[fpb.Feature(id="a")])
    async with serving({LIST_FEATURES: [batches(message)]}) as server:
        async with FeatureClient(server.target, settings=FAST) as client, client.list(area=Box(0, 0, 1, 1)) as found:
            feature = await anext(found)
            assert (feature.distance_m, feature.sequence) == (None, 0)
            with pytest.raises(StopAsyncIteration):
                await anext(found)
        async with FeatureClient(server.target, settings=FAST) as client:
            (one,) = [b async for b in client.list(area=Box(0, 0, 1, 1)).batches()]
            assert one[0].distance_m is None


async def test_reads_wait_for_what_this_client_wrote() -> None:
    sequences = iter([5, 3, 9])

    def put(request: fpb.PutFeatureRequest) -> fpb.PutFeatureResponse:
        assert request.message_id
        sequence = next(sequences)
        return fpb.PutFeatureResponse(sequence=sequence, position=fpb.Position(token=b"p%d" % sequence))

    scripts: dict[Any, list[Script]] = {
        PUT_FEATURE: [answering(put)],
        GET_FEATURE: [answering(lambda r: fpb.GetFeatureResponse(feature=fpb.Feature(id=r.id), sequence=4))],
        LIST_FEATURES: [batches(batch(1, last=True))],
        DELETE_FEATURE: [
            answering(
                lambda r: fpb.DeleteFeatureResponse(deleted=True, sequence=9, position=fpb.Position(token=b"p9"))
            ),
            answering(lambda r: fpb.DeleteFeatureResponse()),
        ],
    }
    async with serving(scripts) as server, FeatureClient(server.target, settings=FAST) as client:
        await client.get("a")
        for _ in range(2):
            await client.put(Feature("a", 1, 2))
        assert client.min_position == b"p5"  # the highest, not the last
        assert (await client.get("a")).sequence == 4
        deleted = await client.delete("a", expected_sequence=5)
        assert (deleted.deleted, deleted.sequence) == (True, 9)
        assert not (await client.delete("a")).deleted
        async for _ in client.list((0, 0)):
            pass
    reads = [r for r in server.requests if hasattr(r, "min_position")]
    assert [r.min_position.token for r in reads] == [b"", b"p5", b"p9"]


async def test_an_import_beside_puts_leaves_the_highest_position() -> None:
    sequences = iter([5, 9])

    def put(request: fpb.PutFeatureRequest) -> fpb.PutFeatureResponse:
        sequence = next(sequences)
        return fpb.PutFeatureResponse(sequence=sequence, position=fpb.Position(token=b"p%d" % sequence))

    async def importing(requests: Any, context: Any) -> Any:
        async for request in requests:
            answer = fpb.ImportFeaturesResponse(id=request.id)
            if at := {1: 4, 2: 7}.get(request.id, 0):
                answer.position.token, answer.sequence = b"i%d" % at, at
            yield answer

    features = [Feature(f"f{n}", 1, 2) for n in range(3)]
    async with (
        serving({PUT_FEATURE: [answering(put)], IMPORT_FEATURES: [importing]}) as server,
        FeatureClient(server.target, settings=FAST) as client,
    ):
        await client.put(Feature("a", 1, 2))
        seen = [client.min_position async for _ in client.import_features(features, batch_size=1)]
        assert seen == [b"p5", b"i7", b"i7"]  # the last batch wrote nothing
        await client.put(Feature("a", 1, 2))
        assert client.min_position == b"p9"


async def test_a_restored_log_does_not_fail_reads_for_ever() -> None:
    def get(request: fpb.GetFeatureRequest) -> fpb.GetFeatureResponse:
        return fpb.GetFeatureResponse(sequence=1)

    scripts: dict[Any, list[Script]] = {
        PUT_FEATURE: [answering(lambda r: fpb.PutFeatureResponse(sequence=5, position=fpb.Position(token=b"old")))],
        GET_FEATURE: [failing(CODE.OUT_OF_RANGE, "EPOCH_CHANGED"), answering(get), failing(CODE.OUT_OF_RANGE)],
    }
    async with serving(scripts) as server, FeatureClient(server.target, settings=FAST) as client:
        await client.put(Feature("a", 1, 2))
        assert (await client.get("a")).sequence == 1
        assert client.min_position == b""
        with pytest.raises(errors.PositionError):
            await client.get("a")


async def test_a_restored_log_does_not_fail_streams_for_ever() -> None:
    async def nearest(requests: Any, context: Any) -> Any:
        async for request in requests:
            if request.HasField("min_position"):
                await fail(context, CODE.OUT_OF_RANGE, "EPOCH_CHANGED")
            yield fpb.NearestFeaturesResponse(id=request.id, counts=[0] * len(request.latitudes))

    def restored(answer: Any) -> Script:
        async def script(request: Any, context: Any) -> Any:
            if request.HasField("min_position"):
                await fail(context, CODE.OUT_OF_RANGE, "EPOCH_CHANGED")
            yield answer

        return script

    scripts: dict[Any, list[Script]] = {
        PUT_FEATURE: [answering(lambda r: fpb.PutFeatureResponse(sequence=5, position=fpb.Position(token=b"old")))],
        LIST_FEATURES: [restored(batch(1, last=True))],
        WATCH_FEATURES: [restored(fpb.WatchFeaturesResponse(caught_up=fpb.CaughtUp()))],
        NEAREST_FEATURES: [nearest],
    }
    async with serving(scripts) as server, FeatureClient(server.target, settings=FAST) as client:
        await client.put(Feature("a", 1, 2))
        assert [feature.id async for feature in client.list((1, 2))] == ["1"]
        assert client.min_position == b""
        await client.put(Feature("a", 1, 2))
        async with client.watch() as watch:
            assert (await anext(watch)).kind is EventKind.CAUGHT_UP
        await client.put(Feature("a", 1, 2))
        assert len([found async for found in client.nearest([(1, 2)] * 3, batch_size=1)]) == 3
        assert client.min_position == b""
        watch = client.watch(min_position=b"the caller's own")
        with pytest.raises(errors.EpochChanged):
            await anext(watch)


async def test_a_read_that_takes_too_long_cuts_no_stream_of_the_client() -> None:
    over = asyncio.Event()

    async def watching(request: Any, context: Any) -> Any:
        yield fpb.WatchFeaturesResponse(caught_up=fpb.CaughtUp())
        await over.wait()

    async def never(request: Any, context: Any) -> None:
        await over.wait()

    async with (
        serving({WATCH_FEATURES: [watching], GET_FEATURE: [never]}) as server,
        FeatureClient(server.target, settings=FAST) as client,
        client.watch() as watch,
    ):
        await anext(watch)
        with pytest.raises(errors.DeadlineExceeded):
            await client.get("a", timeout_s=0.05)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(server.ended.wait(), 1.2)
        over.set()
        (left,) = client._channels._retiring
    assert not left.cancelled(), "it is closed, and its connection with it"


async def test_fences() -> None:
    stored: list[fpb.Fence] = []

    def put(request: fpb.PutFenceRequest) -> fpb.PutFenceResponse:
        stored.append(request.fence)
        answer = fpb.PutFenceResponse(fence=request.fence)
        answer.fence.uid, answer.fence.revision = "u1", 2
        return answer

    def listed(request: fpb.ListFencesRequest) -> fpb.ListFencesResponse:
        number = int(request.page_token or 0)
        return fpb.ListFencesResponse(fences=[fpb.Fence(id=str(number))], next_page_token="" if number else "1")

    scripts: dict[Any, list[Script]] = {
        PUT_FENCE: [answering(put)],
        LIST_FENCES: [answering(listed)],
        DELETE_FENCE: [answering(lambda r: fpb.DeleteFenceResponse(deleted=r.notify_left))],
    }
    moment = datetime(2030, 1, 1, tzinfo=UTC)
    fence = Fence("f", Circle((1, 2), 50), events=("entered", "dwelled"), dwell_s=2.5, expire_time=moment)
    async with serving(scripts) as server, FeatureClient(server.target, settings=FAST) as client:
        put_fence = await client.put_fence(fence)
        assert (put_fence.uid, put_fence.revision, put_fence.events) == ("u1", 2, ("entered", "dwelled"))
        assert (put_fence.dwell_s, put_fence.expire_time) == (2.5, moment)
        again = await client.put_fence(put_fence)  # what was read can be put
        assert again.id == "f"
        assert [f.id async for f in client.list_fences()] == ["0", "1"]
        assert await client.delete_fence("f", notify_left=True)
        assert not await client.delete_fence("f")
    assert stored[0].dwell_time_ms == 2500
    assert stored[1].area == stored[0].area
    with pytest.raises(ValueError, match="unknown fence events"):
        Fence("f", None, events=("gone",)).to_proto()


def test_shapes_filters_and_values_take_their_wire_form() -> None:
    polygon = Polygon([(0, 0), (0, 10), (10, 0)], holes=[[(1, 1), (1, 2), (2, 1)]]).to_area().polygon
    assert list(polygon.exterior.longitudes) == [0, 10**8, 0]
    assert len(polygon.holes) == 1
    assert Box(-1, 179, 1, -179).to_area().box.east == -179 * 10**7
    assert Filter("a", "exists").to_proto().property == "a"
    assert not Filter("a", "exists").to_proto().HasField("value")
    assert Filter("a", "in", [1, "x", True, None]).to_proto().value.list_value.values[1].string_value == "x"
    kinds = [to_value(v).WhichOneof("kind") for v in (None, True, 1, 1.5, "x", [1], {"a": 1})]
    assert kinds == [
        "null_value",
        "bool_value",
        "number_value",
        "number_value",
        "string_value",
        "list_value",
        "struct_value",
    ]
    with pytest.raises(ValueError, match="unknown operator"):
        Filter("a", "~").to_proto()
    for wrong in (float("nan"), float("inf"), 1e9):
        with pytest.raises(ValueError, match="not an angle"):
            Feature("a", wrong, 0)


def test_a_feature_reads_back_what_it_was_made_of() -> None:
    moment = datetime(2030, 1, 1, 12, tzinfo=UTC)
    feature = Feature("a", 48.8566, -2.3522, name="Paris", properties={"n": 1, "s": ["x"]}, expire_time=moment)
    assert (feature.id, feature.name, feature.latitude, feature.longitude) == ("a", "Paris", 48.8566, -2.3522)
    assert feature.properties == {"n": 1, "s": ["x"]}
    assert feature.expire_time == moment
    assert "Paris" in repr(feature)
    bare = Feature("b", 0, 0)
    assert (bare.properties, bare.expire_time) == ({}, None)


def test_properties_are_sorted_by_name_at_every_depth() -> None:
    names = [f"n{n}" for n in range(9)]
    deep = dict.fromkeys(reversed(names), 1.0)
    feature = Feature("a", 0, 0, properties={**dict.fromkeys(reversed(names), "x"), "n4": [deep], "n5": deep})
    properties = feature.properties
    assert [list(properties), list(properties["n4"][0]), list(properties["n5"])] == [names] * 3
    with pytest.raises(ValueError, match="time zone"):
        to_timestamp(datetime(2030, 1, 1))
