"""Opening logs on NATS: what is made, what is checked, and what is refused with its reason."""

import asyncio
import subprocess
import threading
from pathlib import Path

import nats
import pytest
from signpost.errors import LogRefused, TooLarge
from signpost.log import MAX_RECORD_BYTES, Append, Appended, LogSettings, LogState, Record, Retention
from signpost.log.jetstream import JetStreamSettings, JetStreamStore
from signpost.log.subjects import MAX_SUBJECT_BYTES

from tests.support.nats import NatsServer
from tests.support.ports import free_port

NOTES = LogSettings("notes")
FEATURES = LogSettings("features", Retention(max_age_s=86_400.0, keep_last=True))
QUICK = JetStreamSettings(open_timeout_s=2.0)


async def test_streams_are_made_as_set(server: NatsServer) -> None:
    retention = Retention(max_age_s=3600.0, max_bytes=10_000_000, max_records=50_000)
    logs = [LogSettings("notes", retention, dedupe_window_s=60.0), FEATURES]
    async with await JetStreamStore.open(server.url, logs, JetStreamSettings(prefix="other", storage="memory")):
        client = await nats.connect(server.url)
        js = client.jetstream()
        notes = (await js.stream_info("other-notes")).config
        features = (await js.stream_info("other-features")).config
        mirror = (await js.stream_info("other-features-last")).config
        await client.close()
    assert notes.subjects == ["other.notes.>"]
    assert (notes.max_age, notes.max_bytes, notes.max_msgs) == (3600.0, 10_000_000, 50_000)
    assert (notes.duplicate_window, notes.num_replicas, notes.storage) == (60.0, 1, "memory")
    assert (features.max_age, features.duplicate_window, features.max_msgs_per_subject) == (86_400.0, 3600.0, -1)
    assert mirror.mirror is not None
    assert (mirror.mirror.name, mirror.max_msgs_per_subject, mirror.max_age) == ("other-features", 1, 0)


@pytest.mark.parametrize(
    ("log", "settings", "named"),
    [
        (LogSettings("notes", Retention(max_age_s=60.0)), JetStreamSettings(), ["max_age"]),
        (LogSettings("notes", dedupe_window_s=10.0), JetStreamSettings(), ["duplicate_window"]),
        (LogSettings("notes", Retention(max_bytes=1, max_records=2)), JetStreamSettings(), ["max_bytes", "max_msgs"]),
        (NOTES, JetStreamSettings(storage="memory"), ["storage is 'file', wanted 'memory'"]),
    ],
)
async def test_a_stream_that_is_set_otherwise_is_named_and_not_touched(
    server: NatsServer, log: LogSettings, settings: JetStreamSettings, named: list[str]
) -> None:
    async with await JetStreamStore.open(server.url, [NOTES]) as store:
        await store["notes"].append(Append("a", b"1"))
    with pytest.raises(LogRefused) as raised:
        await JetStreamStore.open(server.url, [log], settings)
    assert all(text in raised.value.message for text in ["signpost-notes", *named])
    async with await JetStreamStore.open(server.url, [NOTES]) as store:
        assert (await store["notes"].bounds()).last == 1


@pytest.mark.parametrize("bound", [{"max_records": 100}, {"max_bytes": 100_000}])
@pytest.mark.parametrize("max_age_s", [None, 60.0])
async def test_the_last_of_each_subject_is_not_kept_by_a_mirror_that_may_be_too_late(
    server: NatsServer, bound: dict[str, int], max_age_s: float | None
) -> None:
    """By such a bound a record leaves the stream at the next append; a burst of them was lost."""
    retention = Retention(max_age_s=max_age_s, keep_last=True, **bound)
    with pytest.raises(LogRefused, match="log notes keeps the last record of each subject"):
        await JetStreamStore.open(server.url, [LogSettings("notes", retention)])
    client = await nats.connect(server.url)
    assert await client.jetstream().streams_info() == []
    await client.close()


async def test_a_foreign_stream_on_the_same_subjects_is_refused(server: NatsServer) -> None:
    client = await nats.connect(server.url)
    await client.jetstream().add_stream(name="theirs", subjects=["signpost.>"])
    await client.close()
    with pytest.raises(LogRefused, match=r"signpost-notes.*overlap"):
        await JetStreamStore.open(server.url, [NOTES], QUICK)


async def test_fault_26_nats_down_at_start(tmp_path: Path) -> None:
    url = f"nats://127.0.0.1:{free_port()}"
    with pytest.raises(LogRefused, match=r"127\.0\.0\.1:\d+ does not answer within 2\.0 s"):
        await JetStreamStore.open(url, [NOTES], QUICK)


async def test_fault_26_a_start_waits_for_nats(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats")
    later = threading.Timer(0.5, server.start)
    later.start()
    try:
        async with await JetStreamStore.open(server.url, [NOTES]) as store:
            assert store.state is LogState.WRITABLE
            assert await store["notes"].append(Append("a", b"1")) == Appended(1, False)
    finally:
        later.join()
        server.kill()


async def test_a_server_without_jetstream_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", jetstream=False)
    server.start()
    try:
        with pytest.raises(LogRefused, match="JetStream"):
            await JetStreamStore.open(server.url, [NOTES], QUICK)
    finally:
        server.kill()


async def test_a_server_that_takes_too_little_is_refused(tmp_path: Path) -> None:
    server = NatsServer(tmp_path / "nats", extra="max_payload: 100000")
    server.start()
    try:
        with pytest.raises(LogRefused, match="max_payload"):
            await JetStreamStore.open(server.url, [NOTES], QUICK)
    finally:
        server.kill()


async def test_users_and_passwords(tmp_path: Path) -> None:
    users = 'authorization { users: [ { user: "signpost", password: "right" } ] }'
    server = NatsServer(tmp_path / "nats", extra=users)
    server.start()
    try:
        good = JetStreamSettings(user="signpost", password="right")  # noqa: S106 - the test's own server
        async with await JetStreamStore.open(server.url, [NOTES], good) as store:
            await store["notes"].append(Append("a", b"1"))
        in_url = server.url.replace("nats://", "nats://signpost:right@")
        async with await JetStreamStore.open(in_url, [NOTES]) as store:
            await store["notes"].append(Append("a", b"2"))
        with pytest.raises(LogRefused, match=r"(?i)authorization") as raised:
            await JetStreamStore.open(in_url.replace("right", "wrong"), [NOTES], QUICK)
        assert "wrong" not in raised.value.message
    finally:
        server.kill()


async def test_tls(tmp_path: Path) -> None:
    authority, certificate, key = make_certificates(tmp_path)
    extra = f'tls {{ cert_file: "{certificate}", key_file: "{key}", ca_file: "{authority}", verify: true }}'
    server = NatsServer(tmp_path / "nats", extra=extra)
    server.start()
    try:
        settings = JetStreamSettings(tls_ca_file=authority, tls_cert_file=certificate, tls_key_file=key)
        async with await JetStreamStore.open(server.url, [NOTES], settings) as store:
            assert await store["notes"].append(Append("a", b"1")) == Appended(1, False)
        stranger = JetStreamSettings(tls_ca_file=authority, open_timeout_s=1.0)
        with pytest.raises(LogRefused, match="does not answer"):
            await JetStreamStore.open(server.url, [NOTES], stranger)
    finally:
        server.kill()
    with pytest.raises(LogRefused, match="TLS"):
        await JetStreamStore.open(server.url, [NOTES], JetStreamSettings(tls_ca_file=tmp_path / "missing.pem"))


async def test_a_subject_that_is_too_long_is_refused_before_it_can_close_the_connection(server: NatsServer) -> None:
    async with await JetStreamStore.open(server.url, [NOTES]) as store:
        log = store["notes"]
        longest = ("x" * 255 + ".") * 3 + "x" * 256
        assert len(longest) == MAX_SUBJECT_BYTES
        entries = [Append("x" * 5000, b"1"), Append(longest, b"x" * MAX_RECORD_BYTES, "m" * 128)]
        answers = await log.append_many(entries)
        assert isinstance(answers[0], TooLarge)
        assert answers[1] == Appended(1, False)
        assert log.state is LogState.WRITABLE
        (record,) = (await log.read(0)).records
        assert (record.subject, len(record.payload)) == (longest, MAX_RECORD_BYTES)


async def test_times_are_exact_to_the_nanosecond(server: NatsServer) -> None:
    async with await JetStreamStore.open(server.url, [NOTES]) as store:
        log = store["notes"]
        pages = log.follow(0)
        await anext(pages)
        await log.append_many([Append("a", b"%d" % i) for i in range(50)])
        followed: list[Record] = []
        while len(followed) < 50:
            followed += (await anext(pages)).records
    async with await JetStreamStore.open(server.url, [LogSettings("notes", tail_bytes=1)]) as store:
        log = store["notes"]
        assert list((await log.read(0)).records) == followed
        for record in followed:
            assert log.position_of(record) == await log.position(record.sequence)
        assert await log.last("a") == followed[-1]


async def test_all_replicas_have_one_epoch(server: NatsServer) -> None:
    async with (
        await JetStreamStore.open(server.url, [NOTES, FEATURES]) as one,
        await JetStreamStore.open(server.url, [NOTES]) as other,
    ):
        assert one["notes"].epoch == other["notes"].epoch != one["features"].epoch
        answer = await one["notes"].append(Append("a", b"1", "m"))
        await asyncio.wait_for(other["notes"].wait_for(answer.sequence), 20)
        assert await other["notes"].append(Append("a", b"1", "m")) == Appended(answer.sequence, True)
        token = await one["notes"].position(answer.sequence)
        assert await other["notes"].resolve(token) == answer.sequence


def make_certificates(directory: Path) -> tuple[Path, Path, Path]:
    """An authority, and a certificate of it for 127.0.0.1 that serves both sides, with its key."""
    authority, authority_key = directory / "ca.pem", directory / "ca.key"
    certificate, key = directory / "node.pem", directory / "node.key"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"]
    openssl("req", "-x509", *new_key, "-subj", "/CN=authority", "-keyout", authority_key, "-out", authority)
    request: list[str | Path] = [
        "-subj",
        "/CN=node",
        "-addext",
        "subjectAltName=IP:127.0.0.1",
        "-keyout",
        key,
        "-out",
        certificate,
    ]
    openssl("req", "-x509", *new_key, "-CA", authority, "-CAkey", authority_key, *request)
    return authority, certificate, key


def openssl(*arguments: str | Path) -> None:
    """Run it quietly."""
    subprocess.run(["openssl", *arguments], check=True, capture_output=True, timeout=30)
