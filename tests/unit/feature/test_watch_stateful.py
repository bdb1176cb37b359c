"""After anything that happens, the set that a client rebuilds from events is what a fresh list returns."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, cast

import feature_service.watches
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from signpost.log import LogSettings, Retention, positions

from protos.feature.v1 import feature_pb2 as pb
from tests.unit.feature.inprocess import feature, features_of, parts
from tests.unit.feature.rebuilt import Rebuilt, Watched, ids, kinds, places, watched

HISTORY = LogSettings("features", Retention(max_records=8, keep_last=True))
"""So short that some resumes come too late."""

names = count()


class Client(Rebuilt):
    """One that reads a watcher's frames."""

    frames: AsyncGenerator[bytes, None] | None = None


class Watching(RuleBasedStateMachine):
    """Puts, moves, deletes, expiries, disconnects, resumes, slow readers, restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.name = f"watch{next(names)}"
        self.now = 1_000_000_000_000_000_000
        self.client = Client()
        self.stalled = False

    def do(self, coroutine: Any) -> Any:
        return self.runner.run(coroutine)

    @initialize(what=watched)
    def start(self, what: Watched) -> None:
        self.request, self.listing = what.request(), what.listing()
        self.do(self._open())

    async def _open(self) -> None:
        self.parts = await self.stack.enter_async_context(parts(self.name, HISTORY, lambda: self.now))
        self._connect()

    def _connect(self) -> None:
        request = pb.WatchFeaturesRequest()
        request.CopyFrom(self.request)
        if self.client.position:
            request.resume.token = self.client.position
        self.client.live = False
        self.client.frames = cast("AsyncGenerator[bytes, None]", self.parts.watcher.run(request))

    async def _disconnect(self) -> None:
        if self.client.frames is not None:
            await self.client.frames.aclose()
            self.client.frames = None

    @rule(key=ids, place=places, kind=kinds, expires_in_s=st.sampled_from([None, None, 1, 5]))
    def put(self, key: str, place: tuple[int, int], kind: str | None, expires_in_s: int | None) -> None:
        made = feature(key, *place, kind=kind) if kind else feature(key, *place)
        if expires_in_s:
            made.expire_time.seconds = self.now // 1_000_000_000 + expires_in_s
        self.do(self.parts.put(made))

    @rule(keys=st.lists(ids, min_size=9, max_size=12), place=places)
    def rush(self, keys: list[str], place: tuple[int, int]) -> None:
        """More changes than the history holds."""
        for key in keys:
            self.do(self.parts.put(feature(key, *place)))

    @rule(key=ids)
    def delete(self, key: str) -> None:
        self.do(self.parts.writer.delete("places", key))

    @rule(seconds=st.sampled_from([1, 3]))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds * 1_000_000_000
        self.do(self._expire())

    async def _expire(self) -> None:
        await self.parts.projection.wait_for(self.parts.log.head)
        await self.parts.expiry.expire_due()

    @rule(kept=st.booleans())
    def reconnect(self, kept: bool) -> None:
        """With its position and set, or as a new program."""
        self.do(self._disconnect())
        if not kept:
            self.client = Client()
        self._connect()
        self.stalled = False

    @rule()
    def stall(self) -> None:
        self.stalled = True

    @rule()
    def restart(self) -> None:
        self.do(self._restart())
        self.stalled = False

    async def _restart(self) -> None:
        await self._disconnect()
        await self.stack.aclose()
        await self._open()

    @rule()
    def read(self) -> None:
        self.stalled = False

    @invariant()
    def same_as_a_fresh_list(self) -> None:
        if not self.stalled and self.client.frames is not None:
            self.do(self._compare())

    async def _compare(self) -> None:
        client, log = self.client, self.parts.log
        await self.parts.projection.wait_for(log.head)
        assert client.frames is not None
        async with asyncio.timeout(30):
            while not (client.live and positions.decode(client.position).sequence == log.head):
                client.take(pb.WatchFeaturesResponse.FromString(await anext(client.frames)))
        assert client.held == features_of(await self.parts.list(self.listing))

    def teardown(self) -> None:
        self.do(self._disconnect())
        self.do(self.stack.aclose())
        self.runner.close()


@pytest.mark.parametrize("most_events", [10_000, 1])
def test_fault_31_the_rebuilt_set_is_the_listed_set(most_events: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one event a slow reader falls back to the log all the time."""
    monkeypatch.setattr(feature_service.watches, "MOST_EVENTS", most_events)
    Watching.TestCase.settings = settings(max_examples=25, stateful_step_count=30)
    Watching.TestCase().runTest()
