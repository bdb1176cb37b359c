"""After anything that happens, the set rebuilt from a watch is what a fresh list returns: real service, both engines.

Two clients watch the same through a proxy that breaks connections: one reads the frames as a client in any language
would, the other is the library. To compare, a marker is put that every watch sees: what has it has all before it.
"""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, ClassVar

import grpc
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from signpost.client import Backoff, ClientSettings, EventKind, Feature, FeatureClient, RetrySettings
from signpost.errors import NotFound

from protos.feature.v1 import feature_pb2 as pb
from protos.feature.v1 import feature_pb2_grpc
from tests.support.proxy import Direction, FaultProxy
from tests.support.services import ServiceProcess
from tests.unit.feature.rebuilt import PLACES, Rebuilt, Watched, ids, kinds, places, watched

Place = tuple[int, int]
Change = tuple[str, Place | None, str | None]
changes: st.SearchStrategy[list[Change]] = st.lists(
    st.tuples(ids, st.sampled_from((*PLACES, None, None)), kinds), min_size=1, max_size=6
)
"""Of a feature: put somewhere, or deleted."""
PATIENT = ClientSettings(backoff=Backoff(cap_s=0.2), retry=RetrySettings(timeout_s=60.0, budget_reserve=1000.0))
"""Writes outlast a restart."""
MARKER = "marker"
RESTARTS = 1
"""In an example: they are what takes time."""

names = count()


def at(key: str, place: Place, kind: str | None = None, expires_in_s: float | None = None) -> Feature:
    expire_time = None if expires_in_s is None else datetime.now(UTC) + timedelta(seconds=expires_in_s)
    latitude, longitude = place[0] / 1e7, place[1] / 1e7
    return Feature(key, latitude, longitude, properties={"kind": kind} if kind else None, expire_time=expire_time)


class OfFrames:
    """A client that reads frames, and after a cut resumes with the last position on another connection."""

    def __init__(self, target: str, request: pb.WatchFeaturesRequest) -> None:
        self.rebuilt = Rebuilt()
        self._target, self._request = target, request
        self._channel: grpc.aio.Channel | None = None
        self._call: grpc.aio.UnaryStreamCall[pb.WatchFeaturesRequest, pb.WatchFeaturesResponse]

    async def see(self, sequence: int) -> dict[str, pb.Feature]:
        """What it holds once it is live and has this change, which is in its set and the last one."""
        while not (self.rebuilt.live and self.rebuilt.last >= sequence):
            frame = await self._next()
            self.rebuilt.take(frame)
        assert self.rebuilt.resets == 0, "the log is the same, and nothing of it is gone"
        return self.rebuilt.held

    async def _next(self) -> pb.WatchFeaturesResponse:
        while True:
            if self._channel is None:
                self._connect()
            try:
                frame = await self._call.read()
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.UNAVAILABLE:
                    raise
                await self.leave()
                await asyncio.sleep(0.02)
                continue
            assert isinstance(frame, pb.WatchFeaturesResponse), "a watch never ends by itself"
            return frame

    def _connect(self) -> None:
        if self.rebuilt.position:
            self._request.resume.token = self.rebuilt.position
            self.rebuilt.live = False
        else:  # no part of a snapshot counts without its end
            self.rebuilt = Rebuilt()
        self._channel = grpc.aio.insecure_channel(self._target, options=[("grpc.use_local_subchannel_pool", 1)])
        self._call = feature_pb2_grpc.FeatureServiceStub(self._channel).WatchFeatures(self._request)

    async def leave(self) -> None:
        """Disconnect. It comes back when it is to see something."""
        if self._channel is not None:
            self._call.cancel()
            await self._channel.close(None)
            self._channel = None


class OfTheLibrary:
    """A client that believes the library's events, and checks that each makes sense."""

    def __init__(self, client: FeatureClient, what: Watched, collection: str) -> None:
        self.watch = client.watch(what.area, filters=what.filters, collection=collection)
        self._held: dict[str, Feature] = {}
        self._complete = False
        self._last = 0

    async def see(self, sequence: int) -> dict[str, pb.Feature]:
        """What it holds once the set is complete and it has this change, which is in its set and the last one."""
        while not (self._complete and self._last >= sequence):
            event = await anext(self.watch)
            if event.kind is EventKind.CAUGHT_UP:
                self._complete = True
                continue
            assert event.feature is not None
            feature, held = event.feature, self._held.get(event.feature.id)
            assert (held is None) is (event.kind is EventKind.ENTERED)
            if event.kind is EventKind.LEFT:
                del self._held[feature.id]
            else:
                assert held is None or feature.sequence > held.sequence
                self._held[feature.id] = feature
            self._last = max(self._last, event.sequence)
        assert self._held == self.watch.features
        return {key: feature.message for key, feature in self._held.items()}


class World:
    """One service for all examples, behind a proxy, with a client that writes past it."""

    def __init__(self, service: ServiceProcess, runner: asyncio.Runner) -> None:
        self.service = service
        self._runner = runner
        self._stack = AsyncExitStack()
        self.proxy: FaultProxy
        self.writer: FeatureClient
        self.library: FeatureClient

    def do(self, work: Coroutine[Any, Any, None]) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(90):
                await work

        self._runner.run(bounded())

    async def open(self) -> None:
        enter = self._stack.enter_async_context
        self.proxy = await enter(FaultProxy(self.service.port))
        self.writer = await enter(FeatureClient(self.service.target, settings=PATIENT))
        self.library = await enter(FeatureClient(self.proxy.target, settings=PATIENT))

    async def restart(self) -> None:
        """kill -9."""
        self.service.kill()
        await self.service.start()

    async def close(self) -> None:
        await self._stack.aclose()


class Watching(RuleBasedStateMachine):
    """Puts, moves, deletes, imports, expiries, disconnects, resumes, restarts."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.collection = f"c{next(names)}"
        self.restarts = 0
        self.frames: OfFrames
        self.library: OfTheLibrary

    @initialize(what=watched, there=st.dictionaries(ids, places, min_size=3))
    def start(self, what: Watched, there: dict[str, Place]) -> None:
        self.what = what

        async def work() -> None:
            self.world.proxy.heal()
            await self._change([(key, place, None) for key, place in there.items()])
            self._begin()

        self.world.do(work())

    @rule(changes=changes)
    def change(self, changes: list[Change]) -> None:
        """Puts, moves and deletes, none of which is read before the last."""
        self.world.do(self._change(changes))

    @rule(changes=changes)
    def change_while_cut_off(self, changes: list[Change]) -> None:
        async def work() -> None:
            self.world.proxy.cut_now()
            await self._change(changes)

        self.world.do(work())

    @rule(counts=st.lists(st.integers(0, 800), min_size=1, max_size=4), way=st.sampled_from(Direction), changes=changes)
    def change_while_cut_off_again_and_again(self, counts: list[int], way: Direction, changes: list[Change]) -> None:
        """Now, and those that come after so many bytes."""
        self.world.proxy.cut_each(counts, way)
        self.change_while_cut_off(changes)

    @rule(changes=changes)
    def change_while_gone(self, changes: list[Change]) -> None:
        """The one leaves in order and comes back with its position; the other begins anew, with nothing."""

        async def work() -> None:
            await self._end()
            await self._change(changes)
            self.library = OfTheLibrary(self.world.library, self.what, self.collection)

        self.world.do(work())

    @rule()
    def begin_anew(self) -> None:
        async def work() -> None:
            await self._end()
            self._begin()

        self.world.do(work())

    @rule(keys=st.lists(ids, min_size=1, max_size=30), place=places, kind=kinds)
    def load(self, keys: list[str], place: Place, kind: str | None) -> None:
        """Many at once, the same ones again and again."""

        async def work() -> None:
            features = [at(key, place, kind) for key in keys]
            async for progress in self.world.writer.import_features(features, collection=self.collection, batch_size=7):
                assert not progress.refused

        self.world.do(work())

    @rule(key=ids, place=places, cut=st.booleans())
    def expire(self, key: str, place: Place, cut: bool) -> None:
        async def work() -> None:
            if cut:
                self.world.proxy.cut_now()
            await self._put(at(key, place, expires_in_s=0.2))
            await self._gone(key)

        self.world.do(work())

    @precondition(lambda self: self.restarts < RESTARTS)
    @rule(writes=st.dictionaries(ids, places), expiring=st.none() | ids)
    def kill(self, writes: dict[str, Place], expiring: str | None) -> None:
        """With writes on their way, and with one that expires while nobody is there."""
        self.restarts += 1

        async def work() -> None:
            if expiring is not None:
                await self._put(at(expiring, (0, 0), expires_in_s=0.2))
            puts = [asyncio.create_task(self._put(at(*write))) for write in writes.items() if write[0] != expiring]
            if puts:
                await asyncio.wait(puts, return_when=asyncio.FIRST_COMPLETED)
            await self.world.restart()
            await asyncio.gather(*puts)
            if expiring is not None:
                await self._gone(expiring)

        self.world.do(work())

    @invariant()
    def same_as_a_fresh_list(self) -> None:
        self.world.do(self._compare())

    async def _compare(self) -> None:
        writer, what = self.world.writer, self.what
        marker = await writer.put(at(MARKER, (0, 0), "tram"), collection=self.collection)
        found = writer.list(area=what.listed_area, filters=what.filters, collection=self.collection)
        listed = {each.id: each.message async for each in found}
        assert MARKER in listed
        assert await self.frames.see(marker.sequence) == listed
        assert await self.library.see(marker.sequence) == listed

    async def _change(self, changes: list[Change]) -> None:
        for key, place, kind in changes:
            if place is None:
                await self.world.writer.delete(key, collection=self.collection)
            else:
                await self._put(at(key, place, kind))

    async def _put(self, feature: Feature) -> None:
        await self.world.writer.put(feature, collection=self.collection)

    async def _gone(self, key: str) -> None:
        while True:
            try:
                await self.world.writer.get(key, collection=self.collection)
            except NotFound:
                return
            await asyncio.sleep(0.02)

    def _begin(self) -> None:
        self.frames = OfFrames(self.world.proxy.target, self.what.request(self.collection))
        self.library = OfTheLibrary(self.world.library, self.what, self.collection)

    async def _end(self) -> None:
        await self.frames.leave()
        await self.library.watch.aclose()

    def teardown(self) -> None:
        if hasattr(self, "frames"):
            self.world.do(self._end())


FEW = settings(
    max_examples=6,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.generate],  # each example takes seconds: one that fails is shown as it is
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_fault_31_the_rebuilt_set_is_the_listed_set(service: ServiceProcess) -> None:
    with asyncio.Runner() as runner:
        here = World(service, runner)

        class Here(Watching):
            world = here

        here.do(here.open())
        try:
            run_state_machine_as_test(Here, settings=FEW)
        finally:
            here.do(here.close())
