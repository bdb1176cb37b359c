"""ListFeatures: one snapshot, in batches, nearest first."""

import asyncio
import dataclasses
import functools
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Executor

import numpy as np
from signpost.errors import Violation

from feature_service import codec, continuation
from feature_service.areas import Area, Circle
from feature_service.continuation import Continuation
from feature_service.filters import Filter
from feature_service.geometry import Vector, unit_vector
from feature_service.index import Snapshot
from feature_service.masks import ReadMask, read_mask_of
from feature_service.metrics import LISTING
from feature_service.parsing import LARGE_BYTES, parsed
from feature_service.projection import Projection
from feature_service.search import After, Found, Question, search_in_parts, search_quickly
from feature_service.validation import Problems, area_of, check_point, collection_of, filters_of
from protos.feature.v1.feature_pb2 import ListFeaturesRequest, ListFeaturesResponse

DEFAULT_LIMIT = 100
FIRST_BATCH, ONE_BATCH = 20, 100
DEFAULT_BATCH = 4000
"""Without a batch size the first batch of more than `ONE_BATCH` is small, so that it comes soon; the others are
large: a message costs far more than the features in it."""
MAX_BATCH = 10_000
BATCH_BYTES = 1 << 20
"""About how large a batch may be; well within the least message limit that makes sense with 64 KiB features."""
Items = list[bytes]
_FEATURES, _DISTANCES, _SEQUENCES, _TIMES = b"\x0a", b"\x12", b"\x1a", b"\x22"
_CONTINUATION, _SNAPSHOT = b"\x2a", b"\x32"
_MASKED_BATCH, _MASKED_BYTES = 500, 1 << 18
"""Re-encoding so many, or so much, takes some milliseconds, in which the event loop does nothing else."""
_FEW = 256
"""Below this protobuf is quicker than numpy."""


@dataclasses.dataclass(eq=False)
class ListQuery:
    """A valid request."""

    collection: str
    origin: Vector | None
    area: Area | None
    filters: tuple[Filter, ...]
    limit: int | None
    mask: ReadMask | None
    batch: int
    request: ListFeaturesRequest

    @functools.cached_property
    def hash(self) -> bytes:
        """What a continuation recognises the request by; most lists are answered without one."""
        return continuation.request_hash(self.request)

    def question(self, limit: int | None, after: After | None) -> Question:
        """What to ask of a snapshot."""
        if isinstance(self.area, Circle) and self.origin == self.area.center:
            # Nearest first around its own centre, a circle is but a bound on the distance.
            return Question(self.origin, None, self.filters, limit, self.area.bound, after)
        return Question(self.origin, self.area, self.filters, limit, after=after)


def parse(request: ListFeaturesRequest) -> ListQuery:
    """The request as a query. Raises InvalidArgument that names every bad field."""
    problems = Problems()
    collection = collection_of(problems, request.collection)
    origin = None
    has_origin, has_area = request.HasField("origin"), request.HasField("area")
    if has_origin:
        latitude, longitude = request.origin.latitude, request.origin.longitude
        check_point(problems, "origin", latitude, longitude)
        if not problems.violations:
            origin = unit_vector(latitude, longitude)
    area = area_of(problems, "area", request.area) if has_area else None
    if not (has_origin or has_area):
        problems.violations.append(Violation("origin", "an origin or an area is needed"))
    filters = filters_of(problems, "filters", request.filters) if request.filters else ()
    mask = read_mask_of(problems, request.read_mask) if request.read_mask else None
    if request.batch_size > MAX_BATCH:
        problems.add("batch_size", f"must be at most {MAX_BATCH}")
    problems.check()
    if origin is None and isinstance(area, Circle):
        origin = area.center
    limit = request.limit or (None if area is not None else DEFAULT_LIMIT)
    batch = request.batch_size or DEFAULT_BATCH
    query = ListQuery(collection, origin, area, filters, limit, mask, batch, request)
    if request.ByteSize() > LARGE_BYTES:
        _ = query.hash  # here, where nobody waits for it
    return query


class Lister:
    """Answers lists from a projection. Searches that are not quick run on `executor`, and those that take longer
    than a slice go on on `long`, where they take turns: no list waits for the whole of another."""

    def __init__(self, projection: Projection, executor: Executor, long: Executor) -> None:
        self._projection, self._executor, self._long = projection, executor, long

    async def list(self, request: ListFeaturesRequest, context: object = None) -> AsyncIterator[bytes]:
        """The encoded batches."""
        query = await parsed(parse, request)
        await self._projection.until_ready()
        if request.HasField("min_position"):
            await self._projection.wait_visible(request.min_position)
        going_on: Continuation | None = None
        if request.continuation:
            going_on = continuation.decode(request.continuation, query.hash, self._projection.log.epoch)
            await self._projection.wait_for(going_on.after.sequence)
        position = going_on.position if going_on is not None else self._projection.position
        remaining = going_on.remaining if going_on is not None else query.limit
        snapshot = self._projection.snapshot(query.collection)
        encoder = _Batches(query, position, remaining)
        if snapshot is None:
            yield encoder.empty()
            return
        after = going_on.after if going_on is not None else None
        question = query.question(remaining, after)
        sent = 0
        soon = min(query.batch, FIRST_BATCH)
        around = question.origin is not None and question.area is None and not query.filters
        if around and after is None and (remaining is None or remaining > min(query.batch, ONE_BATCH)):
            # The whole order takes longer, and more bytes take longer: the first batch goes out before it.
            first = search_quickly(snapshot, question._replace(limit=soon))
            if first is not None and len(first) == soon:
                sent = len(first)
                for batch in encoder.encode(snapshot, first, 0, last=False):
                    yield batch
        started = time.perf_counter()
        quickly = search_quickly(snapshot, question)
        if quickly is not None:
            took_s = time.perf_counter() - started
            try:
                for batch in encoder.encode(snapshot, quickly, sent, last=True):
                    yield batch
            finally:
                LISTING.observe(took_s)  # after the answer, which need not wait for it
            return
        loop, parts = asyncio.get_running_loop(), search_in_parts(snapshot, question, query.batch)
        executor = self._executor
        # While one part goes out, the next is searched for.
        ahead = loop.run_in_executor(executor, next, parts)
        try:
            last = False
            while not last:
                with LISTING.time():
                    while (part := await ahead) is None:
                        executor = self._long
                        ahead = loop.run_in_executor(executor, next, parts)
                found, last = part
                if not last:
                    ahead = loop.run_in_executor(executor, next, parts)
                begin = min(sent, len(found))
                sent -= begin
                if begin < len(found) or last:
                    for batch in encoder.encode(snapshot, found, begin, last=last):
                        yield batch
        finally:
            ahead.cancel()


class _Batches:
    """Encodes what was found, batch by batch."""

    def __init__(self, query: ListQuery, position: bytes, remaining: int | None) -> None:
        self._query, self._position = query, position
        self._remaining = remaining
        self._shows = codec.field(_SNAPSHOT, codec.position(position))

    def empty(self) -> bytes:
        """The answer where there is nothing."""
        return self._shows

    def encode(self, snapshot: Snapshot, found: Found, start: int, *, last: bool) -> Iterator[bytes]:
        """The batches of what was found from `start`; `last`: the list ends with them."""
        count = len(found)
        if start == count:
            yield self._shows
            return
        mask = self._query.mask
        size = self._query.batch if mask is None else min(self._query.batch, _MASKED_BATCH)
        while start < count:
            end = min(start + size, count)
            items = snapshot.columns.items.take(found.slots[start:end]).tolist()
            if mask is not None:
                items = [mask.apply(item) for item in _within_bytes(items, _MASKED_BYTES)]
            features = codec.repeated(_FEATURES, items)
            if len(features) > BATCH_BYTES:
                items = _within_bytes(items, BATCH_BYTES)
                features = codec.repeated(_FEATURES, items)
            end = start + len(items)
            beside = self._beside(snapshot, found, start, end, final=last and end == count)
            yield b"".join((features, beside, self._shows))
            start = end

    def _beside(self, snapshot: Snapshot, found: Found, start: int, end: int, *, final: bool) -> bytes:
        """What a batch holds beside its features."""
        slots = found.slots[start:end]
        if self._remaining is not None:
            self._remaining -= end - start
        token = b""
        if not final:
            distance = None if self._query.origin is None else float(found.distances[end - 1])
            feature_id = snapshot.columns.ids[slots[-1]]
            token = continuation.encode(self._query.hash, self._position, distance, feature_id, self._remaining)
        distances, sequences, times = (
            found.distances[start:end],
            snapshot.columns.born.take(slots),
            snapshot.columns.times.take(slots),
        )
        if end - start < _FEW:
            return ListFeaturesResponse(
                distances_m=distances.tolist(),
                sequences=sequences.tolist(),
                change_times_ns=times.tolist(),
                continuation=token,
            ).SerializeToString()
        parts = (
            codec.packed_doubles(_DISTANCES, distances),
            codec.packed_varints(_SEQUENCES, sequences),
            codec.packed_varints(_TIMES, times),
            codec.field(_CONTINUATION, token) if token else b"",
        )
        return b"".join(parts)


def _within_bytes(items: Items, most: int) -> Items:
    """As many as have at most so many bytes, at least one."""
    sizes = np.fromiter(map(len, items), np.int64, len(items)).cumsum()
    if sizes[-1] <= most:
        return items
    return items[: max(1, int(np.searchsorted(sizes, most, side="right")))]
