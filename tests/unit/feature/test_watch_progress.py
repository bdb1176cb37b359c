"""The seams of a watch: nothing is passed over by progress, and nothing told twice."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import cast

import pytest
from feature_service import watches
from feature_service.items import to_item
from feature_service.records import put_payload, subject_of
from signpost.log import Append, positions

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import feature, parts


async def test_a_change_at_the_moment_of_progress_goes_first() -> None:
    async with parts() as replica:
        frames = cast(
            "AsyncGenerator[bytes, None]", replica.watcher.run(pb.WatchFeaturesRequest(progress_interval_ms=500))
        )
        first = pb.WatchFeaturesResponse.FromString(await anext(frames))
        assert first.HasField("caught_up")

        def change() -> None:
            payload = put_payload(to_item(feature("a", 1, 1).SerializeToString()))
            stored = replica.log.submit([Append(subject_of("places", "a"), payload)])
            assert stored.done()
            (record,) = replica.log._contents.records  # type: ignore[attr-defined] # the log in memory's
            replica.projection._apply([record], record.sequence, replica.log.position_of(record))

        waiting = asyncio.ensure_future(anext(frames))
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_later(0.52, change)
        time.sleep(0.6)  # noqa: ASYNC251 - so that the loop finds both timers due at once, the watch's before this one
        frame = pb.WatchFeaturesResponse.FromString(await waiting)
        assert [each.id for each in frame.events.features] == ["a"]
        assert positions.decode(frame.position.token).sequence == 1
        await frames.aclose()


async def test_a_watch_that_has_read_ahead_and_falls_behind_repeats_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def append(names: str) -> None:
        payloads = [(name, put_payload(to_item(feature(name, 1, 1).SerializeToString()))) for name in names]
        replica.log.submit([Append(subject_of("places", name), payload) for name, payload in payloads])

    monkeypatch.setattr(watches, "MOST_EVENTS", 2)
    async with parts() as replica:
        await replica.put(feature("a", 1, 1))
        resume = pb.WatchFeaturesRequest(resume=pb.Position(sequence=1))
        frames = cast("AsyncGenerator[bytes, None]", replica.watcher.run(resume))

        async def events() -> list[tuple[int, str]]:
            frame = pb.WatchFeaturesResponse.FromString(await anext(frames))
            return list(zip(frame.events.kinds, [each.id for each in frame.events.features], strict=True))

        append("bcd")
        assert await events() == [(pb.EVENT_KIND_PRESENT, name) for name in "bcd"]
        assert await events() == []
        assert replica.projection.applied == 1, "the watch is ahead of the index"
        append("efgh")
        assert await events() == [(pb.EVENT_KIND_ENTERED, name) for name in "efgh"]
        await frames.aclose()
