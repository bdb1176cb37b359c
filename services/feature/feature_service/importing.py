"""ImportFeatures: batches in, acknowledgements out, in order, as fast as the log takes them.

Guarantees: a batch is acknowledged once all of its items are durable; an item that is wrong is
reported by its index and stops no other; a put that changes nothing appends nothing. "Nothing" is
judged against everything that this process knew to be durable when the batch came: an item whose
feature has an import on its way is appended, whatever it holds.

Its items are read in small parts, between which others get their turn, and none that is too large:
a message of 4 MiB takes up to a tenth of a second to read, and a quarter to encode again.

Batches overlap: while the log makes one durable, the next are parsed. At most `IN_FLIGHT` of them
wait, so a client that sends faster than the disk takes is held back by flow control.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from google.protobuf.message import DecodeError
from signpost.errors import SignpostError, TooLarge, Violation
from signpost.log.base import Append, Appended, Log
from signpost.log.subjects import encode_token

from feature_service.items import to_item
from feature_service.metrics import REFUSED, UNCHANGED, WRITTEN
from feature_service.projection import Projection
from feature_service.records import put_payload
from feature_service.validation import MAX_FEATURE_BYTES, MOST_OF_AN_ITEM, Problems, collection_of, encoded_feature
from protos.feature.v1.feature_pb2 import Feature, ImportFeaturesRequest, ImportFeaturesResponse, ItemError
from protos.storage.v1.storage_pb2 import ImportBatch

IN_FLIGHT = 8
MAX_ITEMS = 10_000
_new = tuple.__new__  # a NamedTuple's own constructor takes three times as long, once for each item
_SLICE, _SLICE_BYTES = 250, 1 << 17
"""Items, or their bytes, parsed before others get their turn: about 3 ms, and up to 10 ms where they are large."""


class _Batch(NamedTuple):
    """A batch on its way: the answer so far, the indexes of the items that wait, and what the log will say."""

    answer: ImportFeaturesResponse
    indexes: list[int]
    stored: "asyncio.Task[_Stored]"


class _Stored(NamedTuple):
    """What the log has said, and the sequences in it."""

    answers: list[Appended | SignpostError]
    sequences: list[int]


class Importer:
    """The imports of one process."""

    def __init__(self, log: Log, projection: Projection) -> None:
        self._log, self._projection = log, projection
        self._on_their_way: dict[str, dict[str, int]] = {}
        """How many appends of a feature are, by collection and id."""
        self._settling: set[asyncio.Task[None]] = set()

    async def run(self, requests: AsyncIterator[ImportBatch]) -> AsyncIterator[ImportFeaturesResponse]:
        """Answer each request, in order. Raises what a request or the log has against the whole stream."""
        batches: asyncio.Queue[_Batch | None] = asyncio.Queue(IN_FLIGHT)
        reader = asyncio.create_task(self._read(requests, batches))
        try:
            while (batch := await batches.get()) is not None:
                yield await self._answer(batch)
            await reader
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)

    async def close(self) -> None:
        """Wait for nothing more."""
        for task in tuple(self._settling):
            task.cancel()
        await asyncio.gather(*self._settling, return_exceptions=True)

    async def _read(self, requests: AsyncIterator[ImportBatch], batches: "asyncio.Queue[_Batch | None]") -> None:
        try:
            async for request in requests:
                await batches.put(await self._submit(request))
        except Exception:
            await batches.put(None)
            raise
        await batches.put(None)

    async def _submit(self, request: ImportBatch) -> _Batch:
        """Check a batch and hand it to the log."""
        collection = _check(request)
        prefix = encode_token(collection) + "."
        answer = ImportFeaturesResponse(id=request.id)
        indexes: list[int] = []
        ids: list[str] = []
        appends: list[Append] = []
        await self._projection.wait_for(self._log.head)
        on_their_way = self._on_their_way.setdefault(collection, {})
        for begin, raws in _slices(request.features):
            index = self._projection.index(collection)
            problems = Problems()
            for n, feature in enumerate(_features(raws), begin):
                if isinstance(feature, Violation):
                    answer.errors.append(_error(n, feature))
                    continue
                encoded = encoded_feature(problems, "", feature)
                if problems.violations:
                    answer.errors.extend(_error(n, violation) for violation in problems.violations[:MOST_OF_AN_ITEM])
                    problems = Problems()
                    continue
                feature_id = feature.id
                item = to_item(encoded)
                slot = index.slot(feature_id) if index is not None and feature_id not in on_their_way else None
                if index is not None and slot is not None and index.columns.items[slot] == item:
                    answer.unchanged += 1
                    continue
                ids.append(feature_id)
                indexes.append(n)
                appends.append(
                    _new(Append, (prefix + encode_token(feature_id), put_payload(item), "", "", None, False))
                )
                on_their_way[feature_id] = on_their_way.get(feature_id, 0) + 1
            try:
                await asyncio.sleep(0)
            except asyncio.CancelledError:
                self._arrived(collection, ids)  # nothing is on its way: the batch ends here
                raise
        stored = asyncio.create_task(self._store(appends))
        settling = asyncio.create_task(self._settle(stored, collection, ids))
        self._settling.add(settling)
        settling.add_done_callback(self._settling.discard)
        return _Batch(answer, indexes, stored)

    async def _store(self, appends: list[Append]) -> _Stored:
        answers = await self._log.append_many(appends)
        return _Stored(answers, [answer[0] for answer in answers if isinstance(answer, Appended)])

    async def _settle(self, stored: "asyncio.Task[_Stored]", collection: str, ids: list[str]) -> None:
        """Once what was appended is in the index, it is judged by the index again."""
        try:
            await self._projection.wait_for(max((await stored).sequences, default=0))
        except SignpostError:
            pass  # `_answer` tells the client; what was stored after all will be seen in the index
        finally:
            self._arrived(collection, ids)

    def _arrived(self, collection: str, ids: list[str]) -> None:
        on_their_way = self._on_their_way[collection]
        for feature_id in ids:
            if more := on_their_way.pop(feature_id) - 1:
                on_their_way[feature_id] = more

    async def _answer(self, batch: _Batch) -> ImportFeaturesResponse:
        answer = batch.answer
        answers, sequences = await batch.stored
        answer.written = len(sequences)
        if len(sequences) < len(answers):
            for n, stored in zip(batch.indexes, answers, strict=True):
                if isinstance(stored, TooLarge):
                    answer.errors.append(ItemError(index=n, reason=stored.reason, description=stored.message))
                elif isinstance(stored, SignpostError):
                    raise stored
        if sequences:
            answer.sequence = max(sequences)
            answer.position.token = await self._log.position(answer.sequence)
        WRITTEN.inc(answer.written)
        UNCHANGED.inc(answer.unchanged)
        REFUSED.inc(len(answer.errors))
        answer.errors.sort(key=lambda error: error.index)
        return answer


def _slices(raws: Sequence[bytes]) -> Iterator[tuple[int, Sequence[bytes]]]:
    """Encoded features in parts, after each of which others get their turn, and where each part begins."""
    begin = 0
    while begin < len(raws):
        some = raws[begin : begin + _SLICE]
        end = max(1, bisect_right(list(accumulate(map(len, some))), _SLICE_BYTES))
        yield begin, some[:end]
        begin += end


def _features(raws: Sequence[bytes]) -> Iterable[Feature | Violation]:
    """Encoded features decoded, or what is wrong with them; together, which takes a third less, where all are right."""
    if max(map(len, raws)) <= MAX_FEATURE_BYTES:
        try:
            return ImportFeaturesRequest.FromString(ImportBatch(features=raws).SerializeToString()).features
        except DecodeError:
            pass  # one by one
    return map(_feature, raws)


def _feature(raw: bytes) -> Feature | Violation:
    if len(raw) > MAX_FEATURE_BYTES:
        return Violation("", f"has {len(raw)} bytes; the limit is {MAX_FEATURE_BYTES}", "TOO_LARGE")
    try:
        return Feature.FromString(raw)
    except DecodeError:
        return Violation("", "is no feature: the bytes are malformed", "MALFORMED_MESSAGE")


def _check(request: ImportBatch) -> str:
    problems = Problems()
    collection = collection_of(problems, request.collection)
    if not request.id:
        problems.add("id", "must not be 0")
    if not 1 <= len(request.features) <= MAX_ITEMS:
        problems.add("features", f"must be 1 to {MAX_ITEMS}")
    problems.check()
    return collection


def _error(index: int, violation: Violation) -> ItemError:
    return ItemError(index=index, reason=violation.reason, field=violation.field, description=violation.description)
