"""Addresses, code names, kinds and log lines."""

import io
import json
import logging

import grpc
import pytest
from signpost.server import logging as server_logging
from signpost.server.addresses import Address, expand
from signpost.server.methods import Kind, methods_of
from signpost.server.metrics import BUCKETS_S, CODE_NAMES
from signpost.server.options import server_options
from signpost.server.settings import ServerSettings


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:50051", Address("localhost", 50051)),
        (" 0.0.0.0:0 ", Address("0.0.0.0", 0)),
        ("[::1]:65535", Address("::1", 65535)),
    ],
)
def test_an_address(text: str, address: Address) -> None:
    assert Address.parse(text) == address
    assert str(address) == text.strip()


@pytest.mark.parametrize("text", ["", "localhost", ":50051", "::1:50051", "a:65536", "a:-1", "a:x", "a:"])
def test_no_address(text: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|brackets"):
        Address.parse(text)


def test_localhost_is_a_loopback_of_each_version_that_is_there() -> None:
    meant = expand(Address("localhost", 7))
    assert meant[0] == Address("127.0.0.1", 7)
    assert set(meant) <= {Address("127.0.0.1", 7), Address("::1", 7)}
    assert expand(Address("10.0.0.1", 7)) == [Address("10.0.0.1", 7)]


def test_codes_have_gos_names() -> None:
    assert set(CODE_NAMES.values()) == {
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    }
    assert BUCKETS_S == (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


def test_methods_are_read_from_the_protos() -> None:
    import protos.notification.v1.notification_pb2  # noqa: F401 - makes the service known

    kinds = {method.name: method.kind for method in methods_of(["notification.v1.NotificationService"])}
    assert kinds["Connect"] is Kind.BIDI_STREAM
    assert kinds["Subscribe"] is Kind.SERVER_STREAM
    assert kinds["Publish"] is Kind.UNARY
    assert Kind.of(True, False) is Kind.CLIENT_STREAM
    with pytest.raises(KeyError):
        list(methods_of(["no.such.Service"]))


def test_a_log_line_is_one_json_object_even_with_a_traceback() -> None:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.setFormatter(server_logging.JSONFormatter())
    logger = logging.Logger("a.b")
    logger.addHandler(handler)
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logger.exception("it %s", "broke", extra={"fields": {"method": "/x/Y", "odd": grpc.StatusCode.OK}})
    (line,) = out.getvalue().splitlines()
    found = json.loads(line)
    assert list(found)[:4] == ["time", "level", "logger", "message"]
    assert found["message"] == "it broke"
    assert found["level"] == "error"
    assert found["method"] == "/x/Y"
    assert "ValueError: two\nlines" in found["exception"]
    assert found["time"].endswith("Z")


def test_a_line_for_people_has_the_fields_too() -> None:
    record = logging.makeLogRecord({"name": "a", "msg": "listening", "levelname": "INFO", "fields": {"port": 1}})
    text = server_logging.TextFormatter().format(record)
    assert text.endswith("INFO    a: listening port=1")


def test_every_option_of_the_design_is_set() -> None:
    options = dict(server_options(ServerSettings(max_connection_age_s=60)))
    assert options["grpc.so_reuseport"] == 0
    assert options["grpc.server.max_pending_requests"] >= 10_000
    assert options["grpc.server.max_pending_requests_hard_limit"] >= 10_000
    assert options["grpc.max_connection_age_ms"] == 60_000
    assert options["grpc.max_connection_age_grace_ms"] == 30_000
    assert options["grpc.http2.min_ping_interval_without_data_ms"] == 10_000
