"""The token that `--token` names goes with every call, also with those that need no client of the library."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from protos.example import greeter_pb2, greeter_pb2_grpc
from tests.e2e.command import Signpost

TOKEN = "open sesame"


def asks_for_token(context: grpc.ServicerContext) -> None:
    """Refuse a call without the token."""
    if ("authorization", f"Bearer {TOKEN}") not in context.invocation_metadata():
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "no token")


class Health(health.HealthServicer):
    """Everything serves, for who has the token."""

    def Check(  # noqa: N802 - as in the proto
        self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext
    ) -> health_pb2.HealthCheckResponse:
        asks_for_token(context)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


class Greeter(greeter_pb2_grpc.GreeterServicer):
    """Says again what it hears, for who has the token."""

    def Chat(  # noqa: N802 - as in the proto
        self, request_iterator: Iterator[greeter_pb2.MessageRequest], context: grpc.ServicerContext
    ) -> Iterator[greeter_pb2.MessageResponse]:
        asks_for_token(context)
        for request in request_iterator:
            yield greeter_pb2.MessageResponse(reply=request.content)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(4))
    health_pb2_grpc.add_HealthServicer_to_server(Health(), server)
    greeter_pb2_grpc.add_GreeterServicer_to_server(Greeter(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


def test_chat_and_health_send_the_token(target: str) -> None:
    signpost = Signpost(target, target, SIGNPOST_TOKEN=TOKEN)
    done = signpost.run("chat", stdin="hello\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, "hello\n", "")
    assert signpost.run("health").stdout.count('"SERVING"') == 5


def test_the_end_of_its_line_is_no_part_of_a_token(target: str) -> None:
    assert Signpost(target, target, SIGNPOST_TOKEN=f"{TOKEN}\n").run("health").returncode == 0


def test_a_token_that_no_header_can_carry_is_wrong_usage(target: str) -> None:
    for token in ("naïve", "two\nlines"):
        line = Signpost(target, target).fails("--token", token, "get", "x", code=2)
        assert line.endswith("a token is of printable ASCII characters (see --help)")


def test_without_it_chat_says_how_to_give_one(target: str) -> None:
    signpost = Signpost(target, target)
    assert signpost.fails("chat") == "no token; give a token with --token or SIGNPOST_TOKEN"
    assert signpost.run("health").stdout.count("UNAUTHENTICATED") == 5
