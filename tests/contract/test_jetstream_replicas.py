"""What only a cluster does: a replica lags behind its leader, and that looks at things in another order.

A lagging replica cannot be had at will; here a cursor answers what one on such a replica was seen to answer.
"""

import asyncio
import dataclasses
from functools import partial
from typing import Any

import pytest
from signpost.errors import LogUnavailable, StaleSequence
from signpost.log import Append, Appended, LogSettings, Retention
from signpost.log.admission import dedupe_key
from signpost.log.jetstream import JetStreamSettings, JetStreamStore, lookup, streams
from signpost.log.jetstream.cursors import Chunk, Cursors
from signpost.log.jetstream.expecting import Expecting
from signpost.log.jetstream.log import JetStreamLog

from tests.contract.engines import eventually
from tests.support.nats import NatsServer


def on_replicas(log: JetStreamLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """The log as if its stream had three replicas, which one server cannot give it."""
    monkeypatch.setattr(log, "_js", dataclasses.replace(JetStreamSettings(), replicas=3))


async def reaches(log: JetStreamLog, stream: str, sequence: int) -> bool:
    """Whether a stream has copied what is appended so far."""
    state = await streams.state(log._link(), stream)
    return state is not None and state.last == sequence


@pytest.mark.parametrize("here", [0, 1])
@pytest.mark.parametrize("subjects", [None, "s.7"])
@pytest.mark.parametrize("mirrored", [False, True])
async def test_a_read_does_not_end_where_a_lagging_replica_ends(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch, mirrored: bool, subjects: str | None, here: int
) -> None:
    retention = Retention(max_age_s=3600.0, keep_last=True) if mirrored else Retention()
    settings = LogSettings("notes", retention, tail_bytes=1)
    async with await JetStreamStore.open(server.url, [settings]) as store:
        log = store["notes"]
        for start in (0, 12):
            await log.append_many([Append(f"s.{i}", b"%d" % i) for i in range(start, start + 12)])
            stream = log._names.mirror or log._names.stream
            await eventually(partial(reaches, log, stream, start + 12), f"{stream} has all")
        if mirrored:  # as if the first half had aged out
            await log._link().api(f"STREAM.PURGE.{log._names.stream}", {"seq": 13})
        wanted = await log.read(0, subjects=subjects, allow_gaps=True)
        assert wanted.records
        fetch, lagging = Cursors.fetch, True

        async def fetch_there(*args: Any, **kwargs: Any) -> Chunk:
            nonlocal lagging
            chunk = await fetch(*args, **kwargs)
            lagging, was = False, lagging
            return Chunk(chunk.records[:here], True) if was else chunk

        monkeypatch.setattr(Cursors, "fetch", fetch_there)
        on_replicas(log, monkeypatch)
        assert await log.read(0, subjects=subjects, allow_gaps=True) == wanted


async def test_a_cursor_that_begins_too_early_is_not_read(server: NatsServer) -> None:
    """A replica that has less than where the cursor is to begin begins at its own end."""
    async with await JetStreamStore.open(server.url, [LogSettings("notes")]) as store:
        log = store["notes"]
        await log.append(Append("s", b"1"))
        cursors, link = Cursors(log._names, 5.0), log._link()
        assert await cursors.fetch(link, log._names.stream, None, 0, limit=1, max_bytes=1) == Chunk(
            [*(await log.read(0)).records], False
        )
        (cursor,) = cursors._idle
        cursor.position = 2  # as asked of a replica that has one record
        await log.append(Append("s", b"2"))
        with pytest.raises(LogUnavailable, match="lags behind"):
            await cursors.fetch(link, log._names.stream, None, 2, limit=1, max_bytes=1)
        cursors.close()


@pytest.mark.parametrize("later", [0, 3])
async def test_an_append_that_is_there_is_not_stale_though_a_cluster_looks_at_what_it_expected_first(
    server: NatsServer, later: int
) -> None:
    async with await JetStreamStore.open(server.url, [LogSettings("notes")]) as store:
        log = store["notes"]
        await log.append_many([Append("s", b"before"), Append("other", b"")])
        entry = Append("s", b"own", "id", expected_sequence=1)
        assert await log.append(entry) == Appended(3, False)
        await log.append_many([Append("s", b"after")] * later)
        cluster = Expecting(log._link, log._names, window_s=60.0)
        key = dedupe_key("", "s", "id").hex()
        assert await cluster.settle(entry, key) == Appended(3, True)
        stale = StaleSequence("s", 1, 3 + later)
        assert repr(await cluster.settle(entry, key[::-1])) == repr(stale)
        assert repr(await Expecting(log._link, log._names, window_s=1e-9).settle(entry, key)) == repr(stale)
        first = Append("t", b"", "id", expected_sequence=0)
        sequence = (await log.append(first)).sequence
        assert await cluster.settle(first, dedupe_key("", "t", "id").hex()) == Appended(sequence, True)


async def test_a_time_is_not_looked_up_on_a_lagging_replica(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with await JetStreamStore.open(server.url, [LogSettings("notes")]) as store:
        log = store["notes"]
        await log.append_many([Append("s", b"%d" % i) for i in range(3)])
        second = (await log.read(1)).records[0]
        assert await log.before_time(second.time_ns) == 1
        on_replicas(log, monkeypatch)
        assert await log.before_time(second.time_ns) == 1

        async def there(*_: object) -> int:
            await asyncio.sleep(0)
            return 0

        monkeypatch.setattr(lookup, "before_time", there)
        with pytest.raises(LogUnavailable, match="lags behind"):
            await log.before_time(second.time_ns)
