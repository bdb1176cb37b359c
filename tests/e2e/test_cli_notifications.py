"""The command's half for notifications, run for real against the notification service."""

import asyncio
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from protos.notification.v1 import notification_pb2, notification_pb2_grpc
from tests.e2e.command import Signpost, serve
from tests.support.services import ServiceProcess


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    yield from serve("notification_service", tmp_path_factory.mktemp("notification"))


@pytest.fixture(scope="module")
def signpost(service: ServiceProcess) -> Signpost:
    return Signpost("127.0.0.1:1", service.target)


def test_what_is_published_is_heard(signpost: Signpost) -> None:
    with signpost.on_terminal("listen", "demo.>", "--from", "earliest") as terminal:
        terminal.until("connected")
        signpost("publish", "demo.hello", "hi there")
        terminal.until("hi there")
        terminal.until("1 received")
        terminal.type("\x03")
        assert terminal.until_end() == 130
    assert "demo.hello" in terminal.seen
    assert "lag" in terminal.seen
    assert "Traceback" not in terminal.seen


def test_listen_starts_where_it_is_told(signpost: Signpost) -> None:
    signpost("publish", "from.a", "-", stdin="one\ntwo\nthree\n")
    earliest = signpost("listen", "from.*", "--from", "earliest", "--limit", "3")
    assert [item["text"] for item in earliest] == ["one", "two", "three"]
    after = signpost("listen", "from.*", "--from", str(earliest[0]["sequence"]), "--limit", "2")
    assert [item["text"] for item in after] == ["two", "three"]
    ago = signpost("listen", "from.*", "--from", "1h", "--limit", "1")
    assert [item["text"] for item in ago] == ["one"]
    last = signpost("listen", "from.*", "--from", "last", "--limit", "1")
    assert [item["text"] for item in last] == ["three"]


def test_a_publish_with_the_same_id_stores_nothing(signpost: Signpost) -> None:
    (first,) = signpost("publish", "same.id", "x", "--id", "1", "--attribute", "k=v", "--ttl", "1h")
    (again,) = signpost("publish", "same.id", "x", "--id", "1")
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert first["sequence"] == again["sequence"]
    (heard,) = signpost("listen", "same.id", "--from", "earliest", "--limit", "1")
    assert heard["attributes"] == {"k": "v"}
    assert heard["message_id"] == "1"


def test_thousands_of_lines_are_published_in_order(signpost: Signpost) -> None:
    count = 3000
    assert signpost("publish", "many.lines", "-", stdin="".join(f"{number}\n" for number in range(count))) == [
        {"topic": "many.lines", "published": count}
    ]
    heard = signpost("listen", "many.lines", "--from", "earliest", "--limit", str(count))
    assert [item["text"] for item in heard] == [str(number) for number in range(count)]


def test_a_durable_listener_goes_on_where_it_left_off(signpost: Signpost) -> None:
    arguments = ("listen", "durable.x", "--durable", "desk", "--from", "earliest", "--limit", "2")
    signpost("publish", "durable.x", "-", stdin="1\n2\n3\n4\n")
    assert [item["text"] for item in signpost(*arguments)] == ["1", "2"]
    # Without --from: where the name left off.
    again = [item["text"] for item in signpost("listen", "durable.x", "--durable", "desk", "--limit", "2")]
    assert again == ["3", "4"]


def test_chat_answers_every_line(signpost: Signpost) -> None:
    done = signpost.run("chat", stdin="hello\nworld\n")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["Received: hello", "Received: world"]


def test_payloads_that_are_not_text_are_printed_as_hexadecimal(signpost: Signpost, service: ServiceProcess) -> None:
    with grpc.insecure_channel(service.target) as channel:
        stub = notification_pb2_grpc.NotificationServiceStub(channel)
        stub.Publish(notification_pb2.PublishRequest(topic="kinds.bytes", payload=b"\xff\x00"), timeout=10)
    signpost("publish", "kinds.text", "naïve ☃")
    binary, text = signpost("listen", "kinds.*", "--from", "earliest", "--limit", "2")
    assert binary["payload"] == "ff00"
    assert text["text"] == "naïve ☃"


def test_lines_of_any_bytes_are_published_as_they_are(signpost: Signpost) -> None:
    signpost("publish", "raw.lines", "-", stdin=b"a\n\xff\xfe\r\n\nlast")
    heard = signpost("listen", "raw.lines", "--from", "2h ago", "--limit", "4")
    assert [item.get("text", item.get("payload")) for item in heard] == ["a", "fffe", "", "last"]


def test_a_text_that_is_not_utf_8_is_published_as_it_is(signpost: Signpost) -> None:
    signpost("publish", "raw.text", os.fsdecode(b"\xff\x01"))
    (heard,) = signpost("listen", "raw.text", "--from", "earliest", "--limit", "1")
    assert heard["payload"] == "ff01"


def test_lines_that_are_refused_are_one_error(signpost: Signpost) -> None:
    assert "is no topic" in signpost.fails("publish", "no topic>", "-", stdin="a\nb\n")


def test_chat_takes_any_bytes(signpost: Signpost) -> None:
    done = signpost.run("chat", stdin=b"a\xffb\n")
    assert (done.returncode, done.stdout) == (0, "Received: a\N{REPLACEMENT CHARACTER}b\n")


@pytest.mark.parametrize("arguments", [("chat",), ("publish", "waits.here", "-")], ids=["chat", "publish"])
def test_ctrl_c_ends_what_waits_for_a_line(signpost: Signpost, arguments: tuple[str, ...]) -> None:
    with signpost.on_terminal(*arguments) as terminal:
        terminal.type("one\n")
        terminal.until("Received: one" if arguments == ("chat",) else "one")
        if arguments != ("chat",):  # what is typed is shown before the command runs
            assert signpost("listen", "waits.here", "--from", "earliest", "--limit", "1")[0]["text"] == "one"
        terminal.type("\x03")
        assert terminal.until_end() == 130


def test_what_is_published_cannot_command_the_terminal(signpost: Signpost) -> None:
    signpost("publish", "raw.escape", "\x1b[2Jx")
    with signpost.on_terminal("listen", "raw.escape", "--from", "earliest", "--limit", "1") as terminal:
        assert terminal.until_end() == 0
    assert "\N{REPLACEMENT CHARACTER}[2Jx" in terminal.seen


def test_a_listener_outlives_the_server(signpost: Signpost, service: ServiceProcess) -> None:
    with signpost.on_terminal("listen", "again.>") as terminal:
        terminal.until("connected")
        signpost("publish", "again.a", "before")
        terminal.until("before")
        service.kill()
        terminal.until("trying on")
        asyncio.run(service.start())
        signpost("publish", "again.a", "after")
        terminal.until("after")
        terminal.until("2 received")


def test_a_group_shares_its_records(signpost: Signpost) -> None:
    arguments = ("listen", "jobs.*", "--group", "workers", "--from", "earliest", "--limit", "2")
    signpost("publish", "jobs.a", "-", stdin="1\n2\n3\n4\n")
    with ThreadPoolExecutor() as pool:
        shares = list(pool.map(lambda _: signpost(*arguments), range(2)))
    assert sorted(item["text"] for share in shares for item in share) == ["1", "2", "3", "4"]


def test_topics_are_listed_with_their_figures(signpost: Signpost) -> None:
    signpost("publish", "listed.a", "-", stdin="1\n2\n3\n")
    signpost("publish", "listed.b", "x")
    first, second = signpost("topics", "listed.>")
    assert (first["topic"], first["records"], first["subscribers"]) == ("listed.a", 3, 0)
    assert first["last_sequence"] == first["first_sequence"] + 2
    assert second["topic"] == "listed.b"
    with signpost.on_terminal("topics", "listed.>") as terminal:
        assert terminal.until_end() == 0
    assert "listed.a" in terminal.seen
    with signpost.on_terminal("topics", "nothing.here") as terminal:
        assert terminal.until_end() == 0
    assert "no topic has records and matches nothing.here" in terminal.seen


def test_who_is_connected(signpost: Signpost) -> None:
    assert signpost("who", "seen.x") == []
    with signpost.on_terminal("listen", "seen.>", "--client-id", "desk-7") as terminal:
        terminal.until("connected")
        signpost("publish", "seen.x", "hello")
        terminal.until("hello")
        deadline = time.monotonic() + 20
        while not (clients := signpost("who", "seen.x")):  # it is known a moment after the subscription
            assert time.monotonic() < deadline
        (client,) = clients
        assert (client["client_id"], client["filters"]) == ("desk-7", ["seen.>"])
        assert signpost("who", "other.x") == []
