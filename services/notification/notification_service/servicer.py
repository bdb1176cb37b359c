"""The gRPC face: raw handlers, whose responses are bytes already."""

from collections.abc import Iterable
from functools import partial
from typing import Any

import grpc
from signpost.errors import RateLimited

from notification_service import metrics, seed
from notification_service.allowance import Allowance
from notification_service.connection import serve_connect
from notification_service.listener import Listener
from notification_service.listing import list_presence, list_topics
from notification_service.publishing import entry
from notification_service.registry import Registry
from protos.example import greeter_pb2
from protos.notification.v1 import notification_pb2 as v1
from protos.pb import notification_pb2 as pb

V1 = "notification.v1.NotificationService"
SEED = "pb.NotificationService"
GREETER = "example.Greeter"
MAX_CALLERS = 10_000

Context = grpc.aio.ServicerContext[Any, Any]


class Servicer:
    """All methods of the service."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._callers: dict[str, Allowance] = {}

    async def subscribe(self, request: v1.SubscribeRequest, context: Context) -> None:
        """notification.v1 Subscribe."""
        await Listener(self._registry, context).run(request)

    async def publish(self, request: v1.PublishRequest, context: Context) -> bytes:
        """notification.v1 Publish."""
        registry = self._registry
        self._allow(context.peer())
        traceparent = next(
            (str(value) for key, value in context.invocation_metadata() or () if key == "traceparent"), ""
        )
        appended = await registry.hub.log.append(entry(request, "", traceparent, registry.clock()))
        position = await registry.hub.log.position(appended.sequence)
        return v1.PublishResponse(
            sequence=appended.sequence, duplicate=appended.duplicate, position=v1.Position(token=position)
        ).SerializeToString()

    async def list_topics(self, request: v1.ListTopicsRequest, context: Context) -> bytes:
        """notification.v1 ListTopics."""
        return (await list_topics(self._registry, request)).SerializeToString()

    async def list_presence(self, request: v1.ListPresenceRequest, context: Context) -> bytes:
        """notification.v1 ListPresence."""
        return list_presence(self._registry, request).SerializeToString()

    async def seed_connect(self, requests: object, context: Context) -> None:
        """The seed's Connect."""
        await seed.SeedConnection(self._registry, context).run()

    async def seed_chat(self, requests: object, context: Context) -> None:
        """The seed's Chat."""
        await seed.chat(context)

    def handlers(self) -> "Iterable[grpc.GenericRpcHandler[Any, Any]]":
        """The handlers of all three services."""
        stream, unary = grpc.stream_stream_rpc_method_handler, grpc.unary_unary_rpc_method_handler
        connect, hello, message = v1.ConnectRequest, pb.ClientRequest, greeter_pb2.MessageRequest
        return (
            grpc.method_handlers_generic_handler(
                V1,
                {
                    "Connect": stream(partial(serve_connect, self._registry), connect.FromString),
                    "Subscribe": grpc.unary_stream_rpc_method_handler(self.subscribe, v1.SubscribeRequest.FromString),
                    "Publish": unary(self.publish, v1.PublishRequest.FromString),
                    "ListTopics": unary(self.list_topics, v1.ListTopicsRequest.FromString),
                    "ListPresence": unary(self.list_presence, v1.ListPresenceRequest.FromString),
                },
            ),
            grpc.method_handlers_generic_handler(SEED, {"Connect": stream(self.seed_connect, hello.FromString)}),
            grpc.method_handlers_generic_handler(GREETER, {"Chat": stream(self.seed_chat, message.FromString)}),
        )

    def _allow(self, peer: str) -> None:
        """One allowance for each connection that publishes by unary calls; the longest known goes first."""
        caller = self._callers.pop(peer, None) or self._registry.allowance()
        if caller is None:
            return
        self._callers[peer] = caller
        if len(self._callers) > MAX_CALLERS:
            del self._callers[next(iter(self._callers))]
        if (wait_s := caller.take(1)) > 0:
            metrics.RATE_LIMITED.inc()
            raise RateLimited("this client publishes faster than its allowance", retry_after_s=wait_s)
