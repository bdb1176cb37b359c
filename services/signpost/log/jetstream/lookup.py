"""Single records by sequence or subject, asked of the stream's leader: what it answers is current."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any

from signpost.errors import LogUnavailable
from signpost.log.base import Record
from signpost.log.jetstream.connection import Link
from signpost.log.jetstream.streams import Names
from signpost.log.jetstream.wire import NO_MESSAGE_FOUND, format_time, parse_time, record_of

_MAX_REQUESTS = 64  # at once, so that a page of subjects does not flood the server
_OVERLAP = 1000  # subjects of a page that the next one has too; more that vanish between the two cost a request


async def _get(link: Link, names: Names, stream: str, query: dict[str, Any]) -> Record | None:
    answer = await link.api(f"STREAM.MSG.GET.{stream}", query)
    error = answer.get("error")
    if error is not None:
        if error.get("err_code") == NO_MESSAGE_FOUND:
            return None
        raise LogUnavailable(f"stream {stream}: {error.get('description', '')}", retry_after_s=1.0)
    return _record(names, answer["message"])


def _record(names: Names, message: dict[str, Any]) -> Record:
    subject = message["subject"].removeprefix(names.subject_prefix)
    return record_of(message["seq"], subject, parse_time(message["time"]), base64.b64decode(message.get("data", "")))


async def record_at(link: Link, names: Names, sequence: int) -> Record | None:
    """The record at a sequence, in the stream or its mirror."""
    record = await _get(link, names, names.stream, {"seq": sequence})
    if record is None and names.mirror:
        record = await _get(link, names, names.mirror, {"seq": sequence})
    return record


async def last_in_stream(link: Link, names: Names, subject: str) -> Record | None:
    """The last record of a subject, if the stream has one."""
    return await _get(link, names, names.stream, {"last_by_subj": names.subject(subject)})


async def last_in_mirror(link: Link, names: Names, subject: str) -> Record | None:
    """The last record of a subject, if there is a mirror and it has one."""
    if not names.mirror:
        return None
    return await _get(link, names, names.mirror, {"last_by_subj": names.subject(subject)})


async def last(link: Link, names: Names, subject: str) -> Record | None:
    """The last record of a subject."""
    return await last_in_stream(link, names, subject) or await last_in_mirror(link, names, subject)


async def first_of(link: Link, names: Names, subject: str) -> Record | None:
    """The first record of a subject that is left, the mirror's where that is older."""
    query = {"seq": 1, "next_by_subj": names.subject(subject)}
    in_stream = await _get(link, names, names.stream, query)
    return in_stream or await last_in_mirror(link, names, subject)


async def first_after(
    link: Link, names: Names, stream: str, sequence: int, pattern: str | None = None
) -> Record | None:
    """The first record of one stream after a sequence that matches."""
    query = {"seq": sequence + 1, "next_by_subj": names.subject(pattern or ">")}
    return await _get(link, names, stream, query)


async def published(link: Link, names: Names, subject: str, after: int, key: str) -> Record | None:
    """The first record of a subject in the stream after a sequence, if it was published under this dedupe key."""
    query = {"seq": after + 1, "next_by_subj": names.subject(subject)}
    answer = await link.api(f"STREAM.MSG.GET.{names.stream}", query)
    headers = base64.b64decode(answer.get("message", {}).get("hdrs", ""))
    return _record(names, answer["message"]) if f"\r\nNats-Msg-Id: {key}\r\n".encode() in headers else None


async def last_of(link: Link, names: Names, subjects: Sequence[str]) -> list[Record]:
    """The last record of each of some subjects; those that have none by now are left out."""
    gate = asyncio.Semaphore(_MAX_REQUESTS)

    async def one(subject: str) -> Record | None:
        async with gate:
            return await last(link, names, subject)

    return [record for record in await asyncio.gather(*map(one, subjects)) if record is not None]


async def counts(link: Link, names: Names, stream: str, pattern: str) -> dict[str, int]:
    """How many records each matching subject has in one stream; what comes meanwhile may be missing."""
    found: dict[str, int] = {}
    offset, reached = 0, ""
    while True:
        query = {"subjects_filter": names.subject(pattern), "offset": offset}
        answer = await link.api(f"STREAM.INFO.{stream}", query)
        if "error" in answer:
            raise LogUnavailable(f"stream {stream}: {answer['error'].get('description', '')}", retry_after_s=1.0)
        page, total = answer["state"].get("subjects") or {}, answer.get("total", 0)
        # Offsets count the subjects in order as they are now: those that move up must not be passed over.
        if offset and (not page or min(page) > reached):
            offset = max(0, min(offset, total) - _OVERLAP)
            continue
        for subject, count in page.items():
            found[subject.removeprefix(names.subject_prefix)] = count
        if not page or offset + len(page) >= total:
            return found
        offset, reached = max(offset + 1, offset + len(page) - _OVERLAP), max(page)


async def before_time(link: Link, stream: str, time_ns: int) -> int:
    """The sequence before the first record at or after a time: where a consumer from that time would begin."""
    config = {
        "deliver_policy": "by_start_time",
        "opt_start_time": format_time(time_ns),
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "inactive_threshold": 1_000_000_000,
    }
    answer = await link.api(f"CONSUMER.CREATE.{stream}", {"stream_name": stream, "config": config})
    if "error" in answer:
        raise LogUnavailable(f"stream {stream}: {answer['error'].get('description', '')}", retry_after_s=1.0)
    link.send_soon(f"$JS.API.CONSUMER.DELETE.{stream}.{answer['name']}")
    sequence: int = answer["delivered"]["stream_seq"]
    return sequence
