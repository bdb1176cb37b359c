"""From exceptions to statuses: one table, applied at the boundary and nowhere else.

Every status made here carries a google.rpc.ErrorInfo (domain `signpost`, a stable reason, camelCase
metadata) and the detail that fits: BadRequest with every violation, RetryInfo where waiting helps.
What is no `SignpostError` becomes INTERNAL with a fixed text: nothing of its own reaches the client.
"""

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import grpc
from google.protobuf import any_pb2, duration_pb2, message
from google.rpc import error_details_pb2, status_pb2

from signpost import errors

T = TypeVar("T")

DOMAIN = "signpost"
DETAILS_KEY = "grpc-status-details-bin"
"""The trailing metadata that carries the encoded google.rpc.Status, as in every gRPC library."""

CODES: Mapping[type[BaseException], grpc.StatusCode] = {
    errors.InvalidArgument: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.StaleSequence: grpc.StatusCode.ABORTED,
    errors.PositionError: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.SessionFenced: grpc.StatusCode.ABORTED,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Unimplemented: grpc.StatusCode.UNIMPLEMENTED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.LogRefused: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Internal: grpc.StatusCode.INTERNAL,
}
"""The table. A class without a row of its own has its nearest base's."""

RETRY_AFTER_S: Mapping[type[BaseException], float] = {
    errors.RateLimited: 1.0,
    errors.Draining: 0.1,
    errors.Unavailable: 1.0,
}
"""The pause that is advised where the error names none: another server waits behind a drain."""


class ErrorParts(NamedTuple):
    """An error taken apart, for frames that answer one request of a stream."""

    code: int
    reason: str
    message: str
    metadata: Mapping[str, str]
    retry_after_s: float | None


def known(error: BaseException) -> errors.SignpostError:
    """The error that a client may see in place of any exception: itself if it is one of ours."""
    if isinstance(error, errors.SignpostError):
        return error
    return errors.Internal("internal error; the server's log has the particulars")


def code_of(error: errors.SignpostError) -> grpc.StatusCode:
    """The status code of an error."""
    return _nearest(CODES, error) or grpc.StatusCode.INTERNAL


def parts_of(error: BaseException) -> ErrorParts:
    """What an `Error` frame says of any exception."""
    seen = known(error)
    return ErrorParts(code_of(seen).value[0], seen.reason, seen.message, seen.metadata, _retry_after_s(seen))


def status_of(error: BaseException) -> status_pb2.Status:
    """The rich status of any exception."""
    code, reason, text, metadata, retry_after_s = parts_of(error)
    status = status_pb2.Status(code=code, message=text)
    _add(status, error_details_pb2.ErrorInfo(reason=reason, domain=DOMAIN, metadata=metadata))
    if isinstance(error, errors.InvalidArgument) and error.violations:
        violations = (
            error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description, reason=v.reason)
            for v in error.violations
        )
        _add(status, error_details_pb2.BadRequest(field_violations=violations))
    if retry_after_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(round(retry_after_s * 1e9))
        _add(status, error_details_pb2.RetryInfo(retry_delay=delay))
    return status


def trailing_metadata(status: status_pb2.Status) -> tuple[tuple[str, bytes], ...]:
    """The trailing metadata that carries a rich status."""
    return ((DETAILS_KEY, status.SerializeToString()),)


def _retry_after_s(error: errors.SignpostError) -> float | None:
    return error.retry_after_s if error.retry_after_s is not None else _nearest(RETRY_AFTER_S, error)


def _nearest(table: Mapping[type[BaseException], T], error: BaseException) -> T | None:
    return next((table[base] for base in type(error).__mro__ if base in table), None)


def _add(status: status_pb2.Status, detail: message.Message) -> None:
    packed = any_pb2.Any()
    packed.Pack(detail)
    status.details.append(packed)
