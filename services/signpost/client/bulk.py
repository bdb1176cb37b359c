"""Batches for the feature service's exchanges: items in, numbered requests out."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator
from typing import TypeVar

from protos.feature.v1 import feature_pb2 as fpb
from signpost.client.features import Feature, ItemError, NearestFeature
from signpost.client.geo import LatLon, to_e7
from signpost.errors import InvalidArgument, Violation

T = TypeVar("T")


async def items_of(source: Iterable[T] | AsyncIterable[T]) -> AsyncIterator[T]:
    """Either kind of iterable as the asynchronous one."""
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item


async def nearest_batches(
    origins: Iterable[LatLon] | AsyncIterable[LatLon], template: fpb.NearestFeaturesRequest, batch_size: int
) -> AsyncIterator[fpb.NearestFeaturesRequest]:
    """Requests of at most `batch_size` origins, numbered from 1."""
    number, places = 0, list[LatLon]()

    def take() -> fpb.NearestFeaturesRequest:
        request = fpb.NearestFeaturesRequest()
        request.CopyFrom(template)
        request.id = number
        request.latitudes.extend([to_e7(p[0]) for p in places])
        request.longitudes.extend([to_e7(p[1]) for p in places])
        places.clear()
        return request

    async for place in items_of(origins):
        places.append(place)
        if len(places) >= batch_size:
            number += 1
            yield take()
    if places:
        number += 1
        yield take()


def nearest_of(answer: fpb.NearestFeaturesResponse) -> Iterator[list[NearestFeature]]:
    """The neighbours of each origin of an answer. Raises InvalidArgument where it was refused."""
    if answer.HasField("error"):
        raise _refused(answer.error)
    at = 0
    for count in answer.counts:
        if answer.features:
            found = answer.features[at : at + count]
            yield [
                NearestFeature(f.id, d, Feature.from_message(f, distance_m=d))
                for f, d in zip(found, answer.distances_m[at : at + count], strict=True)
            ]
        else:
            yield [
                NearestFeature(id, d)
                for id, d in zip(answer.ids[at : at + count], answer.distances_m[at : at + count], strict=True)
            ]
        at += count


def _refused(error: fpb.ItemError) -> InvalidArgument:
    return InvalidArgument(
        error.description,
        violations=[Violation(error.field, error.description, error.reason)],
        reason=error.reason or None,
    )


async def import_batches(
    features: Iterable[Feature] | AsyncIterable[Feature], collection: str, batch_size: int, max_bytes: int
) -> AsyncIterator[fpb.ImportFeaturesRequest]:
    """Requests of at most `batch_size` features and half of `max_bytes`, numbered from 1."""
    request, size, number = fpb.ImportFeaturesRequest(id=1, collection=collection), 0, 1
    async for feature in items_of(features):
        length = feature.message.ByteSize()
        if request.features and (len(request.features) >= batch_size or size + length > max_bytes // 2):
            yield request
            number, size = number + 1, 0
            request = fpb.ImportFeaturesRequest(id=number, collection=collection)
        request.features.append(feature.message)
        size += length
    if request.features:
        yield request


def renumbered(errors: Iterable[fpb.ItemError], start: int) -> tuple[ItemError, ...]:
    """The refusals of a batch, with indexes that count from the first item of all batches."""
    return tuple(ItemError(start + e.index, e.reason, e.field, e.description) for e in errors)
