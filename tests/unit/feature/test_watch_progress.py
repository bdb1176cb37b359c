"""Progress says that nothing has changed up to its position: never while something waits to be told."""

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import cast

from feature_service.items import to_item
from feature_service.records import put_payload, subject_of
from signpost.log import Append, positions

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import feature, parts


async def test_a_change_at_the_moment_of_progress_goes_first() -> None:
    async with parts() as replica:
        frames = cast(
            "AsyncGenerator[bytes, None]", replica.watcher.run(pb.WatchFeaturesRequest(progress_interval_ms=100))
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
        asyncio.get_running_loop().call_later(0.12, change)
        time.sleep(0.2)  # noqa: ASYNC251 - so that the loop finds both timers due at once, the watch's before this one
        frame = pb.WatchFeaturesResponse.FromString(await waiting)
        assert [each.id for each in frame.events.features] == ["a"]
        assert positions.decode(frame.position.token).sequence == 1
        await frames.aclose()
