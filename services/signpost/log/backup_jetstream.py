"""Backup and restore's part that speaks to NATS: which logs there are, and making them anew."""

import contextlib
import dataclasses
import sqlite3
from collections.abc import AsyncIterator
from typing import Any

from signpost.errors import LogRefused, LogUnavailable, SignpostError
from signpost.log import backup
from signpost.log.base import Append, Log, LogSettings, Retention, Store
from signpost.log.jetstream import JetStreamSettings, JetStreamStore
from signpost.log.jetstream.connection import Connection, Link
from signpost.log.jetstream.wire import STREAM_NOT_FOUND

_NS = 1e9


@contextlib.asynccontextmanager
async def opened(url: str, settings: JetStreamSettings | None) -> AsyncIterator[tuple[Store, list[LogSettings]]]:
    """Every log on a NATS under the settings' prefix, set as its streams are."""
    async with _link(url, settings) as (link, wanted):
        found, logs = await _logs(link, wanted)
    async with await JetStreamStore.open(url, logs, found) as store:
        yield store, logs


async def restore(url: str, source: sqlite3.Connection, settings: JetStreamSettings | None) -> int:
    """Make the streams of a backup's logs anew, set as they are, and publish its records, in order."""
    async with _link(url, settings) as (link, wanted):
        found, standing = await _logs(link, wanted)
        by_name = {log.name: log for log in standing}
        ids = dict(source.execute("SELECT name, id FROM logs").fetchall())
        if missing := sorted(set(ids) - set(by_name)):
            raise LogRefused(
                f"there is no stream yet for {', '.join(missing)}: "
                "start the service once, so that it is made as it is set"
            )
        for name in ids:
            for stream in (f"{found.prefix}-{name}-last", f"{found.prefix}-{name}"):
                await _delete(link, stream)
    logs = [by_name[name] for name in ids]
    async with await JetStreamStore.open(url, logs, found) as store:
        return sum([await _publish(store[name], source, log_id) for name, log_id in ids.items()])


async def _delete(link: Link, stream: str) -> None:
    error = (await link.api(f"STREAM.DELETE.{stream}")).get("error")
    if error is not None and error.get("err_code") != STREAM_NOT_FOUND:
        # What is restored would stand after what is there.
        raise LogUnavailable(f"stream {stream}: {error.get('description', '')}", retry_after_s=1.0)


async def _publish(log: Log, source: sqlite3.Connection, log_id: int) -> int:
    after = total = 0
    while records := backup.records_of(source, log_id, after):
        # The log does not keep principals. Each record gets its own, so that equal message ids swallow nothing.
        entries = [
            Append(
                record.subject, record.payload, record.message_id, f"restored {record.sequence}", None, record.tombstone
            )
            for record in records
        ]
        for answer in await log.append_many(entries):
            if isinstance(answer, SignpostError):
                raise answer
        after = records[-1].sequence
        total += len(records)
    return total


@contextlib.asynccontextmanager
async def _link(url: str, settings: JetStreamSettings | None) -> AsyncIterator[tuple[Link, JetStreamSettings]]:
    wanted = settings or JetStreamSettings()
    connection = Connection(url, wanted)
    await connection.open()
    try:
        yield connection.link(), wanted
    finally:
        await connection.close()


async def _logs(link: Link, wanted: JetStreamSettings) -> tuple[JetStreamSettings, list[LogSettings]]:
    """The logs on this NATS, and the settings with the replicas and storage that they have."""
    configs: dict[str, dict[str, Any]] = {}
    while True:
        answer = await link.api("STREAM.LIST", {"offset": len(configs), "subject": f"{wanted.prefix}.>"})
        page = answer.get("streams") or []
        configs |= {stream["config"]["name"]: stream["config"] for stream in page}
        if not page or len(configs) >= answer["total"]:
            break
    prefix = f"{wanted.prefix}-"
    logs: list[LogSettings] = []
    for name, config in configs.items():
        if not name.startswith(prefix):
            continue
        mirror = await link.api(f"STREAM.INFO.{name}-last")
        bound = Retention(
            max_age_s=config["max_age"] / _NS or None,
            max_bytes=None if config["max_bytes"] < 0 else config["max_bytes"],
            max_records=None if config["max_msgs"] < 0 else config["max_msgs"],
            keep_last="error" not in mirror,
        )
        logs.append(LogSettings(name.removeprefix(prefix), bound, config["duplicate_window"] / _NS))
        wanted = dataclasses.replace(wanted, replicas=config["num_replicas"], storage=config["storage"])
    if not logs:
        raise LogRefused(f"there are no streams named {prefix}* on this NATS")
    return wanted, logs
