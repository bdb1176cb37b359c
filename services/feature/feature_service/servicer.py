"""The gRPC methods: requests checked, handed to the part that answers them, answers encoded.

Registered raw: what a method answers are the bytes that go out.
"""

import asyncio
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from typing import Any

import grpc
from signpost.errors import NotFound, TooLarge
from signpost.server.tracing import current_traceparent

from feature_service import codec
from feature_service.fences.servicer import FenceServicer
from feature_service.geometry import unit_vector
from feature_service.importing import Importer
from feature_service.items import to_feature
from feature_service.lists import Lister
from feature_service.masks import read_mask_of
from feature_service.nearest_stream import NearestAnswerer
from feature_service.projection import Projection
from feature_service.search import Question, search, search_quickly
from feature_service.validation import (
    MAX_FEATURE_BYTES,
    Problems,
    check_id,
    check_message_id,
    check_point,
    collection_of,
    encoded_feature,
)
from feature_service.watching import Watcher
from feature_service.writes import Writer
from protos.feature.v1 import feature_pb2 as pb
from protos.storage.v1.storage_pb2 import ImportBatch
from protos.stream_service import stream_service_pb2 as seed

FEATURE_SERVICE = "feature.v1.FeatureService"
SEED_SERVICE = "stream_service.StreamService"
MAX_PUT_BYTES = MAX_FEATURE_BYTES + 1024
"""Of a whole request: more than a feature and the fields beside it can have."""
Context = grpc.aio.ServicerContext[Any, Any]


class FeatureServicer:
    """feature.v1.FeatureService."""

    def __init__(
        self,
        *,
        projection: Projection,
        writer: Writer,
        lister: Lister,
        watcher: Watcher,
        answerer: NearestAnswerer,
        importer: Importer,
        fences: FenceServicer,
    ) -> None:
        self._projection, self._writer, self._lister = projection, writer, lister
        self._watcher, self._answerer, self._importer = watcher, answerer, importer
        self._fences = fences

    async def watch_features(self, request: pb.WatchFeaturesRequest, context: Context) -> AsyncIterator[bytes]:
        """WatchFeatures."""
        async for frame in self._watcher.run(request):
            yield frame

    async def nearest_features(
        self, requests: AsyncIterator[pb.NearestFeaturesRequest], context: Context
    ) -> AsyncIterator[bytes]:
        """NearestFeatures."""
        async for answer in self._answerer.run(requests):
            yield answer

    async def import_features(
        self, requests: AsyncIterator[ImportBatch], context: Context
    ) -> AsyncIterator[pb.ImportFeaturesResponse]:
        """ImportFeatures."""
        async for answer in self._importer.run(requests):
            yield answer

    async def get_feature(self, request: pb.GetFeatureRequest, context: Context) -> bytes:
        """GetFeature."""
        problems = Problems()
        collection = collection_of(problems, request.collection)
        check_id(problems, "id", request.id)
        mask = read_mask_of(problems, request.read_mask)
        problems.check()
        await self._projection.until_ready()
        if request.HasField("min_position"):
            await self._projection.wait_visible(request.min_position)
        version = self._projection.version(collection, request.id)
        if version is None:
            raise NotFound(
                f"there is no feature {request.id!r} in {collection!r}",
                reason="FEATURE_NOT_FOUND",
                metadata={"collection": collection, "id": request.id},
            )
        item = version.item if mask is None else mask.apply(version.item)
        return codec.got(item, version.sequence, version.time_ns)

    async def put_feature(self, request: pb.PutFeatureRequest, context: Context) -> pb.PutFeatureResponse:
        """PutFeature."""
        problems = Problems()
        collection = collection_of(problems, request.collection)
        encoded = encoded_feature(problems, "feature.", request.feature)
        check_message_id(problems, request.message_id)
        problems.check()
        stored = await self._writer.put(
            collection,
            request.feature.id,
            encoded,
            message_id=request.message_id,
            expected_sequence=request.expected_sequence if request.HasField("expected_sequence") else None,
            traceparent=current_traceparent(),
        )
        token = await self._projection.log.position(stored.sequence)
        return pb.PutFeatureResponse(
            sequence=stored.sequence, duplicate=stored.duplicate, position=pb.Position(token=token)
        )

    async def delete_feature(self, request: pb.DeleteFeatureRequest, context: Context) -> pb.DeleteFeatureResponse:
        """DeleteFeature."""
        problems = Problems()
        collection = collection_of(problems, request.collection)
        check_id(problems, "id", request.id)
        check_message_id(problems, request.message_id)
        problems.check()
        deleted = await self._writer.delete(
            collection,
            request.id,
            message_id=request.message_id,
            expected_sequence=request.expected_sequence if request.HasField("expected_sequence") else None,
            traceparent=current_traceparent(),
        )
        if not deleted.sequence:
            return pb.DeleteFeatureResponse()
        token = await self._projection.log.position(deleted.sequence)
        return pb.DeleteFeatureResponse(
            sequence=deleted.sequence, duplicate=deleted.duplicate, position=pb.Position(token=token), deleted=True
        )

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The methods, for a server."""
        return grpc.method_handlers_generic_handler(
            FEATURE_SERVICE,
            {
                "ListFeatures": grpc.unary_stream_rpc_method_handler(
                    self._lister.list, pb.ListFeaturesRequest.FromString
                ),
                "WatchFeatures": grpc.unary_stream_rpc_method_handler(
                    self.watch_features, pb.WatchFeaturesRequest.FromString
                ),
                "NearestFeatures": grpc.stream_stream_rpc_method_handler(
                    self.nearest_features, pb.NearestFeaturesRequest.FromString
                ),
                "ImportFeatures": grpc.stream_stream_rpc_method_handler(
                    self.import_features,
                    ImportBatch.FromString,
                    pb.ImportFeaturesResponse.SerializeToString,
                ),
                "GetFeature": grpc.unary_unary_rpc_method_handler(self.get_feature, pb.GetFeatureRequest.FromString),
                "PutFeature": grpc.unary_unary_rpc_method_handler(
                    self.put_feature, _put_request, pb.PutFeatureResponse.SerializeToString
                ),
                "DeleteFeature": grpc.unary_unary_rpc_method_handler(
                    self.delete_feature, pb.DeleteFeatureRequest.FromString, pb.DeleteFeatureResponse.SerializeToString
                ),
                **self._fences.methods(),
            },
        )


def _put_request(raw: bytes) -> pb.PutFeatureRequest:
    """Decode what may be put. 4 MiB are not: reading them and encoding them again takes up to half a second.

    Raises TooLarge.
    """
    if len(raw) > MAX_PUT_BYTES:
        raise TooLarge("the message of a put", len(raw), MAX_PUT_BYTES)
    return pb.PutFeatureRequest.FromString(raw)


class SeedServicer:
    """stream_service.StreamService: the nearest places, one a message."""

    def __init__(self, projection: Projection, executor: Executor, limit: int) -> None:
        self._projection, self._executor, self._limit = projection, executor, limit

    async def list_features(self, request: seed.Point, context: Context) -> AsyncIterator[bytes]:
        """ListFeatures, from the collection `places`."""
        problems = Problems()
        check_point(problems, "", request.latitude, request.longitude)
        problems.check()
        await self._projection.until_ready()
        snapshot = self._projection.snapshot("places")
        if snapshot is None:
            return
        question = Question(unit_vector(request.latitude, request.longitude), limit=self._limit)
        found = search_quickly(snapshot, question)
        if found is None:
            found = await asyncio.get_running_loop().run_in_executor(self._executor, search, snapshot, question)
        for slot in found.slots.tolist():
            feature = to_feature(snapshot.columns.items[slot])
            location = seed.Point(latitude=feature.location.latitude, longitude=feature.location.longitude)
            yield seed.Feature(name=feature.name, location=location).SerializeToString()

    def handler(self) -> "grpc.GenericRpcHandler[Any, Any]":
        """The methods, for a server."""
        handler = grpc.unary_stream_rpc_method_handler(self.list_features, seed.Point.FromString)
        return grpc.method_handlers_generic_handler(SEED_SERVICE, {"ListFeatures": handler})
