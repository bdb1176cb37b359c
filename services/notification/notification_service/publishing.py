"""From a client's publication to an entry of the log, and back to its result."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Protocol

from signpost.errors import InvalidArgument, SignpostError, TooLarge
from signpost.log.base import MAX_RECORD_BYTES, Append, Appended
from signpost.server.errors import parts_of
from signpost.wire import varint

from notification_service.codec import field, publish_results, stored
from notification_service.topics import check_topic
from protos.notification.v1 import notification_pb2 as pb

MAX_ID_BYTES = 128
MAX_ATTRIBUTES = 64
MAX_PARTICULARS_BYTES = 1 << 20
MAX_TTL_MS = 100 * 365 * 86_400_000
_new = tuple.__new__  # a NamedTuple's own constructor takes three times as long, once for each publication


class Publishable(Protocol):
    """What `Publication` and `PublishRequest` have in common."""

    topic: str
    message_id: str
    payload: bytes
    ttl_ms: int

    @property
    def attributes(self) -> Mapping[str, str]: ...


@lru_cache(65_536)
def _topic_field(topic: str) -> bytes:
    return field(3, check_topic(topic).encode())


def entry(item: Publishable, principal: str, traceparent: str, now_ns: int) -> Append:
    """The log entry of a publication.

    Raises InvalidArgument with every bad field, PermissionDenied for a system topic, TooLarge.
    """
    topic, message_id, payload, attributes, ttl_ms = (
        item.topic,
        item.message_id,
        item.payload,
        item.attributes,
        item.ttl_ms,
    )
    published = _topic_field(topic)
    if message_id:
        encoded = message_id.encode()
        if len(encoded) > MAX_ID_BYTES:
            raise InvalidArgument.of("message_id", f"must be at most {MAX_ID_BYTES} bytes")
        published += b'"%b%b' % (varint(len(encoded)), encoded)
    if payload:
        published += b"*%b%b" % (varint(len(payload)), payload)
    if attributes or ttl_ms or traceparent:
        if len(attributes) > MAX_ATTRIBUTES:
            raise InvalidArgument.of("attributes", f"must have at most {MAX_ATTRIBUTES} keys, not {len(attributes)}")
        if ttl_ms > MAX_TTL_MS:
            raise InvalidArgument.of("ttl_ms", f"must be at most {MAX_TTL_MS}")
        more = pb.Notification(attributes=attributes, traceparent=traceparent)
        published += more.SerializeToString()
        if ttl_ms:
            published = b"\x39%b%b" % ((now_ns + ttl_ms * 1_000_000).to_bytes(8, "little"), published)
    record = stored(published, principal)
    if len(record) > MAX_RECORD_BYTES:
        raise TooLarge("the notification", len(record), MAX_RECORD_BYTES)
    return _new(Append, (topic, record, message_id, principal, None, False))


def system_entry(
    topic: str, payload: bytes, *, message_id: str = "", attributes: Mapping[str, str] | None = None
) -> Append:
    """An entry of our own: under a system topic, which clients may read but not publish to."""
    published = pb.Notification(topic=topic, message_id=message_id, payload=payload, attributes=attributes)
    return Append(topic, stored(published.SerializeToString(), ""), message_id)


def entries(
    items: Sequence[pb.Publication], principal: str, now_ns: int
) -> tuple[list[Append], dict[int, SignpostError]]:
    """The entries of a frame, and by index what was wrong with the others."""
    good: list[Append] = []
    bad: dict[int, SignpostError] = {}
    for index, item in enumerate(items):
        try:
            good.append(entry(item, principal, item.traceparent, now_ns))
        except SignpostError as error:
            bad[index] = error
    return good, bad


def results(answers: Sequence[Appended | SignpostError], bad: Mapping[int, SignpostError]) -> list[bytes]:
    """The encoded `Published.results` in parts to be joined, in the order of the publications."""
    if bad:
        merged: list[Appended | SignpostError] = list(answers)
        for index in sorted(bad):
            merged.insert(index, bad[index])
        answers = merged
    return publish_results(answers, _Refusals().result)


def error_message(error: BaseException) -> pb.Error:
    """An error as frames carry it."""
    code, reason, message, metadata, retry_after_s = parts_of(error)
    if isinstance(error, InvalidArgument) and error.violations:
        metadata = {**metadata, **{violation.field: violation.description for violation in error.violations}}
    retry_ms = round((retry_after_s or 0) * 1000)
    return pb.Error(code=code, reason=reason, message=message, metadata=metadata, retry_after_ms=retry_ms)


class _Refusals:
    """The refusals of one frame: their code and reason, and their particulars as far as the answer is no message too
    large: 10,000 publications may be wrong."""

    def __init__(self) -> None:
        self._left = MAX_PARTICULARS_BYTES

    def result(self, error: SignpostError) -> bytes:
        """The encoded result."""
        message = error_message(error)
        if self._left <= 0:
            message.ClearField("message")
            message.ClearField("metadata")
        encoded = field(2, pb.PublishResult(error=message).SerializeToString())
        self._left -= len(encoded)
        return encoded
