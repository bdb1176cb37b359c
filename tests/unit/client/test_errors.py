"""Statuses and error frames become the exceptions of the tree."""

from typing import Any

import grpc
import pytest
from signpost import errors
from signpost.client.channels import Channels
from signpost.client.errors import from_rpc_error, is_final, is_refusal, make_error
from signpost.client.methods import GET_FEATURE
from signpost.client.retry import Retry
from signpost.client.settings import RetrySettings

from protos.feature.v1 import feature_pb2 as fpb
from tests.unit.client.scripted import failing, serving

CODE = grpc.StatusCode


async def _error_of(script: Any) -> errors.SignpostError:
    async with serving({GET_FEATURE: [script]}) as server:
        channels = Channels(server.target, "")
        try:
            await Retry(channels, RetrySettings(budget_reserve=0.5)).call(GET_FEATURE, fpb.GetFeatureRequest())
        except errors.SignpostError as error:
            return error
        finally:
            await channels.close()
    raise AssertionError("it did not fail")


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (CODE.INVALID_ARGUMENT, "INVALID_ARGUMENT", errors.InvalidArgument),
        (CODE.INVALID_ARGUMENT, "HELLO_EXPECTED", errors.InvalidArgument),
        (CODE.NOT_FOUND, "FEATURE_NOT_FOUND", errors.NotFound),
        (CODE.ABORTED, "STALE_SEQUENCE", errors.StaleSequence),
        (CODE.OUT_OF_RANGE, "POSITION_COMPACTED", errors.PositionCompacted),
        (CODE.OUT_OF_RANGE, "POSITION_AHEAD", errors.PositionAhead),
        (CODE.OUT_OF_RANGE, "EPOCH_CHANGED", errors.EpochChanged),
        (CODE.OUT_OF_RANGE, "LOG_REWOUND", errors.LogRewound),
        (CODE.RESOURCE_EXHAUSTED, "TOO_LARGE", errors.TooLarge),
        (CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED", errors.RateLimited),
        (CODE.RESOURCE_EXHAUSTED, "STORAGE_FULL", errors.StorageFull),
        (CODE.RESOURCE_EXHAUSTED, "", errors.ResourceExhausted),
        (CODE.UNAVAILABLE, "DRAINING", errors.Draining),
        (CODE.UNAVAILABLE, "LOG_UNAVAILABLE", errors.LogUnavailable),
        (CODE.UNAVAILABLE, "", errors.Unavailable),
        (CODE.ABORTED, "SESSION_FENCED", errors.SessionFenced),
        (CODE.UNAUTHENTICATED, "UNAUTHENTICATED", errors.Unauthenticated),
        (CODE.PERMISSION_DENIED, "PERMISSION_DENIED", errors.PermissionDenied),
        (CODE.UNIMPLEMENTED, "UNIMPLEMENTED", errors.Unimplemented),
        (CODE.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED", errors.DeadlineExceeded),
        (CODE.INTERNAL, "INTERNAL", errors.Internal),
        (CODE.DATA_LOSS, "", errors.Internal),
        (CODE.CANCELLED, "", errors.Unavailable),
    ],
)
async def test_a_status_becomes_its_exception(code: CODE, reason: str, kind: type[errors.SignpostError]) -> None:
    error = await _error_of(failing(code, reason, message="what was wrong", firstAvailable="7"))
    assert type(error) is kind
    assert error.message == "what was wrong"
    assert str(error) == "what was wrong"
    assert isinstance(error.__cause__, grpc.aio.AioRpcError)
    if reason:
        assert error.reason == reason
        assert error.metadata["firstAvailable"] == "7"
    if isinstance(error, errors.PositionError):
        assert error.first_available == 7


async def test_every_detail_is_taken_over() -> None:
    stale = await _error_of(
        failing(CODE.ABORTED, "STALE_SEQUENCE", subject="places.a", expectedSequence="3", actualSequence="5")
    )
    assert isinstance(stale, errors.StaleSequence)
    assert (stale.subject, stale.expected, stale.actual) == ("places.a", 3, 5)
    large = await _error_of(failing(CODE.RESOURCE_EXHAUSTED, "TOO_LARGE", sizeBytes="9", limitBytes="8"))
    assert isinstance(large, errors.TooLarge)
    assert (large.size_bytes, large.limit_bytes) == (9, 8)
    bad = await _error_of(failing(CODE.INVALID_ARGUMENT, "INVALID_ARGUMENT", fields=("a.b", "c")))
    assert isinstance(bad, errors.InvalidArgument)
    assert [v.field for v in bad.violations] == ["a.b", "c"]
    assert bad.violations[0].reason == "INVALID_FIELD"
    limited = await _error_of(failing(CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED", retry_s=9.25))
    assert limited.retry_after_s == 9.25


async def test_details_that_are_no_status_leave_code_and_text() -> None:
    async def script(request: Any, context: Any) -> None:
        await context.abort(CODE.NOT_FOUND, "none", (("grpc-status-details-bin", b"\xff\xff"), ("other", "x")))

    error = await _error_of(script)
    assert type(error) is errors.NotFound
    assert error.message == "none"


def test_an_error_of_another_kind_is_internal() -> None:
    error = from_rpc_error(grpc.RpcError("odd"))
    assert type(error) is errors.Internal


def test_what_is_final_and_what_is_a_refusal() -> None:
    def of(code: CODE, reason: str) -> errors.SignpostError:
        return make_error(code.value[0], "", reason=reason)

    assert is_final(of(CODE.INVALID_ARGUMENT, ""))
    assert is_final(of(CODE.RESOURCE_EXHAUSTED, ""))
    assert is_final(of(CODE.ABORTED, "SESSION_FENCED"))
    assert not is_final(of(CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED"))
    assert not is_final(of(CODE.UNAVAILABLE, "DRAINING"))
    assert is_refusal(of(CODE.UNAVAILABLE, "DRAINING"))
    assert is_refusal(of(CODE.RESOURCE_EXHAUSTED, "RATE_LIMITED"))
    assert not is_refusal(of(CODE.UNAVAILABLE, ""))
