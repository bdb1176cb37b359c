"""Every call goes through here: decoded, counted, traced, its errors turned into statuses, logged.

Handlers are wrapped once, when they are registered, so that a call costs one lookup and a message one
addition. However a call ends (return, abort, exception, cancellation, deadline) it is counted as
handled once, with the code that the client sees.

A handler may be a coroutine function or an asynchronous generator, of any of the four kinds, and may
use `context.read` and `context.write`. A generator is closed, its `finally` run, before the call ends.
"""

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError

from signpost import errors
from signpost.server.context import CountingContext, CountingRequests
from signpost.server.errors import code_of, known, status_of, trailing_metadata
from signpost.server.methods import Kind, Method
from signpost.server.metrics import CODE_NAMES, MethodMetrics, ServerMetrics
from signpost.server.tracing import CallSpan, Tracing

_LOG = logging.getLogger("signpost.calls")
_DEADLINE_SLACK_S = 0.05
"""A client that has reached its deadline resets the stream, which arrives just before the server's own
deadline: gRPC rounds it up and it began a little later. Closer than this to it is the deadline's doing."""
_QUIET = frozenset({grpc.StatusCode.OK, grpc.StatusCode.CANCELLED})

Context = grpc.aio.ServicerContext[Any, Any]
Behaviour = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class _Details(grpc.HandlerCallDetails):
    """What a generic handler is asked with."""

    method: str
    invocation_metadata: tuple[()] = ()


class Calls(grpc.GenericRpcHandler):  # type: ignore[type-arg] # the class takes no parameters at run time
    """The one handler of a server: all its methods, wrapped.

    `methods` says what there is; one that no handler has answers UNIMPLEMENTED with an ErrorInfo.
    `always` are services that go on while `draining` is set: all others refuse new calls.
    """

    def __init__(
        self,
        methods: Iterable[Method],
        handlers: "Sequence[grpc.GenericRpcHandler[Any, Any]]",
        *,
        metrics: ServerMetrics,
        tracing: Tracing,
        max_message_bytes: int,
        log_calls: str = "errors",
        always: Iterable[str] = (),
    ) -> None:
        self.draining = False
        self._tracing = tracing
        self._max_message_bytes = max_message_bytes
        self._log_all, self._log_errors = log_calls == "all", log_calls != "none"
        exempt = frozenset(always)
        self._table = {
            method.path: self._wrap(method, _find(handlers, method), metrics.of(method), method.service in exempt)
            for method in methods
        }

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        return self._table.get(handler_call_details.method)

    def _wrap(self, method: Method, handler: Any, metrics: MethodMetrics, exempt: bool) -> Any:
        behaviour = _behaviour(method, handler)
        decode = self._decoder(handler.request_deserializer if handler is not None else None)

        async def unary(request: Any, context: Context) -> Any:
            call = _Call(self, method, metrics, context)
            try:
                self._admit(exempt)
                message = decode(request)
                metrics.received += 1
                response = await behaviour(message, context)
                metrics.sent += 1
            except BaseException as error:
                await call.fail(error)
            call.succeed()
            return response

        async def stream(request: Any, context: Context) -> None:
            call = _Call(self, method, metrics, context)
            try:
                self._admit(exempt)
                counting = CountingContext(context, metrics, decode)
                if method.kind.streams_requests:
                    message = CountingRequests(counting)
                else:
                    message = decode(request)
                    metrics.received += 1
                result = behaviour(message, counting)
                if inspect.isasyncgen(result):
                    await _respond(result, counting)
                else:
                    await result  # directly: each call on the stack costs every idle stream
            except BaseException as error:
                await call.fail(error)
            call.succeed()

        async def collect(request: Any, context: Context) -> Any:
            call = _Call(self, method, metrics, context)
            try:
                self._admit(exempt)
                counting = CountingContext(context, metrics, decode)
                response = await behaviour(CountingRequests(counting), counting)
                metrics.sent += 1
            except BaseException as error:
                await call.fail(error)
            call.succeed()
            return response

        serialize = handler.response_serializer if handler is not None else None
        match method.kind:
            case Kind.UNARY:
                return grpc.unary_unary_rpc_method_handler(unary, None, serialize)
            case Kind.SERVER_STREAM:
                return grpc.unary_stream_rpc_method_handler(stream, None, serialize)
            case Kind.CLIENT_STREAM:
                return grpc.stream_unary_rpc_method_handler(collect, None, serialize)
            case Kind.BIDI_STREAM:
                return grpc.stream_stream_rpc_method_handler(stream, None, serialize)

    def _admit(self, exempt: bool) -> None:
        if self.draining and not exempt:
            raise errors.Draining("the server is going away")

    def _decoder(self, deserialize: Callable[[bytes], Any] | None) -> Callable[[bytes], Any]:
        limit = self._max_message_bytes

        def decode(raw: bytes) -> Any:
            if len(raw) > limit:
                raise errors.TooLarge("the message", len(raw), limit)
            if deserialize is None:
                return raw
            try:
                return deserialize(raw)
            except DecodeError as error:
                raise errors.InvalidArgument("the message is malformed", reason="MALFORMED_MESSAGE") from error

        return decode


class _Call:
    """The bookkeeping of one call: begun when made, ended by `succeed` or `fail`, one of them, once."""

    __slots__ = ("_calls", "_context", "_method", "_metrics", "_span", "_started")

    def __init__(self, calls: Calls, method: Method, metrics: MethodMetrics, context: Context) -> None:
        self._calls, self._method, self._metrics, self._context = calls, method, metrics, context
        self._started = time.perf_counter()
        metrics.start()
        self._span: CallSpan | None = calls._tracing.start(method, context)

    def succeed(self) -> None:
        """End the call with what its handler has set; cancelled, if it has swallowed its cancellation."""
        self._finish(self._why_cancelled() if _is_cancelled() else _code_set(self._context))

    def _finish(self, code: grpc.StatusCode, error: BaseException | None = None) -> None:
        seconds = time.perf_counter() - self._started
        calls, span = self._calls, self._span
        self._metrics.finish(code, seconds, span.trace_id if span is not None and calls._tracing.enabled else None)
        if calls._log_all or (calls._log_errors and code not in _QUIET):
            self._log(code, seconds, error)
        if span is not None:
            span.finish(code, error)

    async def fail(self, error: BaseException) -> NoReturn:
        """End the call with the status of an exception; raises what gRPC is to see."""
        cause = _cause(error)
        if isinstance(cause, grpc.aio.AbortError):
            self._finish(_code_set(self._context), cause)
            raise cause
        if _is_cancelled() or not isinstance(cause, Exception):
            self._finish(self._why_cancelled(), cause)
            raise error
        seen = known(cause)
        if not isinstance(cause, errors.SignpostError):
            _LOG.error("exception in %s", self._method.path, exc_info=cause)
        status = status_of(cause)
        self._finish(code_of(seen), cause)
        try:
            await self._context.abort(code_of(seen), status.message, trailing_metadata(status))
        except grpc.aio.UsageError as late:  # the call is over already: nobody is there to tell
            raise cause from late

    def _why_cancelled(self) -> grpc.StatusCode:
        """A handler is cancelled by its client, by its deadline or by the end of the server."""
        remaining = self._context.time_remaining()
        passed = remaining is not None and remaining <= _DEADLINE_SLACK_S
        return grpc.StatusCode.DEADLINE_EXCEEDED if passed else grpc.StatusCode.CANCELLED

    def _log(self, code: grpc.StatusCode, seconds: float, error: BaseException | None) -> None:
        fields = {
            "method": self._method.path,
            "code": CODE_NAMES[code],
            "peer": self._context.peer(),
            "durationMs": round(seconds * 1e3, 3),
        }
        if isinstance(error, errors.SignpostError):
            fields |= {"reason": error.reason, "error": error.message}
        _LOG.info("call", extra={"fields": fields})


async def _respond(generator: Any, context: CountingContext) -> None:
    """Drive a generator to its end: what it yields is written, then it is closed."""
    write = context.write
    try:
        async for message in generator:
            await write(message)
    finally:
        await generator.aclose()


def _find(handlers: "Sequence[grpc.GenericRpcHandler[Any, Any]]", method: Method) -> Any:
    details = _Details(method.path)
    return next((found for handler in handlers if (found := handler.service(details)) is not None), None)


def _behaviour(method: Method, handler: Any) -> Behaviour:
    """The handler's function; raises TypeError where it is not asynchronous or of another kind."""
    if handler is None:
        return _unimplemented
    if Kind.of(handler.request_streaming, handler.response_streaming) is not method.kind:
        raise TypeError(f"the handler of {method.path} is not {method.kind.value}")
    function: Behaviour = handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        return function
    if getattr(function, "__module__", "").endswith("_pb2_grpc"):  # the generated default of a servicer
        return _unimplemented
    raise TypeError(f"the handler of {method.path} is not asynchronous")


async def _unimplemented(request: Any, context: Context) -> NoReturn:
    raise errors.Unimplemented("this server does not have the method yet")


def _is_cancelled() -> bool:
    """Whether gRPC has cancelled this call's task: its client, its deadline or the server has ended it."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _cause(error: BaseException) -> BaseException:
    """What counts of an exception: of a task group's, its first cause that says something."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = [_cause(one) for one in error.exceptions]
    for kind in (grpc.aio.AbortError, errors.SignpostError):
        for leaf in leaves:
            if isinstance(leaf, kind):
                return leaf
    return leaves[0]


def _code_set(context: Context) -> grpc.StatusCode:
    """The code that a handler has set, or that an abort has; OK where there is none."""
    code: object = context.code()
    if isinstance(code, grpc.StatusCode):
        return code
    return _BY_NUMBER.get(code, grpc.StatusCode.UNKNOWN) if code else grpc.StatusCode.OK


_BY_NUMBER: dict[object, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}
