"""The five ways to use the services that the matrix of faults breaks: each runs through a proxy, and then checks
itself over a connection of its own that nothing breaks."""

import asyncio
import itertools
from abc import ABC, abstractmethod

from signpost.client import (
    Backoff,
    Box,
    ClientSettings,
    EventKind,
    Feature,
    FeatureClient,
    NotificationClient,
    Position,
    RetrySettings,
    Status,
    StreamSettings,
)

from tests.behaviour.client import validators
from tests.support.services import ServiceProcess

HASTY = ClientSettings(
    backoff=Backoff(first_s=0.02, cap_s=0.2),
    retry=RetrySettings(timeout_s=20.0, try_timeout_s=0.5, budget_reserve=100.0),
    stream=StreamSettings(heartbeat_interval_s=0.4, connect_timeout_s=1.0, list_timeout_s=0.8),
)
WORLD = Box(-90, -180, 90, 180)
_names = itertools.count()


class Workload(ABC):
    """`run` works through `target`; `check` looks at what became of it. A new name each time, so that all share
    one service."""

    service = "feature_service"

    def __init__(self) -> None:
        self.name = f"w{next(_names)}"
        self.status: Status | None = None
        self.under_way = asyncio.Event()  # set once it has begun, so that a fault finds it at work

    async def prepare(self, service: ServiceProcess) -> None:  # noqa: B027 - most need nothing
        """What has to be there before; over a connection that nothing breaks."""

    @abstractmethod
    async def run(self, target: str, service: ServiceProcess) -> None:
        """Work, through `target`; whatever else moves uses `service` itself."""

    @abstractmethod
    async def check(self, service: ServiceProcess) -> None:
        """Raise AssertionError where a promise was broken."""


class ListFeatures(Workload):
    """A list of 3,000 features in small batches, with a stored token half-way."""

    count = 3000

    def __init__(self) -> None:
        super().__init__()
        self.got: list[int] = []
        self.token = b""
        self.at = 0

    async def prepare(self, service: ServiceProcess) -> None:
        features = [Feature(f"{n:05}", n % 80, n % 170, name="x" * 50) for n in range(self.count)]
        async with FeatureClient(service.target) as client:
            async for _ in client.import_features(features, collection=self.name):
                pass

    async def run(self, target: str, service: ServiceProcess) -> None:
        async with FeatureClient(target, settings=HASTY) as client:
            found = client.list(area=WORLD, collection=self.name, batch_size=100)
            self.status = found.status
            async for feature in found:
                self.got.append(int(feature.id))
                if found.continuation and not self.token:
                    self.token, self.at = found.continuation, len(self.got) - 2
                if len(self.got) % 100 == 0:
                    self.under_way.set()
                    await asyncio.sleep(0.02)

    async def check(self, service: ServiceProcess) -> None:
        validators.all_of_them(self.got, self.count)
        async with FeatureClient(service.target) as client:
            found = client.list(area=WORLD, collection=self.name, batch_size=100, continuation=self.token)
            validators.resumable(self.got, self.at, [int(feature.id) async for feature in found])


class WatchFeatures(Workload):
    """A watch of a set that somebody else changes: the events must be true, and the set in the end the same."""

    changes = 150

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, int] = {}

    async def run(self, target: str, service: ServiceProcess) -> None:
        async with FeatureClient(target, settings=HASTY) as client, asyncio.TaskGroup() as group:
            watch = client.watch(WORLD, collection=self.name)
            self.status = watch.status
            group.create_task(self._change(service))
            async for event in watch:
                if event.feature is None:
                    self.under_way.set()
                    continue
                id, was = event.feature.id, self.held.get(event.feature.id)
                if event.kind is EventKind.LEFT:
                    assert was is not None, f"{id} left and was never there"
                    del self.held[id]
                else:
                    assert (was is None) == (event.kind is EventKind.ENTERED), f"{id}: {event.kind} while {was}"
                    assert event.sequence > (was or 0), f"{id}: {event.sequence} came after {was}"
                    self.held[id] = event.sequence
                if id == "last":
                    break

    async def _change(self, service: ServiceProcess) -> None:
        await self.under_way.wait()
        async with FeatureClient(service.target, settings=HASTY) as client:
            for n in range(self.changes):
                if n % 5 == 4:
                    await client.delete(f"{(n - 2) % 20}", collection=self.name)
                else:
                    await client.put(Feature(f"{n % 20}", n % 60, n % 90), collection=self.name)
                await asyncio.sleep(0.01)
            await client.put(Feature("last", 1, 1), collection=self.name)

    async def check(self, service: ServiceProcess) -> None:
        async with FeatureClient(service.target) as client:
            there = {f.id: f.sequence async for f in client.list(area=WORLD, collection=self.name)}
        assert self.held == there


class Subscribe(Workload):
    """A subscription to what somebody else publishes, with a position stored half-way."""

    service = "notification_service"
    count = 2000

    def __init__(self) -> None:
        super().__init__()
        self.got: list[int] = []
        self.position: Position | None = None
        self.at = 0

    async def run(self, target: str, service: ServiceProcess) -> None:
        async with NotificationClient(target, settings=HASTY) as client, asyncio.TaskGroup() as group:
            subscription = client.subscribe(self.name)
            self.status = client.status
            await subscription.started()
            group.create_task(self._publish(service))
            async for notification in subscription:
                self.got.append(int(notification.payload))
                if len(self.got) == self.count // 3 + 7:
                    self.position, self.at = subscription.position, len(self.got) - 1
                if self.got[-1] == self.count - 1:
                    break

    async def _publish(self, service: ServiceProcess) -> None:
        async with NotificationClient(service.target, settings=HASTY) as client:
            for start in range(0, self.count, 50):
                answers = [client.publish_nowait(self.name, str(n)) for n in range(start, start + 50)]
                await asyncio.gather(*answers)
                self.under_way.set()
                await asyncio.sleep(0.03)

    async def check(self, service: ServiceProcess) -> None:
        validators.all_of_them(self.got, self.count)
        rest: list[int] = []
        async with NotificationClient(service.target) as client:
            async for notification in client.subscribe(self.name, position=self.position):
                rest.append(int(notification.payload))
                if rest[-1] == self.count - 1:
                    break
        validators.resumable(self.got, self.at, rest)


class Publish(Workload):
    """Publishes through the fault, many at a time; what the log holds in the end decides."""

    service = "notification_service"
    count = 1000

    def __init__(self, client_id: str = "") -> None:
        super().__init__()
        self.client_id = client_id
        self.sequences: list[int] = []
        self.duplicates = 0

    async def run(self, target: str, service: ServiceProcess) -> None:
        async with NotificationClient(target, settings=HASTY, client_id=self.client_id) as client:
            self.status = client.status
            for start in range(0, self.count, 20):
                numbers = range(start, start + 20)
                answers = await asyncio.gather(*[client.publish(self.name, str(n)) for n in numbers])
                self.sequences += [a.sequence for a in answers]
                self.duplicates += sum(a.duplicate for a in answers)
                self.under_way.set()
                await asyncio.sleep(0.02)

    async def check(self, service: ServiceProcess) -> None:
        stored: list[tuple[int, int]] = []
        async with NotificationClient(service.target) as client:
            subscription = client.subscribe(self.name, start="earliest")
            while len(stored) < self.count:
                async with asyncio.timeout(10):
                    notification = await anext(subscription)
                stored.append((int(notification.payload), notification.sequence))
        validators.all_of_them([number for number, _ in stored], self.count)
        assert self.sequences == [sequence for _, sequence in stored]


class Unary(Workload):
    """Puts one after the other; each must have been written once, at the sequence that was answered."""

    count = 60

    def __init__(self) -> None:
        super().__init__()
        self.sequences: list[int] = []
        self.duplicates = 0

    async def run(self, target: str, service: ServiceProcess) -> None:
        async with FeatureClient(target, settings=HASTY) as client:
            for n in range(self.count):
                written = await client.put(Feature(f"{n}", n, n), collection=self.name, expected_sequence=0)
                self.sequences.append(written.sequence)
                self.duplicates += written.duplicate
                assert (await client.get(f"{n}", collection=self.name)).sequence == written.sequence
                self.under_way.set()
                await asyncio.sleep(0.01)

    async def check(self, service: ServiceProcess) -> None:
        validators.ordered(self.sequences)
        async with FeatureClient(service.target) as client:
            there = {int(f.id): f.sequence async for f in client.list(area=WORLD, collection=self.name)}
        validators.contiguous(list(there), self.count)
        assert [there[n] for n in range(self.count)] == self.sequences


WORKLOADS: dict[str, type[Workload]] = {
    "ListFeatures": ListFeatures,
    "WatchFeatures": WatchFeatures,
    "subscribe": Subscribe,
    "publish": Publish,
    "unary": Unary,
}
