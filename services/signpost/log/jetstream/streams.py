"""The streams under a log: made where they are missing, checked where they are there.

A log is one stream. A log that keeps the last record of each subject has a second one, a mirror with
one message a subject: it keeps the first stream's sequences, so that what ages out of the stream stands in
the mirror at the same place. The two are one log: where either is made anew, that is another log, with another epoch.
"""

import asyncio
import hashlib
import logging
import random
from typing import Any, NamedTuple

from signpost.errors import LogRefused, LogUnavailable
from signpost.log.base import MAX_RECORD_BYTES, LogSettings
from signpost.log.jetstream.connection import Connection, Link
from signpost.log.jetstream.settings import JetStreamSettings
from signpost.log.jetstream.wire import NO_PEERS, STREAM_NOT_FOUND
from signpost.log.subjects import MAX_SUBJECT_BYTES, is_subject

_log = logging.getLogger(__name__)
_NS = 1_000_000_000
_DESCRIPTION = "Signpost log, format 1"
_MIRROR_OF = f"{_DESCRIPTION}: the mirror of the stream made "
_NOT_YET = "0001-01-01T00:00:00"  # what a server answers for a moment, to others than who makes the stream
_MIN_WINDOW_S = 0.1
_RETRY_S = 0.25
_TURN_S = 0.25
_LOOK_S = 0.02
_BEGIN_S = 5.0
# Frame, headers and subject come on top of a record's payload.
MAX_MESSAGE_BYTES = MAX_RECORD_BYTES + 0x10000 + MAX_SUBJECT_BYTES + 1024
_CHECKED = (
    "description",
    "subjects",
    "mirror",
    "retention",
    "discard",
    "storage",
    "num_replicas",
    "max_age",
    "max_bytes",
    "max_msgs",
    "max_msgs_per_subject",
    "max_consumers",
    "max_msg_size",
    "duplicate_window",
    "sealed",
)
_UNITS = {"max_age": "ns", "duplicate_window": "ns", "max_bytes": "bytes", "max_msg_size": "bytes"}


class StreamState(NamedTuple):
    """A stream at one moment. `created` is its identity; `first` is last + 1 in an empty one. `copies`: it is a mirror
    that has heard of its stream, since its server started or became the leader."""

    created: str
    first: int
    last: int
    messages: int
    bytes: int
    subjects: int
    description: str
    copies: bool


class Streams(NamedTuple):
    """What a log consists of at one moment."""

    stream: StreamState
    mirror: StreamState | None

    @property
    def identity(self) -> str:
        """When they were made."""
        return " ".join(each.created for each in self if each is not None)


class Names(NamedTuple):
    """What a log's streams and subjects are called."""

    stream: str
    mirror: str
    subject_prefix: str

    def subject(self, subject: str) -> str:
        """A record's subject, or a filter, on NATS."""
        return self.subject_prefix + subject


def names_of(log: LogSettings, settings: JetStreamSettings) -> Names:
    """The names of a log's streams; raises LogRefused for a prefix or a log name that is not one token, and for a log
    that no mirror can follow."""
    for what, name in (("prefix", settings.prefix), ("log", log.name)):
        if not is_subject(name) or "." in name:
            raise LogRefused(f"{name!r} is no {what} for NATS: use letters, digits, '-' and '_'")
    stream = f"{settings.prefix}-{log.name}"
    keeps_last = keeps_a_mirror(log)
    return Names(stream, f"{stream}-last" if keeps_last else "", f"{settings.prefix}.{log.name}.")


def keeps_a_mirror(log: LogSettings) -> bool:
    """Whether records leave the stream that must stay in the mirror; raises LogRefused where they could leave it before
    the mirror has them: a mirror copies within moments, which an age gives it and a burst of appends does not."""
    bound = log.retention
    if bound.keep_last and (bound.max_bytes, bound.max_records) != (None, None):
        raise LogRefused(
            f"log {log.name} keeps the last record of each subject, and NATS may lose some of these where it is "
            "bounded by records or bytes: bound it by age (max_age_s) alone"
        )
    return bound.keep_last and bound.max_age_s is not None


def dedupe_window_s(log: LogSettings) -> float:
    """How long its stream remembers message ids: at most the age of its records, NATS' rule."""
    age_s = log.retention.max_age_s
    return max(log.dedupe_window_s if age_s is None else min(log.dedupe_window_s, age_s), _MIN_WINDOW_S)


def stream_config(log: LogSettings, settings: JetStreamSettings) -> dict[str, Any]:
    """The stream's configuration."""
    bound = log.retention
    return _base(names_of(log, settings).stream, settings) | {
        "subjects": [names_of(log, settings).subject(">")],
        "max_age": 0 if bound.max_age_s is None else int(bound.max_age_s * _NS),
        "max_bytes": -1 if bound.max_bytes is None else bound.max_bytes,
        "max_msgs": -1 if bound.max_records is None else bound.max_records,
        "duplicate_window": int(dedupe_window_s(log) * _NS),
    }


def mirror_config(log: LogSettings, settings: JetStreamSettings, created: str) -> dict[str, Any]:
    """The configuration of the mirror that keeps the last record of each subject of the stream made then.

    Purging is denied: a mirror does not copy again what its stream still has, which would be lost as it ages out.
    """
    names = names_of(log, settings)
    return _base(names.mirror, settings) | {
        "description": f"{_MIRROR_OF}{created}",
        "mirror": {"name": names.stream},
        "max_msgs_per_subject": 1,
        "deny_purge": True,
    }


def _base(name: str, settings: JetStreamSettings) -> dict[str, Any]:
    return {
        "name": name,
        "description": _DESCRIPTION,
        "retention": "limits",
        "discard": "old",
        "storage": settings.storage,
        "num_replicas": settings.replicas,
        "max_age": 0,
        "max_bytes": -1,
        "max_msgs": -1,
        "max_msgs_per_subject": -1,
        "max_consumers": -1,
        "max_msg_size": -1,
        "allow_direct": False,
    }


def epoch_of(name: str, identity: str) -> bytes:
    """8 bytes that are new whenever the stream or its mirror is made anew."""
    return hashlib.blake2b(f"{name} {identity}".encode(), digest_size=8).digest()


async def ensure_log(
    link: Link, log: LogSettings, settings: JetStreamSettings, *, compare: bool, known: str = ""
) -> Streams:
    """A log's streams, made where they are missing. `known` is when the mirror was made that is known to have begun.

    Raises LogRefused where the mirror is another stream's, and, to `compare`, where either is set otherwise. With a
    stream that is made anew its mirror is: it would go on after the last record of the stream that is gone.
    """
    names = names_of(log, settings)
    mirror = await state(link, names.mirror) if names.mirror else None  # first: it is never ahead of its stream
    stream = await state(link, names.stream)
    is_new = stream is None
    if stream is None or compare:
        stream = await ensure(link, stream_config(log, settings))
    if not names.mirror:
        return Streams(stream, None)
    if is_new:
        mirror = await state(link, names.mirror)
    if mirror is not None and _is_of_another(mirror, stream):
        if not is_new:
            raise LogRefused(
                f"stream {names.mirror} is not the mirror of {names.stream} as it is now. Delete it (nats stream rm), "
                "and what only it keeps is lost; where both were restored from one backup, set its description to "
                f"'{_MIRROR_OF}{stream.created}'. Nothing was touched"
            )
        # Every replica is here now. One deletes it: a second time it would be what the first has made since.
        await asyncio.sleep(random.uniform(0, _TURN_S))  # noqa: S311 - jitter
        there = await state(link, names.mirror)
        if there is not None and there.created == mirror.created:
            text = "stream %s was gone and is made anew; its mirror's %d records of the one before are lost too"
            _log.error(text, names.stream, mirror.messages)
            await _delete(link, names.mirror)
            there = None
        mirror = there
    is_made = mirror is None
    config = mirror_config(log, settings, stream.created)
    if mirror is not None and mirror.description == _DESCRIPTION:
        config["description"] = _DESCRIPTION
    if mirror is None or compare:
        mirror = await ensure(link, config)
    return Streams(stream, mirror) if mirror.created == known else await _begun(link, names, mirror, is_made=is_made)


async def _begun(link: Link, names: Names, made: StreamState, *, is_made: bool) -> Streams:
    """The streams, once the mirror copies. What ages out before that is lost to it: if some had been read by then, of
    a log of this epoch, others would be told of the same epoch that it was never there.

    Raises LogUnavailable where it takes longer, as while a cluster finds the stream's leader.
    """
    deadline = asyncio.get_running_loop().time() + _BEGIN_S
    try:
        while True:
            stream, mirror = await state(link, names.stream), await state(link, names.mirror)
            if stream is None or mirror is None or mirror.created != made.created:
                raise LogUnavailable(f"stream {names.mirror} has changed", retry_after_s=1.0)
            if mirror.copies and mirror.last >= min(stream.first, stream.last):
                break
            if asyncio.get_running_loop().time() > deadline:
                raise LogUnavailable(f"stream {names.mirror} does not copy {names.stream} yet", retry_after_s=1.0)
            await asyncio.sleep(_LOOK_S)
    except BaseException:
        if is_made:  # the next attempt finds it there
            text = "stream %s was missing and is made anew; what ages out of %s before it copies that is lost"
            _log.error(text, names.mirror, names.stream)
        raise
    if is_made and stream.first > 1:
        text = "stream %s was missing and is made anew; what had aged out of %s, up to %d, is lost"
        _log.error(text, names.mirror, names.stream, stream.first - 1)
    return Streams(stream, mirror)


def _is_of_another(mirror: StreamState, stream: StreamState) -> bool:
    """Whether a mirror is of a stream that was there before. Those of earlier releases do not name theirs."""
    if mirror.description == _DESCRIPTION:
        return mirror.last > stream.last
    return mirror.description.startswith(_MIRROR_OF) and mirror.description != f"{_MIRROR_OF}{stream.created}"


async def _delete(link: Link, name: str) -> None:
    error = (await link.api(f"STREAM.DELETE.{name}")).get("error")
    if error is not None and error.get("err_code") != STREAM_NOT_FOUND:
        raise LogUnavailable(f"stream {name}: {error.get('description', '')}", retry_after_s=1.0)


async def ensure(link: Link, config: dict[str, Any]) -> StreamState:
    """The state of a stream that is as configured: made where it is missing, LogRefused where it differs."""
    name = config["name"]
    answer = await link.api(f"STREAM.INFO.{name}")
    if answer.get("error", {}).get("err_code") == STREAM_NOT_FOUND:
        answer = await link.api(f"STREAM.CREATE.{name}", config)
    error = answer.get("error")
    if error is not None:
        text = f"{error.get('description', '')} ({error.get('err_code', error.get('code'))})"
        if error.get("code") == 503 or error.get("err_code") == NO_PEERS:
            raise LogUnavailable(f"stream {name}: {text}", retry_after_s=1.0)
        raise LogRefused(f"NATS refuses stream {name}: {text}")
    check(config, answer["config"])
    return state_of(answer)


def check(wanted: dict[str, Any], found: dict[str, Any]) -> None:
    """Raise LogRefused, naming every setting in which a stream differs from what is wanted."""
    differences = [
        f"{key} is {found.get(key)!r}, wanted {wanted.get(key)!r}{' ' + _UNITS[key] if key in _UNITS else ''}"
        for key in _CHECKED
        if (found.get(key) or None) != (wanted.get(key) or None)
    ]
    if differences:
        raise LogRefused(
            f"stream {wanted['name']} is set otherwise: {'; '.join(differences)}. Change the settings to match, "
            "or the stream (nats stream edit); nothing was touched"
        )


async def state(link: Link, name: str) -> StreamState | None:
    """A stream's state; None where there is no such stream."""
    answer = await link.api(f"STREAM.INFO.{name}")
    error = answer.get("error")
    if error is None:
        return state_of(answer)
    if error.get("err_code") == STREAM_NOT_FOUND:
        return None
    raise LogUnavailable(f"stream {name}: {error.get('description', '')}", retry_after_s=1.0)


def state_of(answer: dict[str, Any]) -> StreamState:
    """The state in a stream's information; raises LogUnavailable while it is being made, and has no time yet."""
    if answer["created"].startswith(_NOT_YET):
        raise LogUnavailable(f"stream {answer['config']['name']} is being made", retry_after_s=1.0)
    s = answer["state"]
    first, last, messages = s["first_seq"], s["last_seq"], s["messages"]
    return StreamState(
        answer["created"],
        first if messages else last + 1,
        last,
        messages,
        s["bytes"],
        s.get("num_subjects", 0),
        answer["config"].get("description", ""),
        answer.get("mirror", {}).get("active", -1) >= 0,
    )


async def open_log(connection: Connection, log: LogSettings, settings: JetStreamSettings) -> Streams:
    """`ensure_log`, tried again while a cluster finds its leader; LogRefused where it takes too long."""
    timeout_s = settings.open_timeout_s
    why = "there is no leader"
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                link = await connection.wait_link()
                try:
                    return await ensure_log(link, log, settings, compare=True)
                except LogUnavailable as error:
                    why = error.message
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        name = names_of(log, settings).stream
        raise LogRefused(f"NATS does not open stream {name} within {timeout_s} s: {why}") from None
