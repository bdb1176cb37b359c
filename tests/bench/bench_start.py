"""How soon a feature service is back with 235,000 places: its log replayed, and the whole process serving.

"Replayed" is opening the log and following it to the head, in this process. "Serving" is a new process from its
start to SERVING: the interpreter and its imports, the replay, the index.
"""

import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

from feature_service.config import FeatureSettings
from feature_service.items import to_item
from feature_service.records import put_payload
from feature_service.service import FeatureService
from signpost.log import Append, encode_token, open_store

from protos.feature.v1 import feature_pb2
from tests.bench.harness import Row, Stopwatch, compare
from tests.bench.plain_nats import has_nats
from tests.support.nats import NatsServer
from tests.support.services import running

PLACES = 235_000
_BATCH = 1_000


def place(number: int) -> Append:
    """A feature as the service writes it; they lie on a grid, 500 a row."""
    identifier = f"place-{number}"
    location = feature_pb2.Point(latitude=number // 500 * 1_000_000, longitude=number % 500 * 1_000_000)
    feature = feature_pb2.Feature(id=identifier, name=f"Place {number}", location=location)
    return Append(f"places.{encode_token(identifier)}", put_payload(to_item(feature.SerializeToString())), identifier)


async def _fill(url: str) -> None:
    async with open_store(url, FeatureService(FeatureSettings.model_validate({})).log_settings()) as store:
        for start in range(0, PLACES, _BATCH):
            await store["features"].append_many([place(number) for number in range(start, start + _BATCH)])


async def replayed_s(url: str) -> float:
    """Open the log and follow it to its head."""
    watch, through = Stopwatch(), 0
    logs = FeatureService(FeatureSettings.model_validate({})).log_settings()
    async with open_store(url, logs) as store, aclosing(store["features"].follow(0)) as pages:
        async for page in pages:
            through = page.through
            if through == PLACES:
                break
    return watch.elapsed_s


async def serving_s(url: str, directory: Path) -> float:
    """A process from its start to SERVING."""
    watch = Stopwatch()
    async with running("feature_service", directory, log=url):
        return watch.elapsed_s


async def _of(engine: str, url: str, directory: Path, repeats: int) -> AsyncIterator[Row]:
    await _fill(url)
    name = f"{engine}: {PLACES:,} places"
    yield await compare(f"{name}, replayed", "s", lambda: replayed_s(url), None, repeats)
    yield await compare(f"{name}, serving", "s", lambda: serving_s(url, directory), None, repeats)


async def rows(repeats: int) -> AsyncIterator[Row]:
    """Every row of this group."""
    with tempfile.TemporaryDirectory() as made:
        directory = Path(made)
        async for row in _of("sqlite", f"sqlite:///{directory / 'log.db'}", directory / "sqlite", repeats):
            yield row
        if not has_nats():
            return
        server = NatsServer(directory / "nats")
        server.start()
        try:
            async for row in _of("jetstream", server.url, directory / "jetstream", repeats):
                yield row
        finally:
            server.kill()
