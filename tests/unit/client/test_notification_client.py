"""The notification client over scripted streams: what it sends, and what it does about every frame and error."""

import asyncio
import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from signpost import errors
from signpost.client import (
    ClientSettings,
    FilePositionStore,
    NotificationClient,
    OutboxSettings,
    Position,
    State,
    StreamSettings,
    Subscription,
)
from signpost.client.methods import CONNECT, LIST_PRESENCE, LIST_TOPICS

from protos.notification.v1 import notification_pb2 as npb
from tests.unit.client.scripted import FAST, Script, answering, fail, failing_stream, serving

CODE = grpc.StatusCode
Frame = npb.ConnectResponse
WELCOME = Frame(welcome=npb.Welcome(client_id="c", heartbeat_interval_ms=15000, max_record_bytes=1000))
QUICK = ClientSettings(
    backoff=FAST.backoff,
    stream=StreamSettings(heartbeat_interval_s=0.6, connect_timeout_s=10.0),
    outbox=OutboxSettings(flush_timeout_s=0.5),
)


def records(name: str, after: int, *sequences: int, through: int = 0) -> npb.ConnectResponse:
    through = through or (sequences[-1] if sequences else after)
    return Frame(
        delivery=npb.Delivery(
            subscription=name,
            after=after,
            through=through,
            position=npb.Position(token=b"%d" % through),
            notifications=[npb.Notification(sequence=s, topic="t", payload=b"%d" % s) for s in sequences],
        )
    )


def subscribed(name: str, token: bytes = b"0") -> npb.ConnectResponse:
    return Frame(subscribed=npb.Subscribed(subscription=name, position=npb.Position(token=token)))


class Hub:
    """A tiny hub behind scripts: keeps the frames it got; publishes get rising sequences, by message id."""

    def __init__(self) -> None:
        self.got: list[npb.ConnectRequest] = []
        self.stored: dict[str, int] = {}

    def of(self, kind: str) -> list[Any]:
        return [getattr(f, kind) for f in self.got if f.WhichOneof("frame") == kind]

    async def until(self, kind: str) -> None:
        """Return once a frame of this kind came."""
        async with asyncio.timeout(20):
            while not self.of(kind):  # noqa: ASYNC110 - scripts set no events
                await asyncio.sleep(0.01)

    def published(self, frame: npb.PublishFrame) -> npb.ConnectResponse:
        results = []
        for p in frame.publications:
            seen = p.message_id in self.stored
            sequence = self.stored.setdefault(p.message_id, len(self.stored) + 1)
            results.append(npb.PublishResult(sequence=sequence, duplicate=seen))
        return Frame(published=npb.Published(id=frame.id, results=results))

    def script(self, *after_subscribe: Any, answer: bool = True, end: Any = None, lose: int = 0) -> Script:
        """Welcomes, answers, and after the first `subscribe` sends these frames, then fails with `end`. `lose`: stores
        so many publish frames without answering, then fails."""

        async def run(requests: Any, context: Any) -> Any:
            lost = 0
            async for frame in requests:
                self.got.append(frame)
                kind = frame.WhichOneof("frame")
                if kind == "hello":
                    yield WELCOME
                    if end is not None and not after_subscribe:
                        await fail(context, *end)
                elif kind == "subscribe":
                    yield subscribed(frame.subscribe.subscription)
                    for message in after_subscribe:
                        yield message
                    if after_subscribe and end is not None:
                        await fail(context, *end)
                elif kind == "publish" and lose:
                    self.published(frame.publish)
                    lost += 1
                    if lost == lose:
                        await fail(context, CODE.UNAVAILABLE)
                elif kind == "publish" and answer:
                    yield self.published(frame.publish)
                elif kind == "ping":
                    yield Frame(pong=npb.Pong(id=frame.ping.id))

        return run


@asynccontextmanager
async def client_of(
    *scripts: Script, settings: ClientSettings = FAST, **more: Any
) -> AsyncIterator[NotificationClient]:
    async with serving({CONNECT: list(scripts)}) as server:
        async with NotificationClient(server.target, settings=settings, **more) as client:
            yield client
        await server.none_open()


async def take(subscription: Subscription, count: int) -> list[int]:
    async with asyncio.timeout(20):
        return [(await anext(subscription)).sequence for _ in range(count)]


async def test_fault_1_a_subscription_goes_on_from_what_it_has() -> None:
    hub = Hub()
    scripts = [
        hub.script(records("s1", 0, 1, 2), end=(CODE.UNAVAILABLE,)),
        failing_stream(CODE.UNAVAILABLE),
        hub.script(records("s1", 0, 1, 2, 3), records("s1", 3, through=9), end=(CODE.UNAVAILABLE,)),
        hub.script(records("s1", 9, 10)),
    ]
    changes: list[State] = []
    async with (
        client_of(*scripts, on_state=lambda change: changes.append(change.state)) as client,
        client.subscribe("t") as subscription,
    ):
        assert await take(subscription, 4) == [1, 2, 3, 10]
        assert subscription.position == Position(b"10", 10)
        assert client.status.state is State.CONNECTED
    starts = [s.start for s in hub.of("subscribe")]
    assert starts[0].HasField("new")
    assert [s.after.token for s in starts[1:]] == [b"2", b"9"]
    assert changes[-1] is State.CLOSED
    assert State.RECONNECTING in changes


async def test_fault_3_publishes_over_a_lost_answer_are_stored_once_and_in_order() -> None:
    hub = Hub()
    async with client_of(hub.script(lose=1), hub.script()) as client:
        got = await asyncio.gather(*[client.publish("t", str(n)) for n in range(10)])
    assert [p.sequence for p in got] == list(range(1, 11))
    assert got[0].duplicate
    assert len(hub.stored) == 10


async def test_what_waits_behind_a_write_goes_out_as_one_frame() -> None:
    hub = Hub()
    async with client_of(hub.script()) as client:
        answers = [client.publish_nowait("t", b"x", attributes={"k": "v"}, ttl_s=1.5) for _ in range(500)]
        await client.flush()
        assert all(a.done() for a in answers)
    frames = hub.of("publish")
    assert len(frames) <= 3
    assert frames[0].publications[0].ttl_ms == 1500
    assert frames[0].publications[0].attributes == {"k": "v"}


async def test_fault_5_a_silent_stream_is_left_and_a_living_one_is_not() -> None:
    hub = Hub()

    async def frozen(requests: Any, context: Any) -> Any:
        yield WELCOME
        await asyncio.Event().wait()

    async with client_of(frozen, hub.script(records("s1", 0, 1)), settings=QUICK) as client:
        subscription = client.subscribe("t")
        assert await take(subscription, 1) == [1]
        assert client.status.last_error is not None
        assert client.status.last_error.reason == "SILENT"
        async with asyncio.timeout(20):
            while len(hub.of("ping")) < 2:  # noqa: ASYNC110 - scripts set no events
                await asyncio.sleep(0.01)
        assert len(hub.of("hello")) == 1
        await subscription.aclose()


async def test_a_servers_ping_is_answered() -> None:
    hub = Hub()
    async with client_of(hub.script(Frame(ping=npb.Ping(id=7)))) as client, client.subscribe("t"):
        await hub.until("pong")
    assert hub.of("pong")[0].id == 7


async def test_fault_21_a_fenced_session_ends_everything_for_good() -> None:
    hub = Hub()
    # A fenced session is refused again: a write that crosses the end of its call hides the status from grpc.aio.
    refused = failing_stream(CODE.ABORTED, "SESSION_FENCED")
    scripts = [hub.script(records("s1", 0, 1), end=(CODE.ABORTED, "SESSION_FENCED")), refused]
    async with client_of(*scripts, client_id="me") as client:
        subscription = client.subscribe("t")
        assert await take(subscription, 1) == [1]
        with pytest.raises(errors.SessionFenced):
            await anext(subscription)
        assert client.status.state is State.CLOSED
        with pytest.raises(errors.SessionFenced):
            client.subscribe("t")
        with pytest.raises(errors.SessionFenced):
            await client.publish("t")
        await asyncio.sleep(0.1)
    assert len(hub.of("hello")) == 1
    assert hub.of("hello")[0].client_id == "me"
    assert hub.of("hello")[0].session_id


async def test_fault_7_draining_moves_first_and_loses_nothing() -> None:
    old_hub, new_hub = Hub(), Hub()
    draining = Frame(draining=npb.Draining(deadline_ms=30_000))
    old = old_hub.script(records("s1", 0, 1), draining, records("s1", 1, 2))
    async with (
        serving({CONNECT: [old]}) as first,
        serving({CONNECT: [new_hub.script(records("s1", 1, 2, 3))]}) as second,
    ):
        changes: list[State] = []
        async with NotificationClient(
            [first.target, second.target], settings=FAST, on_state=lambda change: changes.append(change.state)
        ) as client:
            client._channels._index = 0
            subscription = client.subscribe("t")
            assert await take(subscription, 3) == [1, 2, 3]
            await first.none_open()
            assert (await client.publish("t", "x")).sequence == 1
        assert changes == [State.CONNECTED, State.DRAINING, State.CONNECTED, State.CLOSED]
    assert new_hub.of("subscribe")[0].start.after.token in (b"1", b"2")
    assert not old_hub.stored


async def test_fault_7_what_the_draining_server_does_not_answer_is_sent_to_the_next() -> None:
    old_hub, new_hub = Hub(), Hub()
    publishing = asyncio.Event()

    async def old(requests: Any, context: Any) -> Any:
        async for frame in requests:
            kind = frame.WhichOneof("frame")
            if kind == "hello":
                yield WELCOME
            elif kind == "publish":
                publishing.set()
                yield Frame(draining=npb.Draining(deadline_ms=10))
                await asyncio.sleep(0.2)
                await fail(context, CODE.UNAVAILABLE, "DRAINING")

    async with (
        serving({CONNECT: [old]}) as first,
        serving({CONNECT: [new_hub.script()]}) as second,
        NotificationClient([first.target, second.target], settings=FAST) as client,
    ):
        client._channels._index = 0
        assert (await client.publish("t", "x")).sequence == 1
    assert publishing.is_set()
    assert len(new_hub.stored) == 1
    assert not old_hub.stored


async def test_a_missing_delivery_makes_it_ask_again() -> None:
    hub = Hub()
    scripts = [hub.script(records("s1", 0, 1), records("s1", 5, 6)), hub.script(records("s1", 1, 3, 6))]
    async with client_of(*scripts) as client:
        assert await take(client.subscribe("t"), 3) == [1, 3, 6]
        assert client.status.last_error is not None
        assert client.status.last_error.reason == "NOT_CONTIGUOUS"


async def test_an_error_frame_ends_the_subscription_it_names_or_starts_it_again() -> None:
    hub = Hub()
    refused = Frame(error=npb.ErrorFrame(subscription="s1", error=npb.Error(code=3, reason="INVALID_ARGUMENT")))
    passing = npb.Error(code=14, reason="LOG_UNAVAILABLE", retry_after_ms=20)
    later = Frame(error=npb.ErrorFrame(subscription="s2", error=passing))
    stale = npb.Error(code=5, reason="SUBSCRIPTION_UNKNOWN")
    crossed = Frame(error=npb.ErrorFrame(subscription="s3", error=stale))
    other = Frame(error=npb.ErrorFrame(subscription="unknown", error=stale))

    async def script(requests: Any, context: Any) -> Any:
        tries = 0
        async for frame in requests:
            kind, name = frame.WhichOneof("frame"), frame.subscribe.subscription
            if kind == "hello":
                yield WELCOME
            elif kind == "subscribe" and name == "s1":
                yield refused
            elif kind == "subscribe" and name == "s2":
                tries += 1
                if tries == 1:
                    yield later
                else:
                    yield subscribed("s2")
                    yield records("s2", 0, 1)
            elif kind == "subscribe":
                yield subscribed("s3")
                yield crossed
                yield other
                yield records("s3", 0, 4)

    async with client_of(script) as client:
        bad, slow, good = client.subscribe("a"), client.subscribe("b"), client.subscribe("c")
        with pytest.raises(errors.InvalidArgument):
            await bad.started()
        with pytest.raises(errors.InvalidArgument):
            await anext(bad)
        assert await take(slow, 1) == [1]
        assert await take(good, 1) == [4]
    assert not hub.got


async def test_a_name_may_be_used_again_while_frames_of_its_former_bearer_are_on_their_way() -> None:
    async def script(requests: Any, context: Any) -> Any:
        filters: list[str] = []
        async for frame in requests:
            kind = frame.WhichOneof("frame")
            if kind == "hello":
                yield WELCOME
            elif kind == "subscribe":
                filters.append(frame.subscribe.filter)
                if len(filters) == 3:  # the server reads everything at once, and much is on its way by then
                    yield subscribed("n")
                    yield records("n", 0, 1)
                    yield Frame(error=npb.ErrorFrame(subscription="n", error=npb.Error(code=3, reason="NO")))
                    yield records("n", 1, 2)
                    yield subscribed("n", b"7")
                    yield records("n", 7, 8)

    async with client_of(script) as client:
        first = client.subscribe("a", name="n")
        await client.status.wait_for(State.CONNECTED)
        await first.aclose()
        await client.subscribe("b", name="n").aclose()
        assert await take(client.subscribe("c", name="n"), 1) == [8]


async def test_fault_23_an_acknowledgement_that_is_refused_for_now_does_not_end_the_subscription() -> None:
    hub = Hub()
    full = npb.Error(code=8, reason="STORAGE_FULL", message="the disk is full", retry_after_ms=1)

    async def script(requests: Any, context: Any) -> Any:
        async for frame in requests:
            kind = frame.WhichOneof("frame")
            hub.got.append(frame)
            if kind == "hello":
                yield WELCOME
            elif kind == "subscribe":
                yield subscribed("d")
                yield records("d", 0, 1)
            elif kind == "ack":
                yield Frame(error=npb.ErrorFrame(subscription="d", error=full))
                await asyncio.sleep(0.1)
                yield records("d", 1, 2)

    async with client_of(script, client_id="c") as client:
        subscription = client.subscribe("t", durable="d", ack="manual")
        assert await take(subscription, 1) == [1]
        subscription.ack()
        assert await take(subscription, 1) == [2]
        assert len(hub.of("subscribe")) == 1
        await subscription.aclose()


async def test_fault_20_a_rate_limited_publish_is_sent_again_when_the_server_says() -> None:
    hub = Hub()

    async def script(requests: Any, context: Any) -> Any:
        refused = False
        async for frame in requests:
            kind = frame.WhichOneof("frame")
            if kind == "hello":
                yield WELCOME
            elif kind == "publish" and not refused:
                refused = True
                limited = npb.Error(code=8, reason="RATE_LIMITED", retry_after_ms=30)
                yield Frame(error=npb.ErrorFrame(publish_id=frame.publish.id, error=limited))
            elif kind == "publish":
                yield hub.published(frame.publish)

    async with client_of(script) as client:
        assert (await client.publish("t")).sequence == 1


async def test_fault_19_a_publish_over_the_servers_limit_is_refused_here() -> None:
    hub = Hub()
    async with client_of(hub.script()) as client:
        await client.publish("t")
        with pytest.raises(errors.TooLarge) as caught:
            await client.publish("t", b"x" * 2000)
        assert caught.value.limit_bytes == 1000


async def test_a_publish_can_have_a_deadline() -> None:
    async with client_of(Hub().script(answer=False), settings=QUICK) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.publish("t", timeout_s=0.1)


async def test_close_says_what_it_could_not_send(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "signpost.client"):
        hub = Hub()
        async with client_of(hub.script(answer=False), settings=QUICK) as client:
            lost = client.publish_nowait("t", "x", message_id="m1")
            await hub.until("publish")
        assert [(u.topic, u.message_id, u.maybe_stored) for u in client.unsent] == [("t", "m1", True)]
        with pytest.raises(errors.Unavailable):
            lost.result()
    assert "1 publishes were not sent" in caplog.text
    assert await client.close() == client.unsent
    with pytest.raises(errors.Unavailable):
        await client.publish("t")


@pytest.mark.parametrize(
    ("start", "field"),
    [
        (None, "new"),
        ("new", "new"),
        ("earliest", "earliest"),
        ("last_of_each", "last_of_each"),
        ("cursor", "cursor"),
        (17, "after"),
        (Position(b"x", 3), "after"),
        (datetime.now(UTC), "time_ns"),
        (timedelta(hours=2), "time_ns"),
    ],
)
async def test_every_way_to_start(start: Any, field: str) -> None:
    hub = Hub()
    async with client_of(hub.script()) as client, client.subscribe("t", start=start, window_bytes=5000):
        pass
    frame = hub.of("subscribe")[0]
    assert frame.start.WhichOneof("start") == field
    assert frame.window_bytes == 5000


async def test_arguments_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with client_of(Hub().script()) as client:
        with pytest.raises(ValueError, match="not a place to start"):
            client.subscribe("t", start="yesterday")  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="time zone"):
            client.subscribe("t", start=datetime(2026, 1, 1))
        with pytest.raises(ValueError, match="needs the subscription's name"):
            client.subscribe("t", position_store=FilePositionStore(tmp_path / "p"))
        kept = client.subscribe("t", name="n")
        with pytest.raises(ValueError, match="already"):
            client.subscribe("u", name="n")
        await kept.aclose()


async def test_a_durable_cursor_moves_when_the_next_is_asked_for() -> None:
    hub = Hub()
    async with client_of(hub.script(records("d", 0, 1, 2), records("d", 2, 3)), client_id="me") as client:
        subscription = client.subscribe("t", durable="d")
        assert await take(subscription, 2) == [1, 2]
        await subscription.aclose()  # 2 was handed over, and not handled
    assert hub.of("subscribe")[0].durable
    assert hub.of("subscribe")[0].start.HasField("cursor")
    assert [a.through.sequence for a in hub.of("ack")] == [1]
    assert [u.forget_cursor for u in hub.of("unsubscribe")] == [False]


async def test_a_durable_cursor_moved_by_hand_to_the_end_of_a_delivery_has_its_token() -> None:
    hub = Hub()
    async with client_of(hub.script(records("d", 0, 1, 2)), client_id="me") as client:
        subscription = client.subscribe("t", durable="d", ack="manual")
        first, second = await anext(subscription), await anext(subscription)
        subscription.ack(first)
        subscription.ack(second)
        await subscription.aclose(forget_cursor=True)
        subscription.ack()  # nothing is listening any more
    assert [a.through.token for a in hub.of("ack")] == [b"2"]
    assert [u.forget_cursor for u in hub.of("unsubscribe")] == [True]


async def test_fault_12_what_came_before_a_gap_moves_no_cursor_of_the_log_after_it() -> None:
    hub = Hub()
    gap = Frame(gap=npb.Gap(subscription="d", first_available=1, reason=npb.GAP_REASON_EPOCH_CHANGED))
    script = hub.script(records("d", 900, 901, 902, 903), gap, records("d", 0, 1, 2))
    async with (
        client_of(script, client_id="c") as client,
        client.subscribe("t", durable="d", on_gap="continue", ack="manual") as subscription,
    ):
        got = [await anext(subscription) for _ in range(4)]
        assert [record.sequence for record in got] == [901, 902, 903, 1]
        subscription.ack(got[1])
        subscription._save_now()
        assert not hub.of("ack")
        subscription.ack(got[3])
        subscription._save_now()
        await hub.until("ack")
    assert [ack.through.sequence for ack in hub.of("ack")] == [1]


async def test_a_group_acknowledges_and_gives_back() -> None:
    hub = Hub()
    async with client_of(hub.script(records("s1", 0, 5, 3, 4))) as client:
        subscription = client.subscribe("t", group="g", ack="manual", ack_wait_s=2.5, max_in_flight=3)
        got = [await anext(subscription) for _ in range(3)]
        subscription.ack(got[1])
        subscription.reject(got[0])
        subscription.ack()
        subscription.ack()
        await subscription.aclose()
    frames = [(list(a.sequences), list(a.rejected_sequences)) for a in hub.of("ack")]
    assert frames == [([3], []), ([], [5]), ([4], [])]
    assert hub.of("subscribe")[0].ack_wait_ms == 2500


async def test_a_group_acknowledges_by_itself_what_was_handled() -> None:
    hub = Hub()
    async with client_of(hub.script(records("s1", 0, 5, 3), records("s1", 0, 8))) as client:
        subscription = client.subscribe("t", group="g")
        batches = subscription.batches()
        assert len(await anext(batches)) == 2
        assert len(await anext(batches)) == 1
        await subscription.aclose()
    assert [list(a.sequences) for a in hub.of("ack")] == [[5, 3]]


async def test_fault_1_a_group_leaves_to_others_what_a_lost_stream_had_brought() -> None:
    hub, lost = Hub(), asyncio.Event()

    async def first(requests: Any, context: Any) -> Any:
        async for frame in hub.script(records("s1", 0, 5, 3, 4))(requests, context):
            yield frame
            if frame.HasField("delivery"):
                await lost.wait()
                await fail(context, CODE.UNAVAILABLE)

    async with client_of(first, hub.script(records("s1", 0, 3, 6))) as client:
        subscription = client.subscribe("t", group="g", ack="manual")
        late = await anext(subscription)
        lost.set()
        await client.status.wait_for(State.RECONNECTING)
        got = [await anext(subscription) for _ in range(2)]
        assert [n.sequence for n in (late, *got)] == [5, 3, 6]
        subscription.ack(late)  # another record's number by now, perhaps
        subscription.ack()
        await subscription.aclose()
    assert [list(a.sequences) for a in hub.of("ack")] == [[3, 6]]


async def test_a_position_store_takes_a_restart(tmp_path: Path) -> None:
    hub, path = Hub(), tmp_path / "positions"
    async with (
        client_of(hub.script(records("n", 0, 1, 2, 3))) as client,
        client.subscribe("t", name="n", position_store=FilePositionStore(path)) as subscription,
    ):
        assert await take(subscription, 2) == [1, 2]
    async with (
        client_of(hub.script(records("n", 0, 1, 2, 3))) as client,
        client.subscribe("t", name="n", position_store=FilePositionStore(path)) as subscription,
    ):
        assert await take(subscription, 2) == [2, 3]
        assert subscription.last_gap is None
    assert hub.of("subscribe")[1].start.after.token == b"0"


@pytest.mark.parametrize("all_of_it", [False, True])
async def test_closing_ends_the_iteration_in_another_task(all_of_it: bool) -> None:
    hub = Hub()
    async with client_of(hub.script(records("n", 0, 1, 2))) as client:
        subscription = client.subscribe("t", name="n")
        await take(subscription, 1)
        reading = asyncio.create_task(take(subscription, 5))
        await asyncio.sleep(0)
        await (client.close() if all_of_it else subscription.aclose())
        with pytest.raises(StopAsyncIteration):
            await reading
        assert [batch async for batch in subscription.batches()] == []
        with pytest.raises(StopAsyncIteration):
            await anext(subscription)


async def test_a_slow_position_store_ends_with_the_newest_position() -> None:
    first, go, saved = asyncio.Event(), asyncio.Event(), list[int]()

    class Slow:
        async def load(self, subscription: str) -> Position | None:
            return None

        async def save(self, subscription: str, position: Position) -> None:
            if not first.is_set():
                first.set()
                await go.wait()
            saved.append(position.sequence)

    async with client_of(Hub().script(records("n", 0, 1, 2, 3))) as client:
        subscription = client.subscribe("t", name="n", position_store=Slow())
        await take(subscription, 2)
        subscription._save_now()
        await first.wait()
        await take(subscription, 1)
        closing = asyncio.create_task(subscription.aclose())
        for _ in range(3):
            await asyncio.sleep(0)  # it would save by now, beside the first one
        go.set()
        await closing
    assert saved == [1, 2]


async def test_a_position_store_that_fails_fails_the_subscription(tmp_path: Path) -> None:
    path = tmp_path / "positions"
    path.write_text("not JSON")
    async with client_of(Hub().script()) as client:
        subscription = client.subscribe("t", name="n", position_store=FilePositionStore(path))
        with pytest.raises(errors.SignpostError) as caught:
            await subscription.started()
        assert caught.value.reason == "POSITION_STORE"


class BrokenStore:
    """A caller's own, which raises what it likes."""

    def __init__(self, *, loads: bool) -> None:
        self._loads = loads

    async def load(self, subscription: str) -> Position | None:
        if not self._loads:
            raise RuntimeError("no database")
        return None

    async def save(self, subscription: str, position: Position) -> None:
        raise OSError("no space left")


async def test_nobody_waits_for_a_position_store_that_raises_anything() -> None:
    async with client_of(Hub().script()) as client:
        with pytest.raises(errors.SignpostError, match="no database"):
            async with asyncio.timeout(20):
                await client.subscribe("t", name="n", position_store=BrokenStore(loads=False)).started()


async def test_a_position_that_cannot_be_saved_keeps_nothing_open() -> None:
    hub = Hub()
    async with serving({CONNECT: [hub.script(records("n", 0, 1, 2), records("m", 0, 1, 2))]}) as server:
        client = NotificationClient(server.target, settings=FAST)
        one, two = (client.subscribe("t", name=name, position_store=BrokenStore(loads=True)) for name in ("n", "m"))
        assert await take(one, 2) == await take(two, 2) == [1, 2]
        with pytest.raises(errors.SignpostError) as caught:
            await one.aclose()
        assert caught.value.reason == "POSITION_STORE"
        await one.aclose()
        await hub.until("unsubscribe")
        with pytest.raises(errors.SignpostError):
            await client.close()
        await server.none_open()
        assert client.status.state is State.CLOSED


async def test_fault_16_a_handler_that_subscribes_and_publishes_inside_itself() -> None:
    hub = Hub()
    async with client_of(hub.script(records("s1", 0, 1, 2, 3), records("s2", 0, 9))) as client:
        outer = client.subscribe("t")
        seen = []
        for _ in range(3):
            record = await anext(outer)
            await client.publish("u", record.payload)
            if record.sequence == 2:
                seen += await take(client.subscribe("u"), 1)
        assert seen == [9]
    assert len(hub.stored) == 3


async def test_fault_10_a_subscription_that_is_left_is_ended_on_the_server() -> None:
    hub = Hub()
    async with client_of(hub.script(records("s1", 0, 1, 2))) as client:
        async for _ in client.subscribe("t"):
            break
        gc.collect()
        await hub.until("unsubscribe")
        assert client.subscribe("t").position is None


@pytest.mark.parametrize(
    ("first", "reason"),
    [
        (Frame(draining=npb.Draining(deadline_ms=1)), "DRAINING"),
        (Frame(pong=npb.Pong()), "INTERNAL"),
        (None, "ENDED"),
    ],
)
async def test_a_stream_that_does_not_begin_with_welcome_is_tried_again(first: Any, reason: str) -> None:
    async def odd(requests: Any, context: Any) -> Any:
        if first is not None:
            yield first

    seen: list[str] = []

    def on_state(change: Any) -> None:
        if change.error is not None:
            seen.append(change.error.reason)

    async with client_of(odd, Hub().script(), on_state=on_state) as client:
        assert (await client.publish("t")).sequence == 1
    # grpc.aio calls it INTERNAL where a write and the end of the call cross.
    assert seen in ([reason], ["INTERNAL"])


async def test_topics_and_presence_come_page_by_page() -> None:
    def topics(request: npb.ListTopicsRequest) -> npb.ListTopicsResponse:
        number = int(request.page_token or 0)
        token = str(number + 1) if number < 2 else ""
        return npb.ListTopicsResponse(topics=[npb.Topic(name=f"t{number}", records=number)], next_page_token=token)

    def presence(request: npb.ListPresenceRequest) -> npb.ListPresenceResponse:
        token = "" if request.page_token else "1"
        client = npb.Presence(client_id=f"c{request.page_token}", connected_time_ns=5, filters=["a", "b"])
        return npb.ListPresenceResponse(clients=[client], next_page_token=token)

    async with (
        serving({LIST_TOPICS: [answering(topics)], LIST_PRESENCE: [answering(presence)]}) as server,
        NotificationClient(server.target, settings=FAST) as client,
    ):
        assert [t.name async for t in client.topics()] == ["t0", "t1", "t2"]
        people = [p async for p in client.presence("t")]
    assert [p.client_id for p in people] == ["c", "c1"]
    assert people[0].filters == ("a", "b")


async def test_a_notification_reads_straight_from_the_wire() -> None:
    record = npb.Notification(
        sequence=1,
        time_ns=5,
        topic="t",
        message_id="m",
        payload=b"\xff!",
        attributes={"k": "v"},
        expire_time_ns=9,
        traceparent="00-a",
    )
    delivery = npb.Delivery(subscription="s1", through=1, notifications=[record], position=npb.Position(token=b"1"))
    async with client_of(Hub().script(Frame(delivery=delivery))) as client:
        got = await anext(client.subscribe("t"))
    assert (got.time_ns, got.topic, got.message_id, got.attributes) == (5, "t", "m", {"k": "v"})
    assert (got.expire_time_ns, got.traceparent, got.text) == (9, "00-a", "�!")
    assert "Notification 1 on t: 2 bytes" in repr(got)


async def test_a_token_source_that_raises_is_told_to_everybody_who_waits(caplog: pytest.LogCaptureFixture) -> None:
    def token() -> str:
        raise OSError("no token today")

    async with client_of(Hub().script(), token=token) as client:
        subscription = client.subscribe("t")
        with pytest.raises(errors.Internal, match="no token today"):
            await subscription.started()
        with pytest.raises(errors.Internal, match="no token today"):
            await client.publish("t")
    assert "the connection ended" in caplog.text
