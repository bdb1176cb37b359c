"""The cells of the matrix that have a story of their own: leaving, positions, slow callers, limits."""

import asyncio
import gc
import itertools
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from signpost import errors
from signpost.client import (
    Backoff,
    ClientSettings,
    EventKind,
    Feature,
    FeatureClient,
    FeatureList,
    Gap,
    NotificationClient,
    OutboxSettings,
    Position,
    State,
    StreamSettings,
)

from tests.behaviour.client import validators
from tests.behaviour.client.conftest import Services
from tests.behaviour.client.workloads import HASTY, WORLD
from tests.support.ports import free_port
from tests.support.services import ServiceProcess, running

_names = (f"t{n}" for n in itertools.count())


@pytest.fixture
def name() -> str:
    """A topic or collection of one's own."""
    return next(_names)


@pytest.fixture
async def features(services: Services) -> AsyncIterator[FeatureClient]:
    async with FeatureClient(services["feature_service"].target, settings=HASTY) as client:
        yield client


@pytest.fixture
async def notifications(services: Services) -> AsyncIterator[NotificationClient]:
    async with NotificationClient(services["notification_service"].target, settings=HASTY) as client:
        yield client


async def open_calls(service: ServiceProcess, method: str) -> int:
    """Calls of a method that the server has begun and not ended."""
    total = 0.0
    for line in (await service.metrics()).splitlines():
        if f'grpc_method="{method}"' in line and line.startswith(
            ("grpc_server_started_total", "grpc_server_handled_total")
        ):
            total += float(line.rsplit(" ", 1)[1]) * (1 if "started" in line else -1)
    return int(total)


@asynccontextmanager
async def leaves_nothing(service: ServiceProcess, method: str) -> AsyncIterator[None]:
    """What begins inside has ended on the server soon after."""
    before = await open_calls(service, method)
    yield
    gc.collect()
    async with asyncio.timeout(20):
        while await open_calls(service, method) > before:  # noqa: ASYNC110 - a server elsewhere sets no event
            await asyncio.sleep(0.05)


async def publish_numbers(client: NotificationClient, topic: str, count: int, first: int = 0) -> None:
    for start in range(first, first + count, 500):
        numbers = range(start, min(start + 500, first + count))
        await asyncio.gather(*[client.publish_nowait(topic, str(n)) for n in numbers])


@pytest.mark.columns("ListFeatures", "WatchFeatures", "subscribe", "publish", "unary")
async def test_fault_10_a_caller_that_leaves_leaves_nothing(
    services: Services, features: FeatureClient, notifications: NotificationClient, name: str
) -> None:
    service = services["feature_service"]
    async for _ in features.import_features([Feature(f"{n:05}", 1, 1) for n in range(3000)], collection=name):
        pass
    async with leaves_nothing(service, "ListFeatures"):
        async for _ in features.list(area=WORLD, collection=name, batch_size=10):
            break
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(_slowly(features.list(area=WORLD, collection=name, batch_size=1)), 0.05)
    async with leaves_nothing(service, "WatchFeatures"):
        async for _ in features.watch(WORLD, collection=name):
            break
        watch = features.watch(WORLD, collection=f"{name}-empty")
        assert (await anext(watch)).kind is EventKind.CAUGHT_UP
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await anext(watch)
        await features.put(Feature("a", 1, 1), collection=f"{name}-empty")
        assert (await anext(watch)).kind is EventKind.ENTERED  # the watch lives on
        await watch.aclose()
    async with (
        leaves_nothing(services["notification_service"], "Connect"),
        NotificationClient(services["notification_service"].target, settings=HASTY) as client,
    ):
        subscription = client.subscribe(name)
        await subscription.started()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await anext(subscription)
        publishing = asyncio.create_task(client.publish(name, "x"))
        await asyncio.sleep(0)
        publishing.cancel()
        assert (await client.publish(name, "y")).sequence
        while (await anext(subscription)).text != "y":
            pass
    async with leaves_nothing(service, "GetFeature"):
        call = asyncio.create_task(features.get("00001", collection=name))
        await asyncio.sleep(0)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call


async def _slowly(found: FeatureList) -> None:
    async for _ in found:
        await asyncio.sleep(0.01)


@pytest.mark.columns("subscribe", "publish")
@pytest.mark.long
async def test_fault_08_a_thousand_clients_lose_the_server_at_once(tmp_path: Path, name: str) -> None:
    count = 1000
    # A thousand in one process, on a slow machine, take longer to connect than one may.
    patient = ClientSettings(
        backoff=Backoff(first_s=0.1, cap_s=2.0),
        stream=StreamSettings(heartbeat_interval_s=10.0, connect_timeout_s=30.0),
    )
    async with running("notification_service", tmp_path) as service:
        clients = [NotificationClient(service.target, settings=patient) for _ in range(count)]
        subscriptions = [client.subscribe(name) for client in clients]
        async with asyncio.timeout(120):
            await asyncio.gather(*[s.started() for s in subscriptions])
            await clients[0].publish(name, "before")
            service.kill()
            await service.start()
            await clients[0].publish(name, "after")
            got = await asyncio.gather(*[_two(s) for s in subscriptions])
        assert got == [["before", "after"]] * count
        async with asyncio.timeout(30):
            await asyncio.gather(*[client.close() for client in clients])


async def _two(subscription: AsyncIterator) -> list[str]:  # type: ignore[type-arg]
    return [(await anext(subscription)).text for _ in range(2)]


@pytest.mark.columns("subscribe", "publish")
async def test_fault_12_the_log_is_recreated_under_a_subscription(tmp_path: Path, name: str) -> None:
    gaps: list[Gap] = []
    async with (
        running("notification_service", tmp_path, args=["--drain-s=0", "--stop-s=0.2"]) as service,
        NotificationClient(service.target, settings=HASTY) as client,
    ):
        goes_on = client.subscribe(name, on_gap=gaps.append)
        stops = client.subscribe(name)
        await publish_numbers(client, name, 10)
        assert [(await anext(goes_on)).text for _ in range(10)] == [str(n) for n in range(10)]
        assert [(await anext(stops)).text for _ in range(10)] == [str(n) for n in range(10)]
        service.kill()
        await asyncio.to_thread(shutil.rmtree, tmp_path / "data")
        await service.start()
        await publish_numbers(client, name, 3, first=100)  # publishing goes on
        assert (await anext(goes_on)).text == "100"
        with pytest.raises(errors.EpochChanged):
            await anext(stops)
    assert [gap.error.reason for gap in gaps] == ["EPOCH_CHANGED"]


@pytest.mark.columns("ListFeatures", "WatchFeatures", "unary")
async def test_fault_12_the_log_is_recreated_under_features(tmp_path: Path) -> None:
    async with running("feature_service", tmp_path) as service, FeatureClient(service.target, settings=HASTY) as client:
        for id in "abc":
            await client.put(Feature(id, 1, 1))
        watch = client.watch(WORLD)
        kinds = [(await anext(watch)).kind for _ in range(4)]
        assert kinds == [EventKind.ENTERED] * 3 + [EventKind.CAUGHT_UP]
        found = client.list(area=WORLD, batch_size=1)
        await anext(found)
        await anext(found)
        token = found.continuation
        service.kill()
        await asyncio.to_thread(shutil.rmtree, tmp_path / "data")
        await service.start()
        async with FeatureClient(service.target) as other:
            await other.put(Feature("b", 2, 2))
        with pytest.raises(errors.SignpostError) as caught:
            _ = [f async for f in client.list(area=WORLD, batch_size=1, continuation=token)]
        assert caught.value.reason in ("EPOCH_CHANGED", "CONTINUATION_EXPIRED", "POSITION_INVALID")
        assert (await client.get("b")).latitude == 2  # reads forget what the old log had
        seen: dict[str, EventKind] = {}
        while (event := await anext(watch)).feature is not None:
            seen[event.feature.id] = event.kind
        assert seen["a"] is EventKind.LEFT
        assert seen["c"] is EventKind.LEFT
        assert set(watch.features) == {"b"}
        await watch.aclose()


@pytest.mark.columns("subscribe", "unary")
async def test_fault_14_a_position_ahead_of_the_head(
    features: FeatureClient, notifications: NotificationClient, name: str
) -> None:
    with pytest.raises(errors.PositionAhead):
        await anext(notifications.subscribe(name, start=10**12))
    written = await features.put(Feature("a", 1, 1), collection=name)
    features._written.Clear()
    features._written.sequence = written.sequence + 10**6
    with pytest.raises((errors.DeadlineExceeded, errors.PositionAhead)):
        await features.get("a", collection=name, timeout_s=0.3)


@pytest.mark.columns("subscribe")
async def test_fault_15_publishes_during_the_change_from_replay_to_live(
    notifications: NotificationClient, name: str
) -> None:
    async def read(start: str) -> list[int]:
        subscription = notifications.subscribe(name, start="earliest", name=f"{name}-{start}")
        return [int((await anext(subscription)).payload) for _ in range(4000)]

    await publish_numbers(notifications, name, 1000)
    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        readers = [group.create_task(read("0"))]
        for n in range(1, 7):
            await publish_numbers(notifications, name, 500, first=500 + 500 * n)
            readers.append(group.create_task(read(str(n))))
    for reader in readers:
        validators.all_of_them(reader.result(), 4000)


@pytest.mark.columns("subscribe")
async def test_fault_16_a_slow_handler_that_publishes_and_subscribes(services: Services, name: str) -> None:
    # Hasty, but for heartbeats that a slow machine keeps.
    settings = ClientSettings(backoff=HASTY.backoff, stream=StreamSettings(heartbeat_interval_s=1.0))
    async with NotificationClient(services["notification_service"].target, settings=settings) as client:
        subscription = client.subscribe(name)
        await subscription.started()
        await publish_numbers(client, name, 3)
        for n in range(3):
            assert int((await anext(subscription)).payload) == n
            await asyncio.sleep(2.2)  # longer than two heartbeats
            await client.publish(f"{name}-inner", str(n))
            inner = client.subscribe(f"{name}-inner", start="earliest")
            assert [(await anext(inner)).text for _ in range(n + 1)] == [str(i) for i in range(n + 1)]
            await inner.aclose()
        assert client.status.state is State.CONNECTED
        assert client.status.last_error is None


@pytest.mark.columns("subscribe")
async def test_fault_16_a_handler_that_raises_has_not_handled_its_record(services: Services, name: str) -> None:
    target = services["notification_service"].target

    async def work() -> None:
        async with (
            NotificationClient(target, client_id=name, settings=HASTY) as client,
            client.subscribe(name, durable="d") as subscription,
        ):
            await publish_numbers(client, name, 4)
            async for notification in subscription:
                if int(notification.payload) == 1:
                    raise ValueError("the handler's own")

    with pytest.raises(ValueError, match="the handler's own"):
        await work()
    async with NotificationClient(target, client_id=name, settings=HASTY) as client:
        subscription = client.subscribe(name, durable="d")
        assert [int((await anext(subscription)).payload) for _ in range(3)] == [1, 2, 3]


@pytest.mark.columns("subscribe")
@pytest.mark.parametrize("count", [50_000, pytest.param(1_000_000, marks=pytest.mark.soak)])
async def test_fault_17_a_subscriber_that_stops_reading(
    notifications: NotificationClient, name: str, count: int
) -> None:
    stopped = notifications.subscribe(name)
    await stopped.started()
    await publish_numbers(notifications, name, count)
    assert stopped.buffered_bytes <= HASTY.stream.window_bytes * 1.5
    got: list[int] = []
    async with asyncio.timeout(120):
        async for batch in stopped.batches():
            got += [int(payload) for payload in batch.payloads]
            if len(got) >= count:
                break
    validators.all_of_them(got, count)


@pytest.mark.columns("WatchFeatures")
async def test_fault_17_a_watcher_that_stops_reading(features: FeatureClient, name: str) -> None:
    watch = features.watch(WORLD, collection=name)
    assert (await anext(watch)).kind is EventKind.CAUGHT_UP
    for round_ in range(3):
        moved = [Feature(f"{n}", round_, n % 90) for n in range(2000)]
        async for _ in features.import_features(moved, collection=name):
            pass
    await features.put(Feature("last", 1, 1), collection=name)
    held: dict[str, int] = {}
    async for event in watch:
        assert event.feature is not None
        assert event.sequence > held.get(event.feature.id, 0)
        held[event.feature.id] = event.sequence
        if event.feature.id == "last":
            break
    await watch.aclose()
    assert held == {f.id: f.sequence async for f in features.list(area=WORLD, collection=name)}


@pytest.mark.columns("publish")
async def test_fault_18_the_outbox_is_full_while_offline() -> None:
    settings = ClientSettings(
        backoff=HASTY.backoff,
        outbox=OutboxSettings(max_messages=5, flush_timeout_s=0.2),
        stream=StreamSettings(connect_timeout_s=0.3),
    )
    client = NotificationClient(f"127.0.0.1:{free_port()}", settings=settings)
    for n in range(5):
        client.publish_nowait("t", str(n))
    with pytest.raises(errors.OutboxFull):
        client.publish_nowait("t", "too many")
    with pytest.raises(errors.DeadlineExceeded):
        await client.publish("t", "waits", timeout_s=0.1)
    assert client.outbox.messages == 5
    assert client.status.state in (State.CONNECTING, State.RECONNECTING)
    assert [u.maybe_stored for u in await client.close()] == [False] * 5


@pytest.mark.columns("publish", "unary")
async def test_fault_19_a_message_over_the_limit(
    features: FeatureClient, notifications: NotificationClient, name: str
) -> None:
    with pytest.raises(errors.TooLarge) as caught:
        await notifications.publish(name, b"x" * 600_000)
    assert caught.value.limit_bytes == 512 * 1024
    assert (await notifications.publish(name, "the stream lives")).sequence
    with pytest.raises(errors.SignpostError) as refused:
        await features.put(Feature("a", 1, 1, properties={"k": "x" * 5_000_000}), collection=name)
    assert isinstance(refused.value, errors.ResourceExhausted | errors.InvalidArgument)
    assert (await features.put(Feature("a", 1, 1), collection=name)).sequence
    too_large = [Feature("b", 1, 1), Feature("c", 1, 1, properties={"k": "x" * 70_000}), Feature("d", 1, 1)]
    progress = [p async for p in features.import_features(too_large, collection=name)]
    assert (progress[-1].written, progress[-1].refused, progress[-1].errors[0].index) == (2, 1, 1)


@pytest.mark.columns("publish")
async def test_fault_04_a_retry_after_the_dedupe_window(tmp_path: Path, name: str) -> None:
    async with (
        running("notification_service", tmp_path, args=["--dedupe-window-s=4"]) as service,
        NotificationClient(service.target, client_id="a") as a,
        NotificationClient(service.target, client_id="b") as b,
    ):
        first = await a.publish(name, "x", message_id="m")
        again = await a.publish(name, "x", message_id="m")
        assert (again.sequence, again.duplicate) == (first.sequence, True)
        for other in (await b.publish(name, "x", message_id="m"), await a.publish(f"{name}-2", "x", message_id="m")):
            assert not other.duplicate
            assert other.sequence > first.sequence
        await asyncio.sleep(4.6)
        late = await a.publish(name, "x", message_id="m")
        assert not late.duplicate
        assert late.sequence > first.sequence


@pytest.mark.columns("publish")
async def test_fault_20_faster_than_the_allowance(tmp_path: Path, name: str) -> None:
    limits = ["--publish-rate-per-s=300", "--publish-burst=50"]
    async with (
        running("notification_service", tmp_path, args=limits) as service,
        NotificationClient(service.target, settings=HASTY) as fast,
        fast.subscribe(name) as subscription,
    ):
        began_s = asyncio.get_running_loop().time()
        numbers = iter(range(400))

        async def publish_some() -> None:
            for n in numbers:
                await fast.publish(name, str(n))

        async with asyncio.timeout(30):
            await asyncio.gather(*[publish_some() for _ in range(20)])
            took_s = asyncio.get_running_loop().time() - began_s
            got = [int((await anext(subscription)).payload) for _ in range(400)]
    validators.unique(got)
    validators.contiguous(got, 400)
    assert took_s > 0.8


@pytest.mark.columns("subscribe")
async def test_fault_21_another_session_ends_this_one_for_good(services: Services, name: str) -> None:
    target = services["notification_service"].target
    async with (
        NotificationClient(target, client_id=name, settings=HASTY) as older,
        older.subscribe(name) as subscription,
        NotificationClient(target, client_id=name, settings=HASTY) as newer,
    ):
        assert (await newer.publish(name, "x")).sequence
        with pytest.raises(errors.SessionFenced):
            _ = [n async for n in subscription]
        assert older.status.state is State.CLOSED
        await asyncio.sleep(0.5)
        assert await newer.status.wait_for(State.CONNECTED) is State.CONNECTED


async def test_a_position_outlives_the_process(services: Services, name: str) -> None:
    target = services["notification_service"].target
    async with NotificationClient(target) as client:
        await publish_numbers(client, name, 100)
        subscription = client.subscribe(name, start="earliest")
        for _ in range(42):
            await anext(subscription)
        stored = str(subscription.position)
    async with NotificationClient(target) as client:
        resumed = client.subscribe(name, position=Position.parse(stored))
        rest = [int((await anext(resumed)).payload) for _ in range(58)]
    validators.resumable(list(range(100)), 41, rest)


@pytest.mark.columns("WatchFeatures", "subscribe")
@pytest.mark.long
async def test_fault_11_ten_thousand_connects_leave_nothing(services: Services, name: str) -> None:
    """Tasks, calls and memory are where they were; the first thousand warm everything up."""
    feature, notification = services["feature_service"], services["notification_service"]

    async def cycle(client: FeatureClient, number: int) -> None:
        if number % 2:
            async with client.watch(WORLD, collection=name) as watch:
                await anext(watch)
        else:
            async with NotificationClient(notification.target, settings=HASTY) as other, other.subscribe(name):
                pass

    async def figures() -> tuple[int, int, float, float]:
        gc.collect()
        open_there = await open_calls(feature, "WatchFeatures") + await open_calls(notification, "Connect")
        return len(asyncio.all_tasks()), open_there, _rss_mib("self"), _rss_mib(str(notification.pid))

    async with FeatureClient(feature.target, settings=HASTY) as client:
        for number in range(1000):
            await cycle(client, number)
        await asyncio.sleep(0.5)
        tasks, open_there, mine_mib, theirs_mib = await figures()
        for number in range(9000):
            await cycle(client, number)
        async with asyncio.timeout(30):
            while (await figures())[1] > open_there:  # noqa: ASYNC110 - a server elsewhere sets no event
                await asyncio.sleep(0.5)
        tasks_after, open_after, mine_after_mib, theirs_after_mib = await figures()
    grew = f"client {mine_after_mib - mine_mib:+.1f} MiB, server {theirs_after_mib - theirs_mib:+.1f} MiB"
    print(f"\n9,000 more cycles: {grew}")  # noqa: T201 - shown with -s, for the documentation
    assert tasks_after <= tasks
    assert open_after <= open_there
    assert mine_after_mib - mine_mib < 30
    assert theirs_after_mib - theirs_mib < 30


def _rss_mib(pid: str) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * 4096 / (1 << 20)


@pytest.mark.columns("subscribe")
async def test_fault_13_retention_has_passed_the_position(tmp_path: Path, name: str) -> None:
    gaps: list[Gap] = []
    async with (
        running("notification_service", tmp_path, args=["--retention-bytes=20000"]) as service,
        NotificationClient(service.target, settings=HASTY) as client,
    ):
        first = await client.publish(name, "first")
        async with asyncio.timeout(30):
            while True:
                await asyncio.gather(*[client.publish_nowait(name, b"x" * 1000) for _ in range(100)])
                async with client.subscribe(name, start="earliest") as probe:
                    if (await anext(probe)).sequence > first.sequence:
                        break
        with pytest.raises(errors.PositionCompacted) as caught:
            await anext(client.subscribe(name, start=first.sequence))
        assert caught.value.first_available > first.sequence
        goes_on = client.subscribe(name, start=first.sequence, on_gap=gaps.append)
        assert (await anext(goes_on)).sequence >= caught.value.first_available
    assert [gap.error.reason for gap in gaps] == ["POSITION_COMPACTED"]
