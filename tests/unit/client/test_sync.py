"""The waiting face: the same calls from plain functions and threads."""

import asyncio
import gc
import threading
import time
from collections.abc import Coroutine, Iterator
from typing import Any

import grpc
import pytest
from signpost import errors
from signpost.client import Circle, EventKind, Feature, Fence, State
from signpost.client.methods import (
    CONNECT,
    DELETE_FEATURE,
    DELETE_FENCE,
    GET_FEATURE,
    IMPORT_FEATURES,
    LIST_FEATURES,
    LIST_FENCES,
    LIST_PRESENCE,
    LIST_TOPICS,
    NEAREST_FEATURES,
    PUT_FEATURE,
    PUT_FENCE,
    WATCH_FEATURES,
)
from signpost.client.sync import FeatureClient, NotificationClient, _Loop

from protos.feature.v1 import feature_pb2 as fpb
from protos.notification.v1 import notification_pb2 as npb
from tests.unit.client.scripted import FAST, answering, failing, serving
from tests.unit.client.test_feature_client import batch, batches
from tests.unit.client.test_notification_client import Hub, records
from tests.unit.client.test_watch import PRESENT, caught_up, frame


class Elsewhere:
    """A server in a thread of its own."""

    def __init__(self, scripts: Any) -> None:
        self._scripts, self._stop = scripts, asyncio.Event()
        self._up = threading.Event()
        self._loop = asyncio.new_event_loop()
        self.target = ""

    def __enter__(self) -> str:
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),))
        self._thread.start()
        self._up.wait(20)
        return self.target

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._loop.close()

    def _serve(self) -> Coroutine[Any, Any, None]:
        async def serve() -> None:
            async with serving(self._scripts) as server:
                self.target = server.target
                self._up.set()
                await self._stop.wait()

        return serve()


async def _import(requests: Any, context: Any) -> Any:
    async for request in requests:
        yield fpb.ImportFeaturesResponse(id=request.id, written=len(request.features))


async def _nearest(requests: Any, context: Any) -> Any:
    async for request in requests:
        yield fpb.NearestFeaturesResponse(id=request.id, counts=[1], ids=["n"], distances_m=[2.0])


async def _watch(request: Any, context: Any) -> Any:
    yield frame((PRESENT, "a", 1))
    yield caught_up(b"1")
    await asyncio.Event().wait()


@pytest.fixture
def features() -> Iterator[FeatureClient]:
    scripts = {
        LIST_FEATURES: [batches(batch(1, 2), batch(3, last=True))],
        GET_FEATURE: [
            answering(lambda r: fpb.GetFeatureResponse(feature=fpb.Feature(id=r.id))),
            failing(grpc.StatusCode.NOT_FOUND, "FEATURE_NOT_FOUND"),
        ],
        PUT_FEATURE: [answering(lambda r: fpb.PutFeatureResponse(sequence=1))],
        DELETE_FEATURE: [answering(lambda r: fpb.DeleteFeatureResponse(deleted=True))],
        IMPORT_FEATURES: [_import],
        NEAREST_FEATURES: [_nearest],
        WATCH_FEATURES: [_watch],
        PUT_FENCE: [answering(lambda r: fpb.PutFenceResponse(fence=r.fence))],
        DELETE_FENCE: [answering(lambda r: fpb.DeleteFenceResponse(deleted=True))],
        LIST_FENCES: [answering(lambda r: fpb.ListFencesResponse(fences=[fpb.Fence(id="f")]))],
    }
    with Elsewhere(scripts) as target, FeatureClient(target, settings=FAST) as client:
        yield client


def test_features_without_asyncio(features: FeatureClient) -> None:
    assert [f.id for f in features.list((0.0, 0.0))] == ["1", "2", "3"]
    assert [len(b) for b in features.list_batches((0.0, 0.0))] == [2, 1]
    assert [len(b) for b in features.list((0.0, 0.0)).batches()] == [2, 1]
    with features.watch(Circle((0, 0), 10)) as watch:
        assert [next(watch).kind for _ in range(2)] == [EventKind.ENTERED, EventKind.CAUGHT_UP]
        assert set(watch.inner.features) == {"a"}
        assert watch.status.state is State.CONNECTED
    assert features.get("x").id == "x"
    with pytest.raises(errors.NotFound):
        features.get("x")
    assert features.put(Feature("a", 1, 2)).sequence == 1
    assert features.delete("a").deleted
    assert [p.written for p in features.import_features([Feature("a", 1, 2)])] == [1]
    assert [n[0].id for n in map(list, features.nearest([(0, 0)]))] == ["n"]
    assert features.put_fence(Fence("f", Circle((0, 0), 1))).id == "f"
    assert features.delete_fence("f")
    assert [f.id for f in features.list_fences()] == ["f"]


def test_notifications_without_asyncio() -> None:
    hub = Hub()
    scripts = {
        CONNECT: [hub.script(records("s1", 0, 1, 2), records("s1", 2, 3))],
        LIST_TOPICS: [answering(lambda r: npb.ListTopicsResponse(topics=[npb.Topic(name="t")]))],
        LIST_PRESENCE: [answering(lambda r: npb.ListPresenceResponse(clients=[npb.Presence(client_id="c")]))],
    }
    with Elsewhere(scripts) as target, NotificationClient(target, settings=FAST) as client:
        with client.subscribe("t") as subscription:
            first = next(subscription)
            assert first.sequence == 1
            assert next(iter(subscription)).sequence == 2
            assert subscription.position is not None
            subscription.ack(first)
            assert [len(b) for b in [next(subscription.batches())]] == [1]
        with client.subscribe("t", group="g") as group:
            group.reject(first)
        assert client.publish("t", "x").sequence == 1
        answers = [client.publish_nowait("t", "x") for _ in range(10)]
        client.flush()
        assert [a.result(20).sequence for a in answers] == list(range(2, 12))
        assert [t.name for t in client.topics()] == ["t"]
        assert [p.client_id for p in client.presence()] == ["c"]
        assert client.status.state is State.CONNECTED
    assert client.unsent == ()


def test_what_is_left_to_the_garbage_collector_ends_on_the_server() -> None:
    hub, ended = Hub(), threading.Event()

    async def watch(request: Any, context: Any) -> Any:
        try:
            yield frame((PRESENT, "a", 1))
            await asyncio.Event().wait()
        finally:
            ended.set()

    scripts = {WATCH_FEATURES: [watch], CONNECT: [hub.script(records("s1", 0, 1))]}
    with (
        Elsewhere(scripts) as target,
        FeatureClient(target, settings=FAST) as features,
        NotificationClient(target, settings=FAST) as notifications,
    ):
        next(features.watch(Circle((0, 0), 10)))
        next(notifications.subscribe("t"))
        gc.collect()
        assert ended.wait(20)
        deadline = time.monotonic() + 20
        while not hub.of("unsubscribe"):
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_publish_that_fails_says_so_in_its_future() -> None:
    with Elsewhere({CONNECT: [Hub().script(answer=False)]}) as target:
        client = NotificationClient(target, settings=FAST)
        lost = client.publish_nowait("t", "x")
        assert len(client.close(flush_timeout_s=0.2)) == 1
        with pytest.raises(errors.Unavailable):
            lost.result(20)


def test_cancelling_takes_back_what_is_not_sent_and_ignores_the_answer_to_what_is(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with NotificationClient("localhost:1", settings=FAST) as away:
        first = away.publish_nowait("t")
        assert first.cancel()
        away.flush()
    assert not away.unsent
    hub, cancelled = Hub(), threading.Event()

    async def slow(requests: Any, context: Any) -> Any:
        async for response in hub.script()(requests, context):
            if response.HasField("published"):
                while not cancelled.is_set():  # noqa: ASYNC110 - another thread sets it
                    await asyncio.sleep(0.01)
            yield response

    with Elsewhere({CONNECT: [slow]}) as target, NotificationClient(target, settings=FAST) as client:
        sent = client.publish_nowait("t")
        while not hub.stored:
            time.sleep(0.01)
        assert sent.cancel()
        cancelled.set()
        client.flush()
    assert not caplog.records


def test_what_would_wait_for_itself_raises_instead(features: FeatureClient) -> None:
    with features.list(collection="a") as found, pytest.raises(RuntimeError, match="make a list of it first"):
        list(features.import_features((feature for feature in found), collection="b"))
    assert features.get("x").id == "x", "the loop lives on"


def test_after_a_fork_it_raises_instead_of_waiting_for_a_thread_that_is_not_there() -> None:
    loop = _Loop()
    loop.get().call_soon_threadsafe(loop.get().stop)
    loop._thread.join(20)  # as a forked child finds it
    with pytest.raises(RuntimeError, match="forked"):
        loop.call(lambda: None)
    assert loop._loop is not None
    loop._loop.close()
