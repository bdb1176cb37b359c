"""The answer of `FeatureClient.list`: features, nearest first, however often the stream breaks."""

from collections.abc import AsyncIterator, Iterator

from protos.feature.v1 import feature_pb2 as fpb
from signpost.client.features import Feature, FeatureBatch
from signpost.client.resume import ResumableStream
from signpost.client.states import Status

ListStream = ResumableStream[fpb.ListFeaturesRequest, fpb.ListFeaturesResponse, bytes]


class FeatureList:
    """An async iterator over features; `batches()` gives them as they come over the wire.

    One consistent snapshot, each feature once. `continuation` continues strictly after the last
    batch whose every feature was handed over (empty before the first and after the last): store
    it, and hand it to `list` later or elsewhere. Use one of the two ways to iterate, not both.
    """

    def __init__(self, stream: ListStream) -> None:
        self._stream = stream
        self._items: Iterator[Feature] = iter(())
        self._pending = b""
        self.continuation = b""
        self.snapshot: fpb.Position | None = None

    @property
    def status(self) -> Status:
        """The state of the stream."""
        return self._stream.status

    def __aiter__(self) -> "FeatureList":
        return self

    async def __anext__(self) -> Feature:
        while True:
            for feature in self._items:
                return feature
            self.continuation = self._pending
            batch = await self._next_batch()
            self._items, self._pending = iter(batch), batch.continuation

    async def _next_batch(self) -> FeatureBatch:
        batch = FeatureBatch(await self._stream.__anext__())
        if batch.message.HasField("snapshot"):
            self.snapshot = batch.message.snapshot
        if not batch.continuation:
            # The last batch: a cut between it and the status must not start the list again.
            await self._stream.finish()
        return batch

    async def batches(self) -> AsyncIterator[FeatureBatch]:
        """The batches; their features are decoded when they are read."""
        while True:
            try:
                batch = await self._next_batch()
            except StopAsyncIteration:
                return
            self.continuation = batch.continuation
            yield batch

    async def aclose(self) -> None:
        """End the list. Safe to repeat."""
        await self._stream.aclose()

    async def __aenter__(self) -> "FeatureList":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
