"""What goes over the wire to NATS, and the settings that lead there."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest
from signpost.errors import LogRefused, LogUnavailable, StorageFull, TooLarge
from signpost.log import LogSettings, Record, Retention
from signpost.log.jetstream import JetStreamSettings, lookup
from signpost.log.jetstream.connection import Link
from signpost.log.jetstream.settings import servers_of, without_password
from signpost.log.jetstream.streams import check, mirror_config, names_of, state_of, stream_config
from signpost.log.jetstream.wire import (
    delivery_of,
    error_of,
    format_time,
    frame,
    parse_status,
    parse_time,
    record_of,
    stored_at,
    tries_of,
)


@pytest.mark.parametrize("message_id", ["", "m", "Größe\r\n: \u4e16", "x" * 10_000])
@pytest.mark.parametrize("payload", [b"", b"\x50", b"\r\n\x00\xff"])
@pytest.mark.parametrize("tombstone", [False, True])
def test_a_record_comes_back_from_its_frame(message_id: str, payload: bytes, tombstone: bool) -> None:
    record = record_of(7, "a.b", 5, frame(payload, message_id, tombstone))
    assert record == Record(7, "a.b", message_id, 5, payload, tombstone)


@pytest.mark.parametrize("data", [b"", b"x", b"{}", b"hello world", b"\x60\x00\x00"])
def test_what_others_published_is_handed_on_as_it_is(data: bytes) -> None:
    assert record_of(1, "a", 2, data) == Record(1, "a", "", 2, data)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.signpost-notes.c1.3.1017.42.1795229222041761377.5",
        "$JS.ACK.hub.ACCHASH.signpost-notes.c1.3.1017.42.1795229222041761377.5.rAnDoM",
    ],
)
def test_where_a_delivered_message_stands(reply: str) -> None:
    assert delivery_of(reply) == (1017, 42, 1795229222041761377)
    assert tries_of(reply) == 2


@pytest.mark.parametrize(
    ("text", "time_ns"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-11-21T02:47:02.042014672Z", 1795229222042014672),
        ("2026-11-21T02:47:02.04Z", 1795229222040000000),
        ("2026-11-21T02:47:02Z", 1795229222000000000),
        ("9998-12-31T23:59:59.999999999Z", 253370764799999999999),
    ],
)
def test_times_are_exact(text: str, time_ns: int) -> None:
    assert parse_time(text) == time_ns
    assert parse_time(format_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("answer", "sequence"),
    [
        (b'{"stream":"signpost-notes", "seq":21}', 21),
        (b'{"stream":"signpost-notes","seq":21}', 21),
        (b'{"stream":"theirs", "seq":21}', 0),
        (b'{"stream":"signpost-notes", "seq":21,"duplicate": true}', 0),
        (b'{"error":{"code":400,"err_code":10071,"description":"wrong last sequence: 3"},"stream":"F","seq":0}', 0),
    ],
)
def test_the_plain_answer_of_a_publish(answer: bytes, sequence: int) -> None:
    assert stored_at(answer, "signpost-notes") == sequence


def test_status_lines() -> None:
    heartbeat = b"NATS/1.0 100 Idle Heartbeat\r\nNats-Last-Consumer: 1016\r\nNats-Last-Stream: 1024\r\n\r\n"
    assert parse_status(heartbeat) == {
        "Status": "100",
        "Description": "Idle Heartbeat",
        "Nats-Last-Consumer": "1016",
        "Nats-Last-Stream": "1024",
    }
    assert parse_status(b"NATS/1.0 503\r\n\r\n") == {"Status": "503", "Description": ""}


def test_what_a_refused_publish_means() -> None:
    def refused(code: int, err_code: int) -> object:
        return error_of({"error": {"code": code, "err_code": err_code, "description": "why"}})

    assert isinstance(refused(503, 10077), StorageFull)
    assert isinstance(refused(500, 10047), StorageFull)
    assert isinstance(refused(400, 10054), TooLarge)
    assert isinstance(refused(400, 10060), LogUnavailable)
    for code, err_code in ((503, 10008), (503, 10163), (409, 10158), (429, 10167)):  # it may pass
        assert refused(code, err_code) is None


def test_servers_of_a_url() -> None:
    assert servers_of("nats://a:4222") == ["nats://a:4222"]
    assert servers_of("tls://u:p@a:1,b:2") == ["tls://u:p@a:1", "tls://b:2"]
    assert servers_of("nats://a:1,nats://b:2") == ["nats://a:1", "nats://b:2"]
    assert servers_of("nats://[::1]:4222,b") == ["nats://[::1]:4222", "nats://b"]
    assert "p" not in without_password("nats://u:p@a:1,b:2")


@pytest.mark.parametrize("url", ["nats://", "nats://:4222", "nats://a:70000", "nats://a:b", "nats://u:secret@,b:1"])
def test_what_names_no_server_is_refused(url: str) -> None:
    with pytest.raises(LogRefused, match="names no server") as raised:
        servers_of(url)
    assert "secret" not in str(raised.value)


def test_every_difference_of_a_stream_is_named() -> None:
    log = LogSettings("notes", Retention(max_age_s=60.0))
    wanted = stream_config(log, JetStreamSettings())
    check(wanted, dict(wanted))
    with pytest.raises(LogRefused) as raised:
        check(wanted, wanted | {"max_age": 1, "num_replicas": 3, "deny_purge": True})
    assert "max_age is 1, wanted 60000000000 ns" in raised.value.message
    assert "num_replicas is 3, wanted 1" in raised.value.message
    assert "deny_purge" not in raised.value.message


def test_the_dedupe_window_is_at_most_the_age() -> None:
    short = LogSettings("notes", Retention(max_age_s=2.0), dedupe_window_s=3600.0)
    assert stream_config(short, JetStreamSettings())["duplicate_window"] == 2_000_000_000


def test_a_stream_that_is_being_made_has_no_state_yet() -> None:
    """Its creation, by which it is known, is answered as a time that it is not."""
    state = {"first_seq": 0, "last_seq": 0, "messages": 0, "bytes": 0}
    answer = {"config": {"name": "notes"}, "created": "0001-01-01T00:00:00Z", "state": state}
    with pytest.raises(LogUnavailable, match="notes is being made"):
        state_of(answer)
    assert state_of(answer | {"created": "2026-01-01T00:00:00Z"}).first == 1


def test_names() -> None:
    kept = LogSettings("features", Retention(max_age_s=1.0, keep_last=True))
    assert names_of(kept, JetStreamSettings(prefix="p")) == ("p-features", "p-features-last", "p.features.")
    assert names_of(LogSettings("notes"), JetStreamSettings()).mirror == ""
    mirror = mirror_config(kept, JetStreamSettings(), "2026-01-01T00:00:00Z")
    assert mirror["mirror"] == {"name": "signpost-features"}
    assert mirror["description"].endswith("of the stream made 2026-01-01T00:00:00Z")
    for prefix in ("", "a.b", "a b", "*"):
        with pytest.raises(LogRefused):
            names_of(kept, JetStreamSettings(prefix=prefix))


class Listing:
    """A stream that lists its subjects as a NATS server does, and changes between the pages."""

    LIMIT = 10

    def __init__(self, subjects: list[str], change: Callable[[list[str]], None]) -> None:
        self.subjects, self._change = subjects, change

    async def api(self, _subject: str, query: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0)
        page = sorted(self.subjects)[query["offset"] :][: self.LIMIT]
        answer = {"state": {"subjects": dict.fromkeys(page, 1)}, "total": len(self.subjects)}
        self._change(self.subjects)
        return answer


@pytest.mark.parametrize(
    "change",
    [
        lambda _: None,
        lambda subjects: "signpost.notes.a" in subjects or subjects.append("signpost.notes.a"),
        lambda subjects: subjects.append(f"signpost.notes.a{len(subjects)}") if len(subjects) < 50 else None,
        lambda subjects: subjects.__delitem__(slice(1)),
        lambda subjects: subjects.__delitem__(slice(5)),
        lambda subjects: subjects.__delitem__(slice(10, None)),
        lambda subjects: subjects.clear(),
    ],
)
async def test_subjects_are_listed_whole_whatever_comes_and_goes_between_pages(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[list[str]], None]
) -> None:
    monkeypatch.setattr(lookup, "_OVERLAP", 2)
    before = [f"signpost.notes.b{i}" for i in range(100, 135)]
    link = Listing(list(before), change)
    names = names_of(LogSettings("notes"), JetStreamSettings())
    async with asyncio.timeout(20):
        found = await lookup.counts(cast("Link", link), names, names.stream, ">")
    assert {name for name in before if name in link.subjects} <= {f"signpost.notes.{name}" for name in found}
