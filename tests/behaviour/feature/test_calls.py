"""What each method of feature.v1.FeatureService does, against the real process, on both engines."""

import asyncio
import math
import time
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import feature

if TYPE_CHECKING:
    from protos.feature.v1.feature_pb2_grpc import FeatureServiceAsyncStub as Stub

    Watch = grpc.aio.UnaryStreamCall[pb.WatchFeaturesRequest, pb.WatchFeaturesResponse]

DetailT = TypeVar("DetailT", bound=Message)


def details(error: grpc.aio.AioRpcError, kind: type[DetailT]) -> DetailT:
    """A detail of a status."""
    trailing: Any = error.trailing_metadata()
    for key, value in trailing:
        if key == "grpc-status-details-bin":
            for any_of in status_pb2.Status.FromString(value).details:
                found = kind()
                if any_of.Unpack(found):
                    return found
    raise AssertionError(f"no {kind.__name__} in {error!r}")


def reason(error: grpc.aio.AioRpcError) -> str:
    info = details(error, error_details_pb2.ErrorInfo)
    assert info.domain == "signpost"
    return str(info.reason)


def bad_fields(error: grpc.aio.AioRpcError) -> list[str]:
    bad = details(error, error_details_pb2.BadRequest)
    return sorted(violation.field for violation in bad.field_violations)


async def load(stub: "Stub", collection: str, features: list[pb.Feature]) -> pb.ImportFeaturesResponse:
    request = pb.ImportFeaturesRequest(id=1, collection=collection, features=features)
    (answer,) = [answer async for answer in stub.ImportFeatures(iter([request]))]
    assert not answer.errors
    return answer


def around(collection: str, position: pb.Position, **fields: object) -> pb.ListFeaturesRequest:
    made = pb.ListFeaturesRequest(collection=collection, min_position=position, **fields)  # type: ignore[arg-type]
    made.origin.SetInParent()
    return made


async def test_put_get_and_delete_recognise_retries_and_stale_writes(stub: "Stub", collection: str) -> None:
    made = feature("bus 7", 5, -5, line=7.0)
    put = await stub.PutFeature(pb.PutFeatureRequest(collection=collection, feature=made, message_id="m1"))
    again = await stub.PutFeature(
        pb.PutFeatureRequest(collection=collection, feature=made, message_id="m1", expected_sequence=0)
    )
    assert (again.sequence, again.duplicate, put.duplicate) == (put.sequence, True, False)
    got = await stub.GetFeature(pb.GetFeatureRequest(collection=collection, id="bus 7", min_position=put.position))
    assert (got.feature, got.sequence) == (made, put.sequence)
    assert abs(got.change_time_ns - time.time_ns()) < 60e9
    masked = await stub.GetFeature(
        pb.GetFeatureRequest(collection=collection, id="bus 7", read_mask=["name", "properties.line"])
    )
    assert masked.feature == pb.Feature(name="BUS 7", properties=made.properties)

    with pytest.raises(grpc.aio.AioRpcError) as stale:
        await stub.PutFeature(pb.PutFeatureRequest(collection=collection, feature=made, expected_sequence=0))
    assert (stale.value.code(), reason(stale.value)) == (grpc.StatusCode.ABORTED, "STALE_SEQUENCE")

    deletion = pb.DeleteFeatureRequest(collection=collection, id="bus 7", message_id="m2")
    deleted = await stub.DeleteFeature(deletion)
    retried = await stub.DeleteFeature(deletion)
    assert (deleted.deleted, deleted.duplicate) == (True, False)
    assert (retried.deleted, retried.duplicate, retried.sequence) == (True, True, deleted.sequence)
    for message_id in ("", "m3"):
        absent = await stub.DeleteFeature(
            pb.DeleteFeatureRequest(collection=collection, id="bus 7", message_id=message_id)
        )
        assert (absent.deleted, absent.sequence) == (False, 0)
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await stub.GetFeature(pb.GetFeatureRequest(collection=collection, id="bus 7", min_position=deleted.position))
    assert (missing.value.code(), reason(missing.value)) == (grpc.StatusCode.NOT_FOUND, "FEATURE_NOT_FOUND")
    back = await stub.PutFeature(pb.PutFeatureRequest(collection=collection, feature=made, expected_sequence=0))
    with pytest.raises(grpc.aio.AioRpcError) as stale:
        await stub.DeleteFeature(
            pb.DeleteFeatureRequest(collection=collection, id="bus 7", expected_sequence=put.sequence)
        )
    assert reason(stale.value) == "STALE_SEQUENCE"
    await stub.DeleteFeature(
        pb.DeleteFeatureRequest(collection=collection, id="bus 7", expected_sequence=back.sequence)
    )


async def test_a_list_is_nearest_first_in_batches_and_goes_on_by_its_token(stub: "Stub", collection: str) -> None:
    grid = [feature(f"g{n:04}", n // 50 * 1000, n % 50 * 1000) for n in range(2500)]
    loaded = await load(stub, collection, grid)
    assert (loaded.written, loaded.unchanged) == (2500, 0)
    batches = [b async for b in stub.ListFeatures(around(collection, loaded.position, limit=2500))]
    ids = [each.id for batch in batches for each in batch.features]
    distances = [distance for batch in batches for distance in batch.distances_m]
    assert sorted(ids) == [each.id for each in grid]
    assert list(zip(distances, ids, strict=True)) == sorted(zip(distances, ids, strict=True))
    assert [bool(batch.continuation) for batch in batches] == [True] * (len(batches) - 1) + [False]
    assert len({batch.snapshot.token for batch in batches}) == 1

    request = around(collection, loaded.position, limit=2500)
    for number, batch in enumerate(batches[:-1]):
        request.continuation = batch.continuation
        rest = [each.id async for b in stub.ListFeatures(request) for each in b.features]
        assert rest == ids[sum(len(b.features) for b in batches[: number + 1]) :]
    request.limit = 7
    with pytest.raises(grpc.aio.AioRpcError) as other:
        await stub.ListFeatures(request).read()
    assert reason(other.value) == "INVALID_CONTINUATION"

    unchanged = await load(stub, collection, grid)
    assert (unchanged.written, unchanged.unchanged) == (0, 2500)
    limited = [b async for b in stub.ListFeatures(around(collection, loaded.position))]
    assert [each.id for b in limited for each in b.features] == ids[:100]
    masked = [b async for b in stub.ListFeatures(around(collection, loaded.position, limit=1, read_mask=["id"]))]
    assert masked[0].features[0] == pb.Feature(id=ids[0])
    empty = [b async for b in stub.ListFeatures(around(collection + "x", loaded.position))]
    assert [len(b.features) for b in empty] == [0]


async def test_fault_32_filters_are_typed_and_a_missing_property_is_null(stub: "Stub", collection: str) -> None:
    rows = {
        "number": feature("number", 1, 1, a=0.0),
        "text": feature("text", 2, 2, a="0"),
        "flag": feature("flag", 3, 3, a=False),
        "null": feature("null", 4, 4, a=None),
        "missing": feature("missing", 5, 5),
    }
    rows["nested"] = feature("nested", 6, 6)
    rows["nested"].properties.update({"b": {"c": 5.0}})
    position = (await load(stub, collection, list(rows.values()))).position

    async def matching(key: str, operator: "pb.FilterOperator", value: object = ...) -> set[str]:
        chosen = pb.Filter(property=key, operator=operator)
        if isinstance(value, list):
            chosen.value.list_value.extend(value)
        elif value is None:
            chosen.value.null_value = 0  # type: ignore[assignment]
        elif isinstance(value, bool):
            chosen.value.bool_value = value
        elif isinstance(value, str):
            chosen.value.string_value = value
        elif isinstance(value, float):
            chosen.value.number_value = value
        request = around(collection, position, filters=[chosen])
        return {each.id async for b in stub.ListFeatures(request) for each in b.features}

    everything = set(rows)
    assert await matching("a", pb.FILTER_OPERATOR_EQUAL, 0.0) == {"number"}
    assert await matching("a", pb.FILTER_OPERATOR_EQUAL, False) == {"flag"}
    assert await matching("a", pb.FILTER_OPERATOR_EQUAL, None) == {"null", "missing", "nested"}
    assert await matching("a", pb.FILTER_OPERATOR_NOT_EQUAL, 0.0) == everything - {"number"}
    assert await matching("a", pb.FILTER_OPERATOR_LESS, 1.0) == {"number"}
    assert await matching("a", pb.FILTER_OPERATOR_LESS_OR_EQUAL, 0.0) == {"number"}
    assert await matching("a", pb.FILTER_OPERATOR_GREATER, -1.0) == {"number"}
    assert await matching("a", pb.FILTER_OPERATOR_GREATER_OR_EQUAL, "0") == {"text"}
    assert await matching("a", pb.FILTER_OPERATOR_IN, ["0", None]) == {"text", "null", "missing", "nested"}
    assert await matching("a", pb.FILTER_OPERATOR_EXISTS) == {"number", "text", "flag"}
    assert await matching("a", pb.FILTER_OPERATOR_PREFIX, "") == {"text"}
    assert await matching("b.c", pb.FILTER_OPERATOR_GREATER, 4.5) == {"nested"}
    assert await matching("b", pb.FILTER_OPERATOR_EXISTS) == {"nested"}


async def test_fault_29_every_bad_field_is_named(stub: "Stub") -> None:
    request = pb.ListFeaturesRequest(batch_size=20_000, read_mask=["nonsense"])
    request.origin.latitude = 900_000_001
    request.area.circle.center.longitude = -1_800_000_001
    request.area.circle.radius_m = float("nan")
    request.filters.add(property="", operator=pb.FILTER_OPERATOR_LESS).value.number_value = float("inf")
    with pytest.raises(grpc.aio.AioRpcError) as bad:
        await stub.ListFeatures(request).read()
    assert bad.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert bad_fields(bad.value) == [
        "area.circle.center.longitude",
        "area.circle.radius_m",
        "batch_size",
        "filters[0].property",
        "filters[0].value",
        "origin.latitude",
        "read_mask[0]",
    ]
    with pytest.raises(grpc.aio.AioRpcError) as nothing:
        await stub.ListFeatures(pb.ListFeaturesRequest()).read()
    assert bad_fields(nothing.value) == ["origin"]
    ring = pb.Ring(latitudes=[0, 1, 900_000_001], longitudes=[0, 1])
    with pytest.raises(grpc.aio.AioRpcError) as polygon:
        await stub.ListFeatures(
            pb.ListFeaturesRequest(area=pb.Area(polygon=pb.Polygon(exterior=ring, holes=[pb.Ring()])))
        ).read()
    assert bad_fields(polygon.value) == [
        "area.polygon.exterior.latitudes[2]",
        "area.polygon.exterior.longitudes",
        "area.polygon.holes[0].latitudes",
    ]
    with pytest.raises(grpc.aio.AioRpcError) as put:
        await stub.PutFeature(pb.PutFeatureRequest(feature=pb.Feature(name="x" * 1025)))
    assert bad_fields(put.value) == ["feature.id", "feature.location", "feature.name"]


async def test_fault_19_a_put_is_refused_by_its_field_or_where_it_is_too_large_unread(stub: "Stub") -> None:
    with pytest.raises(grpc.aio.AioRpcError) as over:
        await stub.PutFeature(pb.PutFeatureRequest(feature=feature("f", 0, 0, text="x" * (64 << 10))))
    assert (over.value.code(), bad_fields(over.value)) == (grpc.StatusCode.INVALID_ARGUMENT, ["feature.properties"])
    far_over = pb.PutFeatureRequest(feature=feature("f", 0, 0, text="x" * 100_000))
    with pytest.raises(grpc.aio.AioRpcError) as large:
        await stub.PutFeature(far_over)
    assert (large.value.code(), reason(large.value)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_LARGE")
    told = details(large.value, error_details_pb2.ErrorInfo).metadata
    assert told == {"sizeBytes": str(far_over.ByteSize()), "limitBytes": str(67 * 1024)}


async def test_import_names_bad_items_and_keeps_the_order_of_the_good(stub: "Stub", collection: str) -> None:
    wrong = feature("wrong", 0, 1_800_000_001)
    large, far_over = feature("large", 0, 0, text="x" * (64 << 10)), feature("large", 0, 0, text="x" * 70_000)
    endless = feature("endless", 0, 0)
    endless.properties.update({"trip": {"stops": [1.0, math.nan], "price": 1e308}, "speed": math.inf, "age": -math.inf})
    requests = [
        pb.ImportFeaturesRequest(id=5, collection=collection, features=[feature("a", 0, 0), wrong, pb.Feature(id="b")]),
        pb.ImportFeaturesRequest(
            id=3, collection=collection, features=[feature("a", 1, 1), large, far_over, feature("a", 2, 2)]
        ),
        pb.ImportFeaturesRequest(id=9, collection=collection, features=[feature("a", 1, 1), endless]),
    ]
    answers = [answer async for answer in stub.ImportFeatures(iter(requests))]
    assert [answer.id for answer in answers] == [5, 3, 9]
    assert [answer.written for answer in answers] == [1, 2, 1]
    assert [(e.index, e.reason, e.field) for e in answers[0].errors] == [
        (1, "INVALID_LOCATION", "location.longitude"),
        (2, "INVALID_LOCATION", "location"),
    ]
    assert [(e.index, e.reason) for e in answers[1].errors] == [(1, "INVALID_PROPERTIES"), (2, "TOO_LARGE")]
    assert [(e.index, e.reason, e.field) for e in answers[2].errors] == [
        (1, "INVALID_PROPERTIES", "properties.age"),
        (1, "INVALID_PROPERTIES", "properties.speed"),
        (1, "INVALID_PROPERTIES", "properties.trip.stops[1]"),
    ]
    got = await stub.GetFeature(pb.GetFeatureRequest(collection=collection, id="a", min_position=answers[2].position))
    assert (got.feature, got.sequence) == (feature("a", 1, 1), answers[2].sequence)
    with pytest.raises(grpc.aio.AioRpcError) as bad:
        await stub.ImportFeatures(iter([pb.ImportFeaturesRequest()])).read()
    assert bad_fields(bad.value) == ["features", "id"]


async def test_nearest_answers_each_request_in_order(stub: "Stub", collection: str) -> None:
    line = [feature(f"n{n}", 0, n * 1000) for n in range(100)]
    position = (await load(stub, collection, line)).position
    requests = [
        pb.NearestFeaturesRequest(
            id=8, collection=collection, latitudes=[0, 0], longitudes=[400, 98_900], k=2, min_position=position
        ),
        pb.NearestFeaturesRequest(id=2, collection=collection, latitudes=[0], longitudes=[0, 5], k=1001),
        pb.NearestFeaturesRequest(
            id=3,
            collection=collection,
            latitudes=[0],
            longitudes=[0],
            k=10,
            max_distance_m=23,
            content=pb.NEAREST_CONTENT_FEATURES,
        ),
        pb.NearestFeaturesRequest(
            id=4, collection=collection, latitudes=[0], longitudes=[0], content=pb.NEAREST_CONTENT_DISTANCES
        ),
        pb.NearestFeaturesRequest(id=5, collection="nothing here", latitudes=[0], longitudes=[0]),
    ]
    first, wrong, whole, distances, empty = [answer async for answer in stub.NearestFeatures(iter(requests))]
    assert (first.id, list(first.counts), list(first.ids)) == (8, [2, 2], ["n0", "n1", "n99", "n98"])
    assert first.distances_m[0] == pytest.approx(4.448, abs=0.001)
    assert (wrong.id, wrong.error.field) == (2, "longitudes")
    assert (whole.id, list(whole.features), list(whole.ids)) == (3, line[:3], [])
    assert (distances.id, list(distances.distances_m), list(distances.ids)) == (4, [0.0], [])
    assert (empty.id, list(empty.counts)) == (5, [0])


async def next_frame(call: "Watch") -> pb.WatchFeaturesResponse:
    frame = await call.read()
    assert isinstance(frame, pb.WatchFeaturesResponse)
    return frame


async def test_a_watch_tells_every_change_and_resumes(stub: "Stub", collection: str) -> None:
    position = (await load(stub, collection, [feature("in", 5, 5), feature("out", 500, 500)])).position
    request = pb.WatchFeaturesRequest(collection=collection, min_position=position, progress_interval_ms=100)
    request.area.box.CopyFrom(pb.Box(south=0, west=0, north=10, east=10))
    condition = request.filters.add(property="off", operator=pb.FILTER_OPERATOR_NOT_EQUAL)
    condition.value.bool_value = True
    call = stub.WatchFeatures(request)
    snapshot, caught_up = await next_frame(call), await next_frame(call)
    assert [each.id for each in snapshot.events.features] == ["in"]
    assert caught_up.caught_up.count == 1

    async def change(**put: object) -> None:
        made = feature(**put)  # type: ignore[arg-type]
        await stub.PutFeature(pb.PutFeatureRequest(collection=collection, feature=made))

    await change(key="out", latitude=1, longitude=1)
    await change(key="in", latitude=6, longitude=6)
    await change(key="in", latitude=6, longitude=6, off=True)
    await change(key="out", latitude=11, longitude=1)
    await change(key="gone", latitude=1, longitude=1)
    await stub.DeleteFeature(pb.DeleteFeatureRequest(collection=collection, id="gone"))
    told: list[tuple[int, str, int]] = []
    last = b""
    while len(told) < 6:
        frame = await next_frame(call)
        events = frame.events
        told += zip(events.kinds, [each.id for each in events.features], events.left_reasons, strict=True)
        last = frame.position.token
    assert told == [
        (pb.EVENT_KIND_ENTERED, "out", 0),
        (pb.EVENT_KIND_MOVED, "in", 0),
        (pb.EVENT_KIND_LEFT, "in", pb.LEFT_REASON_FILTER),
        (pb.EVENT_KIND_LEFT, "out", pb.LEFT_REASON_MOVED),
        (pb.EVENT_KIND_ENTERED, "gone", 0),
        (pb.EVENT_KIND_LEFT, "gone", pb.LEFT_REASON_DELETED),
    ]
    progress = await next_frame(call)
    assert progress.WhichOneof("frame") == "progress"
    call.cancel()

    await change(key="out", latitude=2, longitude=2)
    request.resume.token = last
    resumed = stub.WatchFeatures(request)
    frame, caught_up = await next_frame(resumed), await next_frame(resumed)
    assert list(frame.events.kinds) == [pb.EVENT_KIND_PRESENT]
    assert caught_up.WhichOneof("frame") == "caught_up"
    resumed.cancel()

    request.resume.sequence = 1 << 40
    with pytest.raises(grpc.aio.AioRpcError) as ahead:
        await stub.WatchFeatures(request).read()
    assert (ahead.value.code(), reason(ahead.value)) == (grpc.StatusCode.OUT_OF_RANGE, "POSITION_AHEAD")


async def test_fault_31_a_feature_expires_within_a_second_and_once(stub: "Stub", collection: str) -> None:
    request = pb.WatchFeaturesRequest(collection=collection)
    call = stub.WatchFeatures(request)
    await next_frame(call)
    made = feature("brief", 0, 0)
    expires_ns = time.time_ns() + 2_000_000_000
    made.expire_time.FromNanoseconds(expires_ns)
    await stub.PutFeature(pb.PutFeatureRequest(collection=collection, feature=made))
    entered, left = await next_frame(call), await next_frame(call)
    assert list(entered.events.kinds) == [pb.EVENT_KIND_ENTERED]
    assert list(left.events.left_reasons) == [pb.LEFT_REASON_EXPIRED]
    assert 0 <= left.events.change_times_ns[0] - expires_ns < 1_000_000_000
    with pytest.raises(grpc.aio.AioRpcError) as missing:
        await stub.GetFeature(pb.GetFeatureRequest(collection=collection, id="brief"))
    assert reason(missing.value) == "FEATURE_NOT_FOUND"
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.2):
            await call.read()


async def test_fault_14_waiting_for_a_position_ends_with_the_deadline_or_a_reason(stub: "Stub") -> None:
    request = pb.GetFeatureRequest(id="x", min_position=pb.Position(sequence=1 << 40))
    with pytest.raises(grpc.aio.AioRpcError) as late:
        await stub.GetFeature(request, timeout=0.3)
    assert late.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_position_that_is_none_is_named_by_its_field(stub: "Stub") -> None:
    wrong = pb.Position(token=b"not a token")
    origin = pb.Point(latitude=1, longitude=1)
    calls: list[tuple[str, Any]] = [
        ("min_position.token", stub.GetFeature(pb.GetFeatureRequest(id="x", min_position=wrong))),
        ("min_position.token", stub.ListFeatures(pb.ListFeaturesRequest(origin=origin, min_position=wrong)).read()),
        ("min_position.token", stub.WatchFeatures(pb.WatchFeaturesRequest(min_position=wrong)).read()),
        ("resume.token", stub.WatchFeatures(pb.WatchFeaturesRequest(resume=wrong)).read()),
    ]
    for field, call in calls:
        with pytest.raises(grpc.aio.AioRpcError) as malformed:
            await call
        assert reason(malformed.value) == "POSITION_MALFORMED"
        assert bad_fields(malformed.value) == [field]
    requests = [
        pb.NearestFeaturesRequest(id=1, latitudes=[1], longitudes=[1], min_position=wrong),
        pb.NearestFeaturesRequest(id=2, latitudes=[1], longitudes=[1]),
    ]
    refused, answered = [answer async for answer in stub.NearestFeatures(iter(requests))]
    assert (refused.error.reason, refused.error.field) == ("POSITION_MALFORMED", "min_position.token")
    assert (answered.id, answered.HasField("error")) == (2, False)
