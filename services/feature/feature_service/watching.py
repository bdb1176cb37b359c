"""WatchFeatures as a stream: snapshot or resume, `caught_up`, then live."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from typing import NamedTuple

from signpost.errors import Draining, InvalidArgument, PositionAhead, PositionCompacted, PositionError
from signpost.log.base import Page

from feature_service.events import FRAME_EVENTS, Event, batches, encoded, events_frame, frame, left
from feature_service.geometry import unit_vector
from feature_service.index import Snapshot
from feature_service.items import to_feature
from feature_service.metrics import RESETS, SELECTING, WATCH_EVENTS
from feature_service.parsing import parsed
from feature_service.projection import Projection
from feature_service.records import Change, Kind, collections, decode
from feature_service.search import After, Found, Question, search
from feature_service.selections import Selection
from feature_service.validation import Problems, area_of, collection_of, filters_of
from feature_service.watch import Behind, Watch
from feature_service.watches import Watches
from protos.feature.v1 import feature_pb2 as pb

_PROGRESS_MS = 15_000
_FEW_RECORDS = 50


class _Request(NamedTuple):
    selection: Selection
    progress_s: float


class Watcher:
    """Answers WatchFeatures."""

    def __init__(self, projection: Projection, watches: Watches, executor: Executor) -> None:
        self._projection, self._watches, self._executor = projection, watches, executor

    async def run(self, request: pb.WatchFeaturesRequest) -> AsyncIterator[bytes]:
        """The encoded frames; never ends by itself."""
        selection, progress_s = await parsed(_parse, request)
        if request.HasField("min_position"):
            await self._projection.wait_visible(request.min_position)
        watch = self._watches.open(selection)
        try:
            async for each in _Stream(self._projection, self._executor, watch, progress_s).frames(request):
                yield each
        finally:
            self._watches.close(watch)


class _Stream:
    """One watch's stream."""

    def __init__(self, projection: Projection, executor: Executor, watch: Watch, progress_s: float) -> None:
        self.watch = watch
        self._projection, self._executor = projection, executor
        self._selection, self._progress_s = watch.selection, progress_s
        self._collection_of = collections()
        self._position = b""

    async def frames(self, request: pb.WatchFeaturesRequest) -> AsyncIterator[bytes]:
        """Everything, from the first frame on."""
        watch = self.watch
        if request.HasField("resume"):
            try:
                after = await self._resolve(request.resume)
                async for each in self._resume(after):
                    yield each
            except PositionAhead:
                raise
            except PositionError as error:
                watch.break_off(error)
        else:
            async for each in self._snapshot():
                yield each
        while True:
            taken = watch.take()
            if taken.frames:
                WATCH_EVENTS.inc(taken.events)
                self._position = taken.position or self._position
                for each in taken.frames:
                    yield each
            elif watch.broken is not None:
                async for each in self._start_over(watch.broken):
                    yield each
            elif watch.behind is not None:
                async for each in self._catch_up(watch.behind):
                    yield each
            elif watch.draining:
                raise Draining("the server is going away")
            elif not await watch.wait(self._progress_s) and watch.idle:
                self._position = watch.position or self._position
                yield frame(pb.WatchFeaturesResponse(progress=pb.Progress()), self._position)

    async def _start_over(self, error: PositionError) -> AsyncIterator[bytes]:
        """A reset, and a snapshot."""
        self.watch.broken = None
        self._position = b""
        RESETS.inc()
        first = pb.Position(sequence=error.first_available)
        yield frame(pb.WatchFeaturesResponse(reset=pb.Reset(reason=error.reason, first_available=first)))
        async for each in self._snapshot():
            yield each

    async def _snapshot(self) -> AsyncIterator[bytes]:
        """What is in the set now; live from that moment on."""
        projection = self._projection
        await projection.until_ready()
        self.watch.broken = None
        self.watch.go_live(projection.applied)
        position = projection.position
        snapshot = projection.snapshot(self._selection.collection)
        count = 0
        if snapshot is not None:
            found = await self._search(snapshot, None)
            count = len(found)
            for begin in range(0, count, FRAME_EVENTS):
                slots = found.slots[begin : begin + FRAME_EVENTS]
                columns = snapshot.columns
                rows = zip(
                    columns.items[slots].tolist(),
                    columns.born[slots].tolist(),
                    columns.times[slots].tolist(),
                    strict=True,
                )
                events = [Event(pb.EVENT_KIND_PRESENT, item, born, time_ns) for item, born, time_ns in rows]
                for each in self._events(events, b""):
                    yield each
        self._position = position
        yield frame(pb.WatchFeaturesResponse(caught_up=pb.CaughtUp(count=count)), position)

    async def _resume(self, after: int) -> AsyncIterator[bytes]:
        """`present` or `left` for everything that changed since; then live."""
        await self._projection.until_ready()
        await self._projection.wait_for(after)
        async for page in self._pages(after):
            last: dict[str, Event] = {}
            for change, event in await self._standing(page):
                last.pop(change.id, None)
                last[change.id] = event
            for each in self._events(list(last.values()), page.position):
                yield each
        if self.watch.broken is None:
            yield frame(pb.WatchFeaturesResponse(caught_up=pb.CaughtUp()), self._position)

    async def _held(self, behind: Behind) -> set[str]:
        """The ids in the set when the watch fell behind."""
        if behind.snapshot is None:
            return set()
        snapshot = behind.snapshot._replace(sequence=behind.after)
        found = await self._search(snapshot, After(behind.after, None, ""))
        return set(snapshot.columns.ids[found.slots].tolist())

    async def _catch_up(self, behind: Behind) -> AsyncIterator[bytes]:
        """The events that a reader was too slow for, out of the log; then live again."""
        watch = self.watch
        try:
            held = await self._held(behind)
            watch.behind = behind._replace(snapshot=None)
            async for page in self._pages(behind.after):
                events: list[Event] = []
                for change, event in await self._standing(page):
                    if event.kind == pb.EVENT_KIND_PRESENT:
                        kind = pb.EVENT_KIND_MOVED if change.id in held else pb.EVENT_KIND_ENTERED
                        held.add(change.id)
                        events.append(event._replace(kind=kind))
                    elif change.id in held:
                        held.discard(change.id)
                        events.append(event)
                for each in self._events(events, page.position):
                    yield each
        except PositionError as error:
            watch.break_off(error)

    async def _pages(self, after: int) -> AsyncIterator[Page]:
        """The log from a sequence up to what is applied; then the watch is live."""
        watch, log = self.watch, self._projection.log
        while True:
            page = await log.read(after)
            if page.through > after:
                after = page.through
                yield page
                self._position = page.position
            if watch.broken is not None:
                return
            if watch.draining:
                raise Draining("the server is going away")
            if after >= self._projection.applied:
                watch.go_live(after)
                if not self._position:
                    self._position = await log.position(after)
                return

    async def _standing(self, page: Page) -> Iterable[tuple[Change, Event]]:
        """The same as `_stands`; of many records in a thread, whatever their area and filters take."""
        if len(page.records) <= _FEW_RECORDS:
            return self._stands(page)
        return await asyncio.get_running_loop().run_in_executor(self._executor, list, self._stands(page))

    def _stands(self, page: Page) -> Iterator[tuple[Change, Event]]:
        """Whether each changed feature of a page is in the set after its change: `present` or `left`."""
        selection = self._selection
        for record in page.records:
            if self._collection_of(record.subject) != selection.collection:
                continue
            change = decode(record)
            if change.kind is Kind.DWELLED:
                continue
            placed = False
            if change.item is not None:
                latitude, longitude = change.latitude, change.longitude
                placed = selection.in_area(latitude, longitude, unit_vector(latitude, longitude))
                if placed and (not selection.filters or selection.in_filters(to_feature(change.item).properties)):
                    yield change, Event(pb.EVENT_KIND_PRESENT, change.item, record.sequence, record.time_ns)
                    continue
            yield change, left(change.kind, change.id, placed, record.sequence, record.time_ns)

    def _events(self, events: Sequence[Event], position: bytes) -> Iterator[bytes]:
        """Events in frames; only the last one moves the position."""
        WATCH_EVENTS.inc(len(events))
        parts = batches(events)
        for n, part in enumerate(parts, 1):
            yield events_frame(encoded(part), position if n == len(parts) else self._position)
        self._position = position

    async def _search(self, snapshot: Snapshot, as_of: After | None) -> Found:
        question = Question(None, self._selection.area, self._selection.filters, after=as_of)
        with SELECTING.time():
            return await asyncio.get_running_loop().run_in_executor(self._executor, search, snapshot, question)

    async def _resolve(self, position: pb.Position) -> int:
        log = self._projection.log
        if position.WhichOneof("position") == "token":
            try:
                return await log.resolve(position.token)
            except InvalidArgument as error:
                raise error.within("resume") from None
        bounds = await log.bounds()
        if position.sequence > bounds.last:
            raise PositionAhead(
                f"position {position.sequence} is beyond the head of the log, {bounds.last}",
                first_available=bounds.horizon + 1,
            )
        if position.sequence < bounds.horizon:
            raise PositionCompacted(
                f"changes after {position.sequence} are no longer there", first_available=bounds.horizon + 1
            )
        return position.sequence


def _parse(request: pb.WatchFeaturesRequest) -> _Request:
    problems = Problems()
    collection = collection_of(problems, request.collection)
    area = area_of(problems, "area", request.area) if request.HasField("area") else None
    filters = filters_of(problems, "filters", request.filters)
    progress_ms = request.progress_interval_ms or _PROGRESS_MS
    if not 100 <= progress_ms <= 600_000:
        problems.add("progress_interval_ms", "must be 100 to 600000, or 0")
    problems.check()
    return _Request(Selection(collection, area, filters, request), progress_ms / 1e3)
