"""Signpost's exceptions: one tree, drawn here.

    SignpostError                      reason, metadata; `retry_after_s` where waiting helps
    ├── InvalidArgument                violations: every bad field, not only the first
    ├── NotFound
    ├── StaleSequence                  an expected sequence is not the current one
    ├── PositionError
    │   ├── PositionCompacted          below the horizon: first_available says where to go on
    │   ├── PositionAhead              beyond the head
    │   ├── EpochChanged               the log was recreated or restored
    │   └── LogRewound                 the record at the position is another one
    ├── ResourceExhausted
    │   ├── TooLarge                   over a limit in bytes
    │   ├── RateLimited                faster than the allowance
    │   ├── StorageFull                the log's disk or quota is full
    │   └── OutboxFull                 the client's outbox is full and was told not to wait
    ├── Unavailable                    passing: try again
    │   ├── LogUnavailable             the log engine does not answer
    │   └── Draining                   the server is going away: move now
    ├── SessionFenced                  the same client id is connected with another session
    ├── Unauthenticated
    ├── PermissionDenied
    ├── Unimplemented
    ├── DeadlineExceeded
    ├── LogRefused                     at start: a log that must not be opened as it is
    └── Internal                       a fault of ours, or a status that nothing above describes

Domain code raises these and knows no status codes; `signpost.server.errors` turns them into
statuses by one table, `signpost.client.errors` turns statuses back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self


class SignpostError(Exception):
    """Root of everything that Signpost raises on purpose.

    `reason` is UPPER_SNAKE and stable: switch on it, never on the text. `metadata` has
    camelCase keys.
    """

    reason = "INTERNAL"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        if reason is not None:
            self.reason = reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Violation:
    """One bad field: its path in the request, and what is wrong with its value."""

    field: str
    description: str
    reason: str = "INVALID_FIELD"


class InvalidArgument(SignpostError):
    """The request is wrong as it is; the same again will fail again."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, message: str, *, violations: Sequence[Violation] = (), reason: str | None = None) -> None:
        super().__init__(message, reason=reason)
        self.violations = tuple(violations)

    @classmethod
    def of(cls, field: str, rule: str, reason: str | None = None) -> Self:
        """One bad field. `reason`: one of its own, by which clients know it."""
        violation = Violation(field, rule, reason) if reason else Violation(field, rule)
        return cls(f"{field} {rule}", violations=[violation], reason=reason)

    def within(self, field: str) -> Self:
        """The same, of what a request has in `field`: its path goes in front of the fields that are named."""
        self.violations = tuple(replace(each, field=f"{field}.{each.field}") for each in self.violations)
        return self


class NotFound(SignpostError):
    """What the request names is not there."""

    reason = "NOT_FOUND"


class StaleSequence(SignpostError):
    """An expected sequence is not the current one; `actual` is 0 for absent or deleted."""

    reason = "STALE_SEQUENCE"

    def __init__(self, subject: str, expected: int, actual: int) -> None:
        super().__init__(
            f"expected sequence {expected} of {subject}, but it is {actual}",
            metadata={"subject": subject, "expectedSequence": str(expected), "actualSequence": str(actual)},
        )
        self.subject, self.expected, self.actual = subject, expected, actual


class PositionError(SignpostError):
    """A position that cannot be continued; `first_available` is where reading could go on."""

    reason = "POSITION_INVALID"

    def __init__(self, message: str, *, first_available: int) -> None:
        super().__init__(message, metadata={"firstAvailable": str(first_available)})
        self.first_available = first_available


class PositionCompacted(PositionError):
    """Retention has passed the position."""

    reason = "POSITION_COMPACTED"


class PositionAhead(PositionError):
    """The position is beyond the head of the log."""

    reason = "POSITION_AHEAD"


class EpochChanged(PositionError):
    """The position is of another epoch: the log was recreated or restored."""

    reason = "EPOCH_CHANGED"


class LogRewound(PositionError):
    """Another record stands at the position's sequence: the log was rewound."""

    reason = "LOG_REWOUND"


class ResourceExhausted(SignpostError):
    """A limit was reached."""

    reason = "RESOURCE_EXHAUSTED"


class TooLarge(ResourceExhausted):
    """Over a limit in bytes."""

    reason = "TOO_LARGE"

    def __init__(self, what: str, size_bytes: int, limit_bytes: int) -> None:
        super().__init__(
            f"{what} has {size_bytes} bytes; the limit is {limit_bytes}",
            metadata={"sizeBytes": str(size_bytes), "limitBytes": str(limit_bytes)},
        )
        self.size_bytes, self.limit_bytes = size_bytes, limit_bytes


class RateLimited(ResourceExhausted):
    """Faster than the allowance; `retry_after_s` says when to go on."""

    reason = "RATE_LIMITED"


class StorageFull(ResourceExhausted):
    """The log's disk or quota is full; reads go on, writes resume when there is room."""

    reason = "STORAGE_FULL"


class OutboxFull(ResourceExhausted):
    """The client's outbox is full and `publish` was told not to wait."""

    reason = "OUTBOX_FULL"


class Unavailable(SignpostError):
    """Passing: try again after `retry_after_s`."""

    reason = "UNAVAILABLE"


class LogUnavailable(Unavailable):
    """The log engine does not answer; whether the write was stored is not known."""

    reason = "LOG_UNAVAILABLE"


class Draining(Unavailable):
    """The server is going away: move now."""

    reason = "DRAINING"


class SessionFenced(SignpostError):
    """The same client id is connected with another session; do not come back by yourself."""

    reason = "SESSION_FENCED"


class Unauthenticated(SignpostError):
    """No valid credentials."""

    reason = "UNAUTHENTICATED"


class PermissionDenied(SignpostError):
    """The principal may not do this."""

    reason = "PERMISSION_DENIED"


class Unimplemented(SignpostError):
    """This server does not have the method."""

    reason = "UNIMPLEMENTED"


class DeadlineExceeded(SignpostError):
    """The deadline passed first; whether the call took effect is not known."""

    reason = "DEADLINE_EXCEEDED"


class LogRefused(SignpostError):
    """A log that must not be opened as it is: corrupt, foreign, newer, in use, or set otherwise.

    The text names the file or stream, what is wrong, and what to do. Nothing was touched.
    """

    reason = "LOG_REFUSED"


class Internal(SignpostError):
    """A fault of ours, or a status that nothing else describes."""
