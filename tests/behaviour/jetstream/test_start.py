"""That a process is back with everything that stands on JetStream."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import grpc
import pytest
from feature_service.config import FeatureSettings
from feature_service.items import to_item
from feature_service.records import put_payload
from feature_service.service import FeatureService
from signpost.log import Append, Appended, LogSettings, encode_token, open_store
from signpost.log.jetstream import JetStreamSettings, JetStreamStore

from protos.feature.v1 import feature_pb2, feature_pb2_grpc
from tests.support.nats import NatsCluster, NatsServer
from tests.support.services import running

PLACES = 235_000


def place(number: int) -> Append:
    """A feature as the service writes it; they lie on a grid, 500 a row."""
    identifier = f"place-{number}"
    feature = feature_pb2.Feature(
        id=identifier,
        name=f"Place {number}",
        location=feature_pb2.Point(latitude=number // 500 * 1_000_000, longitude=number % 500 * 1_000_000),
    )
    subject = f"places.{encode_token(identifier)}"
    return Append(subject, put_payload(to_item(feature.SerializeToString())), identifier)


@pytest.mark.long
async def test_fault_26_a_start_waits_for_a_cluster_that_is_not_whole_yet(tmp_path: Path) -> None:
    """Two of three nodes choose a leader, which knows of no place for a third copy."""
    cluster = NatsCluster(tmp_path)
    settings = JetStreamSettings(replicas=3, open_timeout_s=60.0)
    try:
        for node in cluster.nodes[:2]:
            node.start(wait=False)
        opening = asyncio.create_task(JetStreamStore.open(cluster.url, [LogSettings("notes")], settings))
        await asyncio.sleep(8)  # for a leader; later is as well
        assert not opening.done()
        cluster.nodes[2].start(wait=False)
        async with await opening as store:
            assert await store["notes"].append(Append("a", b"1")) == Appended(1, False)
    finally:
        cluster.stop()


@pytest.mark.long
async def test_235_000_places_are_replayed(tmp_path: Path) -> None:
    """How long it takes is a row of the benchmarks."""
    server = NatsServer(tmp_path / "nats")
    server.start()
    try:
        logs = FeatureService(FeatureSettings.model_validate({})).log_settings()
        async with open_store(server.url, logs) as store:
            for start in range(0, PLACES, 5000):
                await store["features"].append_many([place(number) for number in range(start, start + 5000)])
        async with open_store(server.url, logs) as store, aclosing(store["features"].follow(0)) as pages:
            replayed = 0
            async for page in pages:
                replayed += len(page.records)
                if page.through == PLACES:
                    break
        assert replayed == PLACES
        async with (
            running("feature_service", tmp_path / "service", log=server.url) as service,
            grpc.aio.insecure_channel(service.target) as channel,
        ):
            stub = feature_pb2_grpc.FeatureServiceStub(channel)
            request = feature_pb2.ListFeaturesRequest(origin=feature_pb2.Point(), limit=3)
            found = [listed.id async for batch in stub.ListFeatures(request) for listed in batch.features]
        assert found == ["place-0", "place-1", "place-500"]
    finally:
        server.kill()
