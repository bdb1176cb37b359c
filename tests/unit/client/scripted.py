"""A real grpc.aio server whose methods follow a script: one function for each call that comes, the last one again."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from signpost.client import Backoff, ClientSettings, RetrySettings, StreamSettings
from signpost.client.methods import Kind, Method

Context = Any
Script = Callable[[Any, Context], Any]
"""Gets the request (or the iterator of requests) and the context; answers or yields."""

FAST = ClientSettings(
    backoff=Backoff(first_s=0.001, cap_s=0.01),
    retry=RetrySettings(timeout_s=30.0, try_timeout_s=10.0),
    stream=StreamSettings(heartbeat_interval_s=10.0, connect_timeout_s=10.0, list_timeout_s=10.0),
)


class Server:
    """What runs, and what came."""

    def __init__(self) -> None:
        self.port = 0
        self.calls: dict[str, int] = {}
        self.requests: list[Any] = []
        self.open = 0
        self.ended = asyncio.Event()  # set whenever a call has ended

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def none_open(self) -> None:
        """Return once no call is open."""
        async with asyncio.timeout(20):
            while self.open:
                self.ended.clear()
                await self.ended.wait()


@asynccontextmanager
async def serving(
    scripts: dict[Method[Any, Any], list[Script]], *, options: list[tuple[str, int]] | None = None
) -> AsyncIterator[Server]:
    """A server that follows these scripts, on a free port of loopback."""
    state, server = Server(), grpc.aio.server(options=options)
    by_service: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
    for method, steps in scripts.items():
        by_service.setdefault(method.service, {})[method.name] = _handler(state, method, steps)
    for name, handlers in by_service.items():
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))
    state.port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield state
    finally:
        await server.stop(None)


def _handler(state: Server, method: Method[Any, Any], steps: list[Script]) -> "grpc.RpcMethodHandler[Any, Any]":
    def step() -> Script:
        number = state.calls.get(method.name, 0)
        state.calls[method.name] = number + 1
        return steps[min(number, len(steps) - 1)]

    async def unary(request: Any, context: Context) -> Any:
        state.requests.append(request)
        return await step()(request, context)

    async def stream(request: Any, context: Context) -> Any:
        if method.kind is Kind.SERVER_STREAM:
            state.requests.append(request)
        state.open += 1
        try:
            async for message in step()(request, context):
                yield message
        finally:
            state.open -= 1
            state.ended.set()

    coders = {
        "request_deserializer": method.request.FromString,
        "response_serializer": method.response.SerializeToString,
    }
    if method.kind is Kind.UNARY:
        return grpc.unary_unary_rpc_method_handler(unary, **coders)
    if method.kind is Kind.SERVER_STREAM:
        return grpc.unary_stream_rpc_method_handler(stream, **coders)
    return grpc.stream_stream_rpc_method_handler(stream, **coders)


async def fail(
    context: Context,
    code: grpc.StatusCode,
    reason: str = "",
    *,
    message: str = "no",
    retry_s: float | None = None,
    fields: tuple[str, ...] = (),
    **metadata: str,
) -> None:
    """End a call as Signpost's servers do: a status with details."""
    details: list[any_pb2.Any] = []

    def add(detail: Any) -> None:
        packed = any_pb2.Any()
        packed.Pack(detail)
        details.append(packed)

    if reason:
        add(error_details_pb2.ErrorInfo(reason=reason, domain="signpost", metadata=metadata))
    if retry_s is not None:
        delay = duration_pb2.Duration()
        delay.FromNanoseconds(int(retry_s * 1e9))
        add(error_details_pb2.RetryInfo(retry_delay=delay))
    if fields:
        violations = [error_details_pb2.BadRequest.FieldViolation(field=f, description="bad") for f in fields]
        add(error_details_pb2.BadRequest(field_violations=violations))
    status = status_pb2.Status(code=code.value[0], message=message, details=details)
    trailers = (("grpc-status-details-bin", status.SerializeToString()),) if details else ()
    await context.abort(code, message, trailers)


def failing(code: grpc.StatusCode, reason: str = "", **more: Any) -> Script:
    """A unary script that ends with a status."""

    async def script(request: Any, context: Context) -> None:
        await fail(context, code, reason, **more)

    return script


def failing_stream(code: grpc.StatusCode, reason: str = "", **more: Any) -> Script:
    """A streaming script that ends with a status at once."""

    async def script(request: Any, context: Context) -> Any:
        await fail(context, code, reason, **more)
        yield  # an async generator it must be

    return script


def answering(make: Callable[[Any], Any]) -> Script:
    """A unary script that answers."""

    async def script(request: Any, context: Context) -> Any:
        return make(request)

    return script
