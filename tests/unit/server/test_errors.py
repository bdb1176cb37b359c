"""The table from errors to statuses holds every error, and says what clients switch on."""

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from signpost import errors
from signpost.server.errors import CODES, code_of, parts_of, status_of

EXAMPLES = [
    (errors.InvalidArgument("x"), "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    (errors.NotFound("x", reason="FEATURE_NOT_FOUND"), "NOT_FOUND", "FEATURE_NOT_FOUND"),
    (errors.StaleSequence("a", 1, 2), "ABORTED", "STALE_SEQUENCE"),
    (errors.PositionCompacted("x", first_available=5), "OUT_OF_RANGE", "POSITION_COMPACTED"),
    (errors.PositionAhead("x", first_available=5), "OUT_OF_RANGE", "POSITION_AHEAD"),
    (errors.EpochChanged("x", first_available=5), "OUT_OF_RANGE", "EPOCH_CHANGED"),
    (errors.LogRewound("x", first_available=5), "OUT_OF_RANGE", "LOG_REWOUND"),
    (errors.TooLarge("x", 2, 1), "RESOURCE_EXHAUSTED", "TOO_LARGE"),
    (errors.RateLimited("x"), "RESOURCE_EXHAUSTED", "RATE_LIMITED"),
    (errors.StorageFull("x"), "RESOURCE_EXHAUSTED", "STORAGE_FULL"),
    (errors.LogUnavailable("x"), "UNAVAILABLE", "LOG_UNAVAILABLE"),
    (errors.Draining("x"), "UNAVAILABLE", "DRAINING"),
    (errors.SessionFenced("x"), "ABORTED", "SESSION_FENCED"),
    (errors.Unauthenticated("x"), "UNAUTHENTICATED", "UNAUTHENTICATED"),
    (errors.PermissionDenied("x"), "PERMISSION_DENIED", "PERMISSION_DENIED"),
    (errors.Unimplemented("x"), "UNIMPLEMENTED", "UNIMPLEMENTED"),
    (errors.DeadlineExceeded("x"), "DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED"),
    (errors.LogRefused("x"), "FAILED_PRECONDITION", "LOG_REFUSED"),
    (errors.Internal("x"), "INTERNAL", "INTERNAL"),
]


def details(error: BaseException) -> list[Message]:
    found: list[Message] = []
    for packed in status_of(error).details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest, error_details_pb2.RetryInfo):
            message = kind()
            if packed.Unpack(message):
                found.append(message)
    return found


@pytest.mark.parametrize(("error", "code", "reason"), EXAMPLES, ids=str)
def test_every_error_has_a_code_and_an_error_info(error: errors.SignpostError, code: str, reason: str) -> None:
    assert code_of(error) is grpc.StatusCode[code]
    info = details(error)[0]
    assert isinstance(info, error_details_pb2.ErrorInfo)
    assert (info.domain, info.reason) == ("signpost", reason)
    assert dict(info.metadata) == error.metadata


def test_every_class_of_the_tree_has_a_row_or_a_base_that_has() -> None:
    def tree(base: type[errors.SignpostError]) -> set[type[errors.SignpostError]]:
        return {base}.union(*(tree(one) for one in base.__subclasses__()))

    ours = {one for one in tree(errors.SignpostError) if one.__module__ == errors.__name__}
    assert {one.__name__ for one in ours if not any(base in CODES for base in one.__mro__)} == {"SignpostError"}


def test_where_waiting_helps_the_status_says_how_long() -> None:
    for error, seconds in (
        (errors.RateLimited("x", retry_after_s=2.5), 2.5),
        (errors.LogUnavailable("x"), 1.0),
        (errors.Draining("x"), 0.1),
    ):
        (retry,) = (one for one in details(error) if isinstance(one, error_details_pb2.RetryInfo))
        assert retry.retry_delay.ToNanoseconds() == round(seconds * 1e9)
    assert not [one for one in details(errors.NotFound("x")) if isinstance(one, error_details_pb2.RetryInfo)]


def test_where_no_field_is_bad_none_is_told() -> None:
    assert len(details(errors.InvalidArgument("x", reason="POSITION_MALFORMED"))) == 1


def test_every_violation_is_told() -> None:
    violations = [errors.Violation("a.b", "one"), errors.Violation("c", "two", "OTHER")]
    (bad,) = (
        one
        for one in details(errors.InvalidArgument("x", violations=violations))
        if isinstance(one, error_details_pb2.BadRequest)
    )
    assert [(v.field, v.description, v.reason) for v in bad.field_violations] == [
        ("a.b", "one", "INVALID_FIELD"),
        ("c", "two", "OTHER"),
    ]


def test_an_exception_of_ours_only_tells_nothing() -> None:
    parts = parts_of(ValueError("a secret"))
    assert parts.code == grpc.StatusCode.INTERNAL.value[0]
    assert parts.reason == "INTERNAL"
    assert "secret" not in str(parts)


def test_the_parts_for_an_error_frame() -> None:
    parts = parts_of(errors.TooLarge("the record", 9, 5))
    assert parts == (
        8,
        "TOO_LARGE",
        "the record has 9 bytes; the limit is 5",
        {"sizeBytes": "9", "limitBytes": "5"},
        None,
    )
