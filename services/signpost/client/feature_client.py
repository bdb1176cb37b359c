"""The client of the feature service."""

import weakref
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from operator import attrgetter
from typing import Any
from uuid import uuid4

import grpc

from protos.feature.v1 import feature_pb2 as fpb
from signpost.client import methods
from signpost.client.bulk import import_batches, nearest_batches, nearest_of, renumbered
from signpost.client.channels import Channels, TokenSource
from signpost.client.exchange import Exchange
from signpost.client.feature_list import FeatureList
from signpost.client.features import Deleted, Feature, Fence, ImportProgress, NearestFeature, Written
from signpost.client.geo import Area, Filter, LatLon, point
from signpost.client.instruments import Instruments, NoInstruments
from signpost.client.methods import Method, Req, Res
from signpost.client.reconnect import Reconnector
from signpost.client.resume import ResumableStream
from signpost.client.retry import Retry
from signpost.client.settings import ClientSettings
from signpost.client.states import StateChange, Status
from signpost.client.watch import Watch, WatchedSet
from signpost.errors import PositionError, SignpostError

DEFAULT_TARGET = "localhost:50051"


class FeatureClient:
    """Lists, watches and changes features.

    Everything it raises is a SignpostError (and ValueError for an argument that cannot be sent).
    Unary calls are tried again within their deadline; streams come back by themselves and never
    lose their place. Reads see this client's own writes, on any replica. Degrees, metres, seconds.
    Use it as an async context manager; leaving it ends its streams.
    """

    def __init__(
        self,
        target: str | Sequence[str] = DEFAULT_TARGET,
        *,
        credentials: grpc.ChannelCredentials | None = None,
        token: str | TokenSource | None = None,
        settings: ClientSettings | None = None,
        instruments: Instruments | None = None,
        on_state: Callable[[StateChange], None] | None = None,
    ) -> None:
        """`target`: one address or several, as in `signpost.client.channels`. `credentials`: for TLS.
        `token`: a bearer token, or what gives one (called again when it is refused). `on_state`:
        called at every change of a stream's state.
        """
        self.settings = settings or ClientSettings()
        self._instruments = instruments or NoInstruments()
        self._on_state = on_state
        self._channels = Channels(
            target, methods.FEATURE_SERVICE, self.settings.channel, credentials=credentials, token=token
        )
        self._retry = Retry(self._channels, self.settings.retry, self.settings.backoff, instruments=self._instruments)
        self._streams: weakref.WeakSet[ResumableStream[Any, Any, Any] | Exchange[Any, Any]] = weakref.WeakSet()
        self._written = fpb.Position()
        self._written_sequence = 0

    async def __aenter__(self) -> "FeatureClient":
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End every stream and connection. Safe to repeat."""
        for stream in list(self._streams):
            await stream.aclose()
        await self._channels.close()

    @property
    def min_position(self) -> bytes:
        """The highest position that this client's writes returned; every read waits for it."""
        return self._written.token

    def list(
        self,
        near: LatLon | None = None,
        *,
        area: Area | None = None,
        filters: Sequence[Filter] = (),
        limit: int = 0,
        collection: str = "places",
        read_mask: Sequence[str] = (),
        batch_size: int = 0,
        continuation: bytes = b"",
    ) -> FeatureList:
        """The features around a place and/or in an area, nearest first.

        limit 0: 100 with a place and no area, otherwise all. batch_size 0: 1000. `continuation`
        of an earlier list goes on strictly after it; everything else must then be as it was.
        """
        request = fpb.ListFeaturesRequest(
            collection=collection,
            filters=[f.to_proto() for f in filters],
            limit=limit,
            read_mask=read_mask,
            batch_size=batch_size,
        )
        if near is not None:
            request.origin.CopyFrom(point(near))
        if area is not None:
            request.area.CopyFrom(area.to_area())

        def first(position: bytes | None) -> fpb.ListFeaturesRequest:
            request.continuation = position or b""
            self._see_writes(request)
            return request

        stream = ResumableStream(
            self._reconnector("list"),
            methods.LIST_FEATURES,
            first,
            lambda batch: batch.continuation or None,
            position=continuation or None,
            silence_s=self.settings.stream.list_timeout_s,
            recovers=lambda error: self._forget_writes(error, request),
        )
        self._streams.add(stream)
        return FeatureList(stream)

    def watch(
        self,
        area: Area | None = None,
        *,
        filters: Sequence[Filter] = (),
        collection: str = "places",
        min_position: bytes = b"",
    ) -> Watch:
        """The features of an area, and from then on every change of that set.

        `min_position`: wait until this position (of an earlier watch or write) is visible.
        """
        interval_s = self.settings.stream.heartbeat_interval_s
        request = fpb.WatchFeaturesRequest(
            collection=collection,
            filters=[f.to_proto() for f in filters],
            progress_interval_ms=max(100, round(interval_s * 1000)),
        )
        if area is not None:
            request.area.CopyFrom(area.to_area())
        watched = WatchedSet()

        def first(position: fpb.Position | None) -> fpb.WatchFeaturesRequest:
            if position is None:
                watched.snapshot_begins()
                self._see_writes(request)
                if min_position:
                    request.min_position.token = min_position
            else:
                request.ClearField("min_position")
                request.resume.CopyFrom(position)
            return request

        stream = ResumableStream(
            self._reconnector("watch"),
            methods.WATCH_FEATURES,
            first,
            lambda frame: frame.position if frame.HasField("position") else None,
            silence_s=2 * interval_s,
            recovers=lambda error: not min_position and self._forget_writes(error, request),
        )
        self._streams.add(stream)
        return Watch(stream, watched)

    async def get(
        self, id: str, *, collection: str = "places", read_mask: Sequence[str] = (), timeout_s: float | None = None
    ) -> Feature:
        """One feature; raises NotFound."""
        request = fpb.GetFeatureRequest(collection=collection, id=id, read_mask=read_mask)
        answer = await self._read(methods.GET_FEATURE, request, timeout_s)
        return Feature.from_message(answer.feature, answer.sequence, answer.change_time_ns)

    async def put(
        self,
        feature: Feature,
        *,
        collection: str = "places",
        message_id: str | None = None,
        expected_sequence: int | None = None,
        timeout_s: float | None = None,
    ) -> Written:
        """Create or replace a feature. `expected_sequence`: only if that is its last change (0: only
        if there is none), otherwise raises StaleSequence. `message_id`: for a retry of your own."""
        request = fpb.PutFeatureRequest(
            collection=collection,
            feature=feature.message,
            message_id=uuid4().hex if message_id is None else message_id,
            expected_sequence=expected_sequence,
        )
        answer = await self._retry.call(methods.PUT_FEATURE, request, timeout_s=timeout_s)
        self._wrote(answer.position, answer.sequence)
        return Written(answer.sequence, answer.duplicate, answer.position.token)

    async def delete(
        self,
        id: str,
        *,
        collection: str = "places",
        message_id: str | None = None,
        expected_sequence: int | None = None,
        timeout_s: float | None = None,
    ) -> Deleted:
        """Delete a feature; deleting what is not there is no error."""
        request = fpb.DeleteFeatureRequest(
            collection=collection,
            id=id,
            message_id=uuid4().hex if message_id is None else message_id,
            expected_sequence=expected_sequence,
        )
        answer = await self._retry.call(methods.DELETE_FEATURE, request, timeout_s=timeout_s)
        if answer.HasField("position"):
            self._wrote(answer.position, answer.sequence)
        return Deleted(answer.deleted, answer.sequence, answer.duplicate)

    async def nearest(
        self,
        origins: Iterable[LatLon] | AsyncIterable[LatLon],
        k: int = 1,
        *,
        max_distance_m: float = 0.0,
        whole: bool = False,
        filters: Sequence[Filter] = (),
        collection: str = "places",
        batch_size: int = 1000,
    ) -> AsyncIterator[Sequence[NearestFeature]]:
        """The k nearest features of each origin, in the order of the origins.

        whole: with the features, not only ids. max_distance_m 0: no bound. Origins are taken
        from the iterable as answers come.
        """
        template = fpb.NearestFeaturesRequest(
            collection=collection,
            k=k,
            max_distance_m=max_distance_m,
            content=fpb.NEAREST_CONTENT_FEATURES if whole else fpb.NEAREST_CONTENT_IDS,
            filters=[f.to_proto() for f in filters],
        )
        self._see_writes(template)
        async with self._exchange(
            "nearest",
            methods.NEAREST_FEATURES,
            nearest_batches(origins, template, batch_size),
            lambda error, unanswered: self._forget_writes(error, template, *unanswered),
        ) as exchange:
            async for _, answer in exchange:
                for found in nearest_of(answer):
                    yield found

    async def import_features(
        self,
        features: Iterable[Feature] | AsyncIterable[Feature],
        *,
        collection: str = "places",
        batch_size: int = 1000,
    ) -> AsyncIterator[ImportProgress]:
        """Put many features; yields after every batch that is durable.

        Safe to run again: a put that changes nothing appends nothing. A refused feature is in
        `errors`, by its index in `features`, and does not stop the others.
        """
        batches = import_batches(features, collection, batch_size, self.settings.channel.max_message_bytes)
        written = unchanged = refused = start = 0
        async with self._exchange("import", methods.IMPORT_FEATURES, batches) as exchange:
            async for batch, answer in exchange:
                self._wrote(answer.position, answer.sequence)
                written += answer.written
                unchanged += answer.unchanged
                refused += len(answer.errors)
                yield ImportProgress(written, unchanged, refused, renumbered(answer.errors, start))
                start += len(batch.features)

    async def put_fence(self, fence: Fence, *, message_id: str | None = None, timeout_s: float | None = None) -> Fence:
        """Create or replace a fence; the fence with its uid and revision."""
        request = fpb.PutFenceRequest(
            fence=fence.to_proto(), message_id=uuid4().hex if message_id is None else message_id
        )
        answer = await self._retry.call(methods.PUT_FENCE, request, timeout_s=timeout_s)
        return Fence.from_message(answer.fence)

    async def delete_fence(self, id: str, *, notify_left: bool = False, timeout_s: float | None = None) -> bool:
        """Remove a fence; whether there was one. Not tried again after a failure that may have come
        too late. `notify_left`: publish `left` for every feature inside."""
        request = fpb.DeleteFenceRequest(id=id, notify_left=notify_left)
        return (await self._retry.call(methods.DELETE_FENCE, request, timeout_s=timeout_s)).deleted

    async def list_fences(self, *, collection: str = "", page_size: int = 0) -> AsyncIterator[Fence]:
        """The fences, by id. collection "": of all collections."""
        request = fpb.ListFencesRequest(collection=collection, page_size=page_size)
        while True:
            page = await self._retry.call(methods.LIST_FENCES, request)
            for message in page.fences:
                yield Fence.from_message(message)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    async def _read(self, method: Method[Req, Res], request: Req, timeout_s: float | None) -> Res:
        """A unary read that sees this client's writes."""
        self._see_writes(request)
        try:
            return await self._retry.call(method, request, timeout_s=timeout_s)
        except PositionError as error:
            if not self._forget_writes(error, request):
                raise
            return await self._retry.call(method, request, timeout_s=timeout_s)

    def _see_writes(self, request: Any) -> None:
        if self._written.ByteSize():
            request.min_position.CopyFrom(self._written)

    def _forget_writes(self, error: SignpostError, *requests: Any) -> bool:
        """Where the log was restored or recreated the writes are not there to be seen any more: whether any of these
        requests had waited for them."""
        stale = [r for r in requests if isinstance(error, PositionError) and r.HasField("min_position")]
        for request in stale:
            if request.min_position == self._written:
                self._written, self._written_sequence = fpb.Position(), 0
            request.ClearField("min_position")
        return bool(stale)

    def _wrote(self, position: fpb.Position, sequence: int) -> None:
        if sequence > self._written_sequence:
            self._written, self._written_sequence = position, sequence

    def _reconnector(self, stream: str) -> Reconnector:
        return Reconnector(
            self._channels,
            Status(stream, self._on_state),
            backoff=self.settings.backoff,
            settings=self.settings.stream,
            instruments=self._instruments,
        )

    def _exchange(
        self,
        name: str,
        method: Method[Req, Res],
        source: AsyncIterable[Req],
        recovers: Callable[[SignpostError, Iterable[Req]], bool] = lambda _error, _unanswered: False,
    ) -> Exchange[Req, Res]:
        exchange = Exchange(
            self._reconnector(name),
            method,
            source,
            attrgetter("id"),
            window=self.settings.stream.exchange_window,
            silence_s=self.settings.stream.list_timeout_s,
            recovers=recovers,
        )
        self._streams.add(exchange)
        return exchange
