"""From gRPC statuses, and from `error` frames, to the exceptions of `signpost.errors`.

Everything that a caller of the client library sees is a SignpostError. The reason in ErrorInfo
decides; the status code only where there is no ErrorInfo (a proxy, or gRPC itself, answered).
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from signpost.errors import (
    DeadlineExceeded,
    Draining,
    EpochChanged,
    Internal,
    InvalidArgument,
    LogRewound,
    LogUnavailable,
    NotFound,
    OutboxFull,
    PermissionDenied,
    PositionAhead,
    PositionCompacted,
    PositionError,
    RateLimited,
    ResourceExhausted,
    SessionFenced,
    SignpostError,
    StaleSequence,
    StorageFull,
    TooLarge,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)

CLOSED = "CLIENT_CLOSED"
"""Reason of the Unavailable that a closed client raises."""

DETAILS_KEY = "grpc-status-details-bin"

_BY_REASON: dict[str, type[SignpostError]] = {
    kind.reason: kind
    for kind in (
        NotFound,
        StaleSequence,
        PositionCompacted,
        PositionAhead,
        EpochChanged,
        LogRewound,
        TooLarge,
        RateLimited,
        StorageFull,
        OutboxFull,
        LogUnavailable,
        Draining,
        SessionFenced,
    )
}

_BY_CODE: dict[int, type[SignpostError]] = {
    grpc.StatusCode.CANCELLED.value[0]: Unavailable,  # a server that sheds load cancels what it accepted
    grpc.StatusCode.UNKNOWN.value[0]: Internal,
    grpc.StatusCode.INVALID_ARGUMENT.value[0]: InvalidArgument,
    grpc.StatusCode.DEADLINE_EXCEEDED.value[0]: DeadlineExceeded,
    grpc.StatusCode.NOT_FOUND.value[0]: NotFound,
    grpc.StatusCode.PERMISSION_DENIED.value[0]: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED.value[0]: ResourceExhausted,
    grpc.StatusCode.FAILED_PRECONDITION.value[0]: InvalidArgument,
    grpc.StatusCode.OUT_OF_RANGE.value[0]: PositionError,
    grpc.StatusCode.UNIMPLEMENTED.value[0]: Unimplemented,
    grpc.StatusCode.UNAVAILABLE.value[0]: Unavailable,
    grpc.StatusCode.UNAUTHENTICATED.value[0]: Unauthenticated,
}


def _integer(metadata: Mapping[str, str], key: str) -> int:
    text = metadata.get(key, "")
    return int(text) if text.isdecimal() else 0


def make_error(
    code: int,
    message: str,
    *,
    reason: str = "",
    metadata: Mapping[str, str] | None = None,
    violations: Sequence[Violation] = (),
    retry_after_s: float | None = None,
) -> SignpostError:
    """The exception for a code and a reason; an unknown reason is kept, on the code's class."""
    metadata = dict(metadata or {})
    kind = _BY_REASON.get(reason) or _BY_CODE.get(code, Internal)
    error: SignpostError
    if kind is StaleSequence:
        subject = metadata.get("subject", "")
        error = StaleSequence(subject, _integer(metadata, "expectedSequence"), _integer(metadata, "actualSequence"))
    elif kind is TooLarge:
        error = TooLarge("the message", _integer(metadata, "sizeBytes"), _integer(metadata, "limitBytes"))
    elif issubclass(kind, PositionError):
        error = kind(message, first_available=_integer(metadata, "firstAvailable"))
    elif issubclass(kind, InvalidArgument):
        error = kind(message, violations=violations)
    else:
        error = kind(message)
    # What the server said stands, whatever the class would say by itself.
    error.message = message
    error.args = (message,)
    error.metadata.update(metadata)
    error.retry_after_s = retry_after_s
    if reason:
        error.reason = reason
    return error


def from_rpc_error(error: grpc.RpcError) -> SignpostError:
    """The exception for a gRPC error; the gRPC error is its cause."""
    if not isinstance(error, grpc.aio.AioRpcError):
        return Internal(str(error))
    code, message = error.code().value[0], error.details() or error.code().name
    info, violations, retry_after_s = None, [], None
    for detail in _details(error):
        if detail.Is(error_details_pb2.ErrorInfo.DESCRIPTOR):
            info = error_details_pb2.ErrorInfo()
            detail.Unpack(info)
        elif detail.Is(error_details_pb2.BadRequest.DESCRIPTOR):
            bad = error_details_pb2.BadRequest()
            detail.Unpack(bad)
            violations += [Violation(v.field, v.description, v.reason or "INVALID_FIELD") for v in bad.field_violations]
        elif detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR):
            retry = error_details_pb2.RetryInfo()
            detail.Unpack(retry)
            retry_after_s = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9
    made = make_error(
        code,
        message,
        reason=info.reason if info is not None else "",
        metadata=info.metadata if info is not None else None,
        violations=violations,
        retry_after_s=retry_after_s,
    )
    made.__cause__ = error
    return made


def _details(error: grpc.aio.AioRpcError) -> Iterable[Any]:
    # The stubs have one (key, value) where there are many.
    for key, value in cast("Iterable[tuple[str, str | bytes]]", error.trailing_metadata() or ()):
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return list(status_pb2.Status.FromString(value).details)
            except DecodeError:  # not ours to mend: the code and the text still stand
                return ()
    return ()


# What a reconnect cannot mend: it surfaces at once. A plain ResourceExhausted has no reason of
# Signpost's: it is a limit of this side or of a proxy, and the same message would hit it again.
_FINAL = (
    InvalidArgument,
    NotFound,
    StaleSequence,
    PositionError,
    TooLarge,
    OutboxFull,
    SessionFenced,
    Unauthenticated,
    PermissionDenied,
    Unimplemented,
)


def is_final(error: SignpostError) -> bool:
    """Whether trying the same again cannot help."""
    return isinstance(error, _FINAL) or type(error) is ResourceExhausted or error.reason == CLOSED


def is_refusal(error: SignpostError) -> bool:
    """Whether the server says that it has not begun the call: safe to repeat, whatever the call."""
    return isinstance(error, Draining | RateLimited)
