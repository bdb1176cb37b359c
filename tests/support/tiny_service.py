"""The smallest real service on `signpost.server`: each request says how its call is to end."""

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
from signpost import errors
from signpost.log.base import LogSettings, Store
from signpost.server import ServerSettings, Service, handlers_of, run
from signpost.server.service import Handlers

from protos.example import greeter_pb2, greeter_pb2_grpc
from protos.notification.v1 import notification_pb2
from protos.stream_service import stream_service_pb2, stream_service_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]


class TinySettings(ServerSettings):
    """The library's settings."""

    default_database = "tiny.db"


async def end(how: str, context: Context) -> None:
    """End a call: ok, error, abort, code, crash, group, hang or anything else (nothing happens)."""
    match how:
        case "error":
            raise errors.NotFound("no such thing", reason="THING_NOT_FOUND", metadata={"thing": "x"})
        case "invalid":
            raise errors.InvalidArgument(
                "two fields are wrong", violations=[errors.Violation("a", "too small"), errors.Violation("b.c", "odd")]
            )
        case "abort":
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "aborted")
        case "code":
            context.set_code(grpc.StatusCode.DATA_LOSS)
            context.set_details("set")
        case "crash":
            raise ZeroDivisionError("a secret of the house")
        case "group":
            async with asyncio.TaskGroup() as group:
                group.create_task(end("error", context))
                await asyncio.sleep(60)
        case "hang":
            await asyncio.sleep(60)


class StreamService(stream_service_pb2_grpc.StreamServiceServicer):
    """A generator: `latitude` features, then the ending that `longitude` numbers."""

    async def ListFeatures(  # noqa: N802 - an asynchronous servicer
        self, request: stream_service_pb2.Point, context: Context
    ) -> AsyncIterator[stream_service_pb2.Feature]:
        for number in range(request.latitude):
            yield stream_service_pb2.Feature(name=str(number), location=request)
        await end(ENDINGS[request.longitude], context)


ENDINGS = ("ok", "error", "abort", "code", "crash", "group", "hang", "invalid")


class Greeter(greeter_pb2_grpc.GreeterServicer):
    """A coroutine that reads and writes: each message is answered, then does what it names."""

    async def Chat(self, request_iterator: Any, context: Context) -> None:  # type: ignore[override] # noqa: N802
        async for request in request_iterator:
            await context.write(greeter_pb2.MessageResponse(reply=f"Received: {request.content}"))
            await end(request.content, context)


async def publish(request: notification_pb2.PublishRequest, context: Context) -> notification_pb2.PublishResponse:
    """A unary method alone: the service's other methods are nowhere."""
    await end(request.topic, context)
    return notification_pb2.PublishResponse(sequence=7)


class TinyService(Service):
    """Handlers without a domain."""

    name = "tiny"
    grpc_services = ("stream_service.StreamService", "example.Greeter", "notification.v1.NotificationService")

    def log_settings(self) -> Sequence[LogSettings]:
        return (LogSettings("things"),)

    async def start(self, store: Store) -> None:
        """There is nothing to load."""

    def handlers(self) -> Handlers:
        return (
            *handlers_of(stream_service_pb2_grpc.add_StreamServiceServicer_to_server, StreamService()),
            *handlers_of(greeter_pb2_grpc.add_GreeterServicer_to_server, Greeter()),
            grpc.method_handlers_generic_handler(
                "notification.v1.NotificationService",
                {
                    "Publish": grpc.unary_unary_rpc_method_handler(
                        publish,
                        notification_pb2.PublishRequest.FromString,
                        notification_pb2.PublishResponse.SerializeToString,
                    )
                },
            ),
        )

    def unready(self) -> str | None:
        return None

    async def drain(self, deadline_s: float) -> None:
        """There is nobody to tell; on demand it takes a second."""
        if "TINY_SLOW_DRAIN" in os.environ:
            await asyncio.sleep(1)

    async def close(self) -> None:
        """There is nothing to end."""


if __name__ == "__main__":
    sys.exit(run(lambda settings: TinyService(), TinySettings, program="tiny_service"))
