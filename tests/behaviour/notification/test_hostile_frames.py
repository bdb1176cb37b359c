"""Whatever a client sends after `hello`: each frame is answered or the call ends with a status of ours, nothing is
taken for a fault of the service, and others are served on."""

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from protos.notification.v1 import notification_pb2 as pb
from tests.behaviour.notification.stream import OWN_CONNECTION, Stream, notes, reason_of
from tests.support.services import ServiceProcess

CONNECT = "/notification.v1.NotificationService/Connect"
EOF: object = grpc.aio.EOF  # type: ignore[attr-defined] # the stubs lack it
SHORT = [
    "",
    "s",
    "t",
    "a",
    "a.b",
    "a.*",
    "a.>",
    ">",
    "*",
    "_dead.a",
    "_presence",
    "a..b",
    "g",
    "\0",
    "%",
    "é\u2028",
    "\U0010ffff",
]
TEXTS = [*SHORT, "x" * 129, "a." * 20 + "a", "\x01" * 300, "\U0001f600" * 70_000, "y" * 3_000_000]
NUMBERS = [0, 1, 2, 3, 99, 100, 1000, 65_536, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**63 - 1, 2**63, 2**64 - 1]
TOKENS = [b"", b"?", b"\x01" * 14, b"\x01" + b"e" * 8 + b"\x01" + b"\0" * 4, b"\xff" * 23, b"\x01" * 300_000]
EXAMPLES = 200
KINDS = FieldDescriptor
_RANGES = {
    KINDS.CPPTYPE_UINT32: (0, 2**32 - 1),
    KINDS.CPPTYPE_UINT64: (0, 2**64 - 1),
    KINDS.CPPTYPE_INT64: (-(2**63), 2**63 - 1),
}


@st.composite
def messages(draw: st.DrawFn, descriptor: Any, head: bytes) -> Message:
    """Any message of a type: each field set or not, to what is likely to be meant, or to what nobody means."""
    made: Any = GetMessageClass(descriptor)()
    of_oneofs = [draw(st.sampled_from([None, *oneof.fields])) for oneof in descriptor.oneofs if len(oneof.fields) > 1]
    for each in descriptor.fields:
        alone = each.containing_oneof is None or len(each.containing_oneof.fields) == 1
        if each not in of_oneofs and not (alone and draw(st.integers(0, 3))):
            continue
        if each.message_type is not None and each.message_type.GetOptions().map_entry:
            texts = st.sampled_from(SHORT)
            getattr(made, each.name).update(draw(st.dictionaries(texts, texts, max_size=3)))
            continue
        values = _values(each, head)
        if each.is_repeated:
            getattr(made, each.name).extend(draw(st.lists(values, max_size=3)))
        elif each.message_type is not None:
            getattr(made, each.name).CopyFrom(draw(values))
        else:
            setattr(made, each.name, draw(values))
    assert isinstance(made, Message)
    return made


def _values(each: FieldDescriptor, head: bytes) -> st.SearchStrategy[Any]:
    match each.cpp_type:
        case KINDS.CPPTYPE_MESSAGE:
            return messages(each.message_type, head)
        case KINDS.CPPTYPE_STRING if each.type == KINDS.TYPE_BYTES:
            return st.sampled_from([*TOKENS, head]) | st.binary(max_size=40)
        case KINDS.CPPTYPE_STRING:
            return st.sampled_from(SHORT) | st.sampled_from(TEXTS)
        case KINDS.CPPTYPE_BOOL:
            return st.booleans()
        case kind:
            least, most = _RANGES[kind]
            numbers = [n for n in [*NUMBERS, -1, -(2**63)] if least <= n <= most]
            return st.sampled_from(numbers) | st.integers(least, most)


class Sent(bytes):
    """A message, shown in short."""

    def __repr__(self) -> str:
        return bytes(self[:200]).__repr__() + (f" and {len(self) - 200} more" if len(self) > 200 else "")


@st.composite
def requests(draw: st.DrawFn, head: bytes) -> Sent:
    """One message of a client, mostly one that can be decoded."""
    data = draw(messages(pb.ConnectRequest.DESCRIPTOR, head)).SerializeToString()
    match draw(st.integers(0, 9)):
        case 0:
            return Sent(draw(st.binary(max_size=60)))
        case 1 if data:
            at = draw(st.integers(0, len(data) - 1))
            data = data[:at] + draw(st.binary(max_size=3)) + data[at + 1 :]
    return Sent(data[: 4 << 20])


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    process = ServiceProcess("notification_service", tmp_path_factory.mktemp("hostile"), args=["--max-subscriptions=5"])
    try:
        asyncio.run(process.start())
        yield process
    finally:
        process.kill()


class Session:
    """Somebody who means harm, and somebody else, on one service."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.runner = asyncio.Runner()
        self.numbers = itertools.count(1)

    async def begin(self) -> None:
        self.channel = grpc.aio.insecure_channel(self.target, options=OWN_CONNECTION)
        self.other = Stream(grpc.aio.insecure_channel(self.target, options=OWN_CONNECTION))
        self.head = (await self.other.hello()).head.token
        await self.other.subscribe("other.>")

    async def attack(self, frames: list[Sent], client_id: str = "") -> grpc.aio.AioRpcError | None:
        """Send it all, read whatever comes, and see how it ends after the last answer: None is OK."""
        channel: Any = self.channel
        call = channel.stream_stream(CONNECT)()
        hello = pb.Hello(client_id=client_id, session_id=f"s{next(self.numbers)}")

        async def send() -> None:
            await call.write(pb.ConnectRequest(hello=hello).SerializeToString())
            for data in frames:
                await call.write(bytes(data))
            await call.done_writing()

        sending = asyncio.create_task(send())
        try:
            async with asyncio.timeout(20):
                while await call.read() is not EOF:
                    pass
        except grpc.aio.AioRpcError as error:
            return error
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            call.cancel()
        return None

    async def is_served(self) -> None:
        """The other one publishes and receives."""
        payload = str(next(self.numbers)).encode()
        await self.other.publish(*notes("other.topic", [payload]))
        assert (await self.other.records(1))[0].payload == payload


@pytest.fixture(scope="module")
def session(hostile: ServiceProcess) -> Iterator[Session]:
    made = Session(hostile.target)
    with made.runner:
        made.runner.run(made.begin())
        yield made


WRONG_TOPICS = ["\x01" * 256, "\U000e0001" * 90, "_" + "a" * 255]


@pytest.mark.parametrize(
    "frame",
    [
        pb.ConnectRequest(unsubscribe=pb.UnsubscribeFrame(subscription="\x01" * 4_000_000)),
        pb.ConnectRequest(subscribe=pb.SubscribeFrame(subscription="y" * 4_194_200, filter="a")),
        *(
            pb.ConnectRequest(publish=pb.PublishFrame(id=1, publications=[pb.Publication(topic=topic)] * 10_000))
            for topic in WRONG_TOPICS
        ),
    ],
    ids=["unknown subscription", "long name", "wrong topics", "unprintable topics", "system's topics"],
)
def test_an_answer_to_what_is_wrong_is_never_too_large(session: Session, frame: pb.ConnectRequest) -> None:
    assert session.runner.run(session.attack([Sent(frame.SerializeToString())])) is None
    session.runner.run(session.is_served())


@pytest.mark.parametrize("topic", WRONG_TOPICS)
def test_a_status_for_what_is_wrong_is_never_too_large(session: Session, topic: str) -> None:
    async def publish() -> None:
        for wrong in (topic, topic * 10_000):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await session.other.stub.Publish(pb.PublishRequest(topic=wrong), timeout=10)
            assert reason_of(refused.value) in ("INVALID_ARGUMENT", "SYSTEM_TOPIC")

    session.runner.run(publish())


def test_hostile_frames(hostile: ServiceProcess, session: Session) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
    @given(st.lists(requests(session.head), min_size=1, max_size=20), st.sampled_from(["", "c", "\0"]))
    def attacked(frames: list[Sent], client_id: str) -> None:
        error = session.runner.run(session.attack(frames, client_id))
        assert error is None or reason_of(error), "no status of ours"
        assert error is None or error.code() not in (grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)
        session.runner.run(session.is_served())
        assert "Traceback" not in (logs := hostile.logs())
        assert '"level": "error"' not in logs

    attacked()
