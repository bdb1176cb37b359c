"""NearestFeatures as a stream: each request answered under its id, in order."""

import asyncio
import math
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Executor
from typing import Any, NamedTuple

import numpy as np
from signpost.errors import InvalidArgument

from feature_service import codec
from feature_service.geometry import LATITUDE_MAX, LONGITUDE_MAX, Floats, Ints
from feature_service.index import TAIL, Snapshot
from feature_service.metrics import ANSWERING
from feature_service.nearest import Nearest, NearestQuery, nearest_in_parts, nearest_quickly
from feature_service.parsing import parsed
from feature_service.projection import Projection
from feature_service.validation import Problems, collection_of, filters_of
from protos.feature.v1 import feature_pb2 as pb

MAX_ORIGINS = 10_000
MAX_K = 1000
_CHEAP = 64
"""Origins times k that are answered on the event loop, where the tail is short: about 300 µs."""
_AHEAD = 2
"""Requests of a stream that wait or are searched for: as many as the executor has threads."""
_COUNTS, _DISTANCES, _FEATURES = b"\x12", b"\x22", b"\x2a"


class _Work(NamedTuple):
    """A valid request: what it asks, of which snapshot (None: of nothing), and what its answer begins with."""

    snapshot: Snapshot | None
    query: NearestQuery
    beside: pb.NearestFeaturesResponse


class NearestAnswerer:
    """Answers NearestFeatures from a projection."""

    def __init__(self, projection: Projection, executor: Executor, max_message_bytes: int) -> None:
        self._projection, self._executor = projection, executor
        self._max_answer_bytes = max_message_bytes - 1024

    async def run(self, requests: AsyncIterator[pb.NearestFeaturesRequest]) -> AsyncIterator[bytes]:
        """Answer each request, in order. A request that is not valid is answered by its error.

        The next requests are read and searched for while an answer is on its way out: `_AHEAD` of them at most.
        """
        answers: asyncio.Queue[asyncio.Task[bytes] | None] = asyncio.Queue(_AHEAD)
        reader = asyncio.create_task(self._read(requests, answers))
        answer: asyncio.Task[bytes] | None = None
        try:
            while (answer := await answers.get()) is not None:
                yield await answer
            await reader
        finally:
            left: list[asyncio.Task[Any]] = [reader, *([answer] if answer is not None else [])]
            while not answers.empty():
                if (waiting := answers.get_nowait()) is not None:
                    left.append(waiting)
            await _cancelled(left)

    async def _read(
        self,
        requests: AsyncIterator[pb.NearestFeaturesRequest],
        answers: "asyncio.Queue[asyncio.Task[bytes] | None]",
    ) -> None:
        answer: asyncio.Task[bytes] | None = None
        try:
            async for request in requests:
                # Snapshots are taken here, one after the other: no answer is older than the one before it.
                try:
                    work = await self._prepare(request)
                except InvalidArgument as error:
                    answer = asyncio.create_task(_refusal(request, error))
                else:
                    answer = asyncio.create_task(self._answer_or_refuse(request, work))
                await answers.put(answer)
        except asyncio.CancelledError:
            await _cancelled([answer] if answer is not None else [])
            raise
        except Exception:
            await answers.put(None)
            raise
        await answers.put(None)

    async def _prepare(self, request: pb.NearestFeaturesRequest) -> _Work:
        """What to ask of which snapshot, once all is visible that the request wants to see."""
        collection, query = await parsed(_parse, request)
        await self._projection.until_ready()
        if request.HasField("min_position"):
            await self._projection.wait_visible(request.min_position)
        beside = pb.NearestFeaturesResponse(id=request.id, snapshot=pb.Position(token=self._projection.position))
        return _Work(self._projection.snapshot(collection), query, beside)

    async def _answer_or_refuse(self, request: pb.NearestFeaturesRequest, work: _Work) -> bytes:
        snapshot, query, beside = work
        if snapshot is None:
            beside.counts.extend([0] * len(query.origins))
            return beside.SerializeToString()
        answer = _Answer(snapshot, request.content, self._max_answer_bytes)
        try:
            with ANSWERING.time():
                few = len(query.origins) * query.k <= _CHEAP and snapshot.end - snapshot.tail <= TAIL
                quickly = nearest_quickly(snapshot, query) if few and not query.filters else None
                if quickly is not None:
                    answer.add(quickly)
                else:
                    # Part by part: others get their turn between them, and nobody works for a caller who is gone.
                    loop, parts = asyncio.get_running_loop(), nearest_in_parts(snapshot, query)
                    while await loop.run_in_executor(self._executor, answer.add_next, parts):
                        pass
                return answer.encoded(beside)
        except InvalidArgument as error:
            return await _refusal(request, error)


async def _refusal(request: pb.NearestFeaturesRequest, error: InvalidArgument) -> bytes:
    """The answer to a request that is not valid."""
    first = error.violations[0]
    item = pb.ItemError(reason=first.reason, field=first.field, description=error.message)
    return pb.NearestFeaturesResponse(id=request.id, error=item).SerializeToString()


class _Answer:
    """One answer, growing part by part. Raises InvalidArgument as soon as it is too large for a message."""

    def __init__(self, snapshot: Snapshot, content: pb.NearestContent, max_bytes: int) -> None:
        self._columns, self._content, self._max_bytes = snapshot.columns, content, max_bytes
        self._counts: list[Ints] = []
        self._distances: list[Floats] = []
        self._encoded: list[bytes] = []
        self._bytes = 0

    def add_next(self, parts: Iterator[Nearest]) -> bool:
        """Take in the next part, if there is one."""
        found = next(parts, None)
        if found is not None:
            self.add(found)
        return found is not None

    def add(self, found: Nearest) -> None:
        """Take in a part."""
        self._counts.append(found.counts)
        self._distances.append(found.distances.astype("<f4"))
        self._grow(len(found.counts) + 4 * len(found.distances))
        if self._content == pb.NEAREST_CONTENT_FEATURES:
            items = self._columns.items[found.slots].tolist()
            self._grow(sum(map(len, items)) + len(items))
            self._encoded.append(codec.repeated(_FEATURES, items))
        elif self._content != pb.NEAREST_CONTENT_DISTANCES:
            ids: list[str] = self._columns.ids[found.slots].tolist()
            encoded = pb.NearestFeaturesResponse(ids=ids).SerializeToString()
            self._grow(len(encoded))
            self._encoded.append(encoded)

    def encoded(self, beside: pb.NearestFeaturesResponse) -> bytes:
        """The whole answer. It ends with its features."""
        packed = codec.packed_varints(_COUNTS, np.concatenate(self._counts))
        packed += codec.packed_floats(_DISTANCES, np.concatenate(self._distances))
        answer = b"".join((packed, beside.SerializeToString(), *self._encoded))
        self._grow(max(0, len(answer) - self._bytes))
        return answer

    def _grow(self, size: int) -> None:
        self._bytes += size
        if self._bytes > self._max_bytes:
            problems = Problems()
            description = f"the answer has more than {self._max_bytes} bytes; ask for fewer origins, or a smaller k"
            problems.add("latitudes", description, "TOO_LARGE")
            problems.check()


def _parse(request: pb.NearestFeaturesRequest) -> tuple[str, NearestQuery]:
    problems = Problems()
    collection = collection_of(problems, request.collection)
    if not request.id:
        problems.add("id", "must not be 0")
    latitudes, longitudes = np.array(request.latitudes, np.int64), np.array(request.longitudes, np.int64)
    if not 1 <= len(latitudes) <= MAX_ORIGINS:
        problems.add("latitudes", f"must be 1 to {MAX_ORIGINS}")
    if len(longitudes) != len(latitudes):
        problems.add("longitudes", "must be as many as latitudes")
    for name, values, most in (("latitudes", latitudes, LATITUDE_MAX), ("longitudes", longitudes, LONGITUDE_MAX)):
        for place in np.flatnonzero(np.abs(values) > most)[:10].tolist():
            problems.add(f"{name}[{place}]", f"must be from {-most} to {most}", "INVALID_LOCATION")
    if request.k > MAX_K:
        problems.add("k", f"must be at most {MAX_K}")
    if not (math.isfinite(request.max_distance_m) and request.max_distance_m >= 0):
        problems.add("max_distance_m", "must be finite and at least 0")
    if request.content not in pb.NearestContent.values():
        problems.add("content", "is not one that this server knows")
    filters = filters_of(problems, "filters", request.filters)
    problems.check()
    query = NearestQuery.of(latitudes, longitudes, request.k or 1, request.max_distance_m, filters)
    return collection, query


async def _cancelled(tasks: "Sequence[asyncio.Task[Any]]") -> None:
    """Cancel tasks and wait for their end, whatever it is."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
