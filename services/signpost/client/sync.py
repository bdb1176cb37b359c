"""The same clients without asyncio, for scripts and threads.

    with FeatureClient() as client:
        for feature in client.list(near=(48.85, 2.35)):
            print(feature.name)

Not a second implementation: one event loop in a background thread, shared by all clients of the
process, runs the asynchronous clients; every method here waits for its counterpart there. Safe to
use from any thread, but one thread at a time for one iterator. Not to be used inside an event loop,
nor by an iterable or a callback that is handed to a client, which run in that loop: RuntimeError.
"""

import asyncio
import concurrent.futures
import threading
from collections.abc import AsyncIterable, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from signpost.client import feature_client, notification_client
from signpost.client.features import (
    Deleted,
    Feature,
    FeatureBatch,
    Fence,
    ImportProgress,
    NearestFeature,
    WatchEvent,
    Written,
)
from signpost.client.geo import LatLon
from signpost.client.notifications import Notification, NotificationBatch, Presence, Published, Topic, Unsent
from signpost.client.positions import Position
from signpost.client.states import Status

T = TypeVar("T")

__all__ = ["FeatureClient", "NotificationClient", "Stream", "Subscription"]


class _Loop:
    """The event loop in the background thread; started with the first client, ends with the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread()

    def get(self) -> asyncio.AbstractEventLoop:
        """The loop. Raises RuntimeError where waiting for it would never end."""
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(target=self._loop.run_forever, name="signpost", daemon=True)
                self._thread.start()
        if self._thread is threading.current_thread():
            raise RuntimeError(
                "an iterable or a callback given to a client cannot wait for one: make a list of it first"
            )
        if not self._thread.is_alive():
            raise RuntimeError("this process was forked after its first client: spawn it, or make none before the fork")
        return self._loop

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run in the loop, and wait. An interrupt (Ctrl-C) of the wait cancels the work."""
        try:
            future = asyncio.run_coroutine_threadsafe(work, self.get())
        except RuntimeError:
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def call(self, work: Callable[[], T]) -> T:
        """Run a plain function in the loop, where the clients' objects live."""

        async def run() -> T:
            return work()

        return self.run(run())


_LOOP = _Loop()


class Stream(Generic[T]):
    """An iterator over an asynchronous one. `with` or `close` ends it."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._inner: Any = _LOOP.call(make)
        self._items: AsyncIterator[T] = _LOOP.call(lambda: aiter(self._inner))

    @property
    def inner(self) -> Any:
        """The asynchronous object, for its attributes (`position`, `continuation`, `features`, ...)."""
        return self._inner

    @property
    def status(self) -> Status:
        """The state of the stream."""
        status: Status = self._inner.status
        return status

    def __iter__(self) -> Iterator[T]:
        return self

    def __next__(self) -> T:
        try:
            return _LOOP.run(_next(self._items))
        except StopAsyncIteration:
            raise StopIteration from None

    def batches(self) -> "Stream[Any]":
        """The items as they came over the wire, batch by batch."""
        return Stream(self._inner.batches)

    def close(self) -> None:
        """End the stream. Safe to repeat."""
        _LOOP.run(self._inner.aclose())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


async def _next(items: AsyncIterator[T]) -> T:
    return await anext(items)


class _Client:
    """What both clients share."""

    def __init__(self, make: Callable[[], Any]) -> None:
        self._client: Any = _LOOP.call(make)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self, **options: Any) -> Any:
        """As `close` of the asynchronous client."""
        return _LOOP.run(self._client.close(**options))


class FeatureClient(_Client):
    """`signpost.client.FeatureClient`, waiting. Arguments are the same."""

    def __init__(self, target: str | list[str] = feature_client.DEFAULT_TARGET, **options: Any) -> None:
        super().__init__(lambda: feature_client.FeatureClient(target, **options))

    def list(self, near: LatLon | None = None, **options: Any) -> "Stream[Feature]":
        return Stream(lambda: self._client.list(near, **options))

    def list_batches(self, near: LatLon | None = None, **options: Any) -> "Stream[FeatureBatch]":
        return Stream(lambda: self._client.list(near, **options).batches())

    def watch(self, area: Any = None, **options: Any) -> "Stream[WatchEvent]":
        return Stream(lambda: self._client.watch(area, **options))

    def get(self, id: str, **options: Any) -> Feature:
        feature: Feature = _LOOP.run(self._client.get(id, **options))
        return feature

    def put(self, feature: Feature, **options: Any) -> Written:
        written: Written = _LOOP.run(self._client.put(feature, **options))
        return written

    def delete(self, id: str, **options: Any) -> Deleted:
        deleted: Deleted = _LOOP.run(self._client.delete(id, **options))
        return deleted

    def nearest(
        self, origins: Iterable[LatLon] | AsyncIterable[LatLon], k: int = 1, **options: Any
    ) -> "Stream[Iterable[NearestFeature]]":
        return Stream(lambda: self._client.nearest(origins, k, **options))

    def import_features(self, features: Iterable[Feature], **options: Any) -> "Stream[ImportProgress]":
        """The iterable is read in the background thread."""
        return Stream(lambda: self._client.import_features(features, **options))

    def put_fence(self, fence: Fence, **options: Any) -> Fence:
        put: Fence = _LOOP.run(self._client.put_fence(fence, **options))
        return put

    def delete_fence(self, id: str, **options: Any) -> bool:
        deleted: bool = _LOOP.run(self._client.delete_fence(id, **options))
        return deleted

    def list_fences(self, **options: Any) -> "Stream[Fence]":
        return Stream(lambda: self._client.list_fences(**options))


class Subscription(Stream[Notification]):
    """`signpost.client.Subscription`, waiting. `with` waits until the server has started it."""

    @property
    def position(self) -> Position | None:
        """After the last record handed over."""
        position: Position | None = self._inner.position
        return position

    def ack(self, *records: Notification) -> None:
        """Mark as handled: these records, or everything handed over so far."""
        _LOOP.call(lambda: self._inner.ack(*records))

    def reject(self, *records: Notification) -> None:
        """Give records of a group back at once."""
        _LOOP.call(lambda: self._inner.reject(*records))

    def batches(self) -> "Stream[NotificationBatch]":
        return Stream(self._inner.batches)

    def __enter__(self) -> Self:
        _LOOP.run(self._inner.started())
        return self


class NotificationClient(_Client):
    """`signpost.client.NotificationClient`, waiting. Arguments are the same."""

    def __init__(self, target: str | list[str] = notification_client.DEFAULT_TARGET, **options: Any) -> None:
        super().__init__(lambda: notification_client.NotificationClient(target, **options))

    @property
    def status(self) -> Status:
        """The state of the stream."""
        status: Status = self._client.status
        return status

    @property
    def unsent(self) -> tuple[Unsent, ...]:
        """What `close` gave up."""
        unsent: tuple[Unsent, ...] = self._client.unsent
        return unsent

    def publish(self, topic: str, payload: bytes | str = b"", **options: Any) -> Published:
        published: Published = _LOOP.run(self._client.publish(topic, payload, **options))
        return published

    def publish_nowait(
        self, topic: str, payload: bytes | str = b"", **options: Any
    ) -> "concurrent.futures.Future[Published]":
        """Publish without waiting: `result()` of the future waits for the answer. Raises OutboxFull.

        Cancelling the future takes back what has not been sent.
        """
        answer: concurrent.futures.Future[Published] = concurrent.futures.Future()

        def hand_in() -> Callable[[], object]:
            inner = self._client.publish_nowait(topic, payload, **options)
            inner.add_done_callback(lambda done: _copy(done, answer))
            take_back: Callable[[], object] = inner.cancel
            return take_back

        take_back = _LOOP.call(hand_in)
        answer.add_done_callback(lambda done: done.cancelled() and _LOOP.get().call_soon_threadsafe(take_back))
        return answer

    def flush(self) -> None:
        """Return once everything published so far is answered."""
        _LOOP.run(self._client.flush())

    def subscribe(self, filter: str, **options: Any) -> Subscription:
        return Subscription(lambda: self._client.subscribe(filter, **options))

    def topics(self, filter: str = "", **options: Any) -> "Stream[Topic]":
        return Stream(lambda: self._client.topics(filter, **options))

    def presence(self, topic: str = "", **options: Any) -> "Stream[Presence]":
        return Stream(lambda: self._client.presence(topic, **options))


def _copy(done: "asyncio.Future[Published]", answer: "concurrent.futures.Future[Published]") -> None:
    if done.cancelled():
        answer.cancel()
        return
    if not answer.set_running_or_notify_cancel():
        return  # it was cancelled after it was sent
    error = done.exception()
    if error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(done.result())
