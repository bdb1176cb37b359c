"""Server reflection, v1alpha and v1.

grpcio-reflection serves v1alpha alone. v1 has the same messages under another package name, so the
same servicer answers both; only the descriptors of v1 are made here, from those of v1alpha.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_reflection.v1alpha._async import ReflectionServicer

from signpost.server.service import handlers_of

V1ALPHA = "grpc.reflection.v1alpha.ServerReflection"
V1 = "grpc.reflection.v1.ServerReflection"


class _Reflection(ReflectionServicer):  # type: ignore[misc] # the package is not typed
    """The stock servicer, which knows no methods by name: `grpcurl describe SERVICE.METHOD` asks for them."""

    def _file_containing_symbol(self, request: Any, fully_qualified_name: str) -> Any:
        with suppress(KeyError):
            method = self._pool.FindMethodByName(fully_qualified_name)
            fully_qualified_name = method.containing_service.full_name
        return super()._file_containing_symbol(request, fully_qualified_name)


def reflection_handlers(services: Iterable[str]) -> "Sequence[grpc.GenericRpcHandler[Any, Any]]":
    """Handlers for both versions that list `services` and themselves."""
    _describe_v1()
    servicer = _Reflection((*services, V1ALPHA, V1))
    v1 = grpc.stream_stream_rpc_method_handler(
        servicer.ServerReflectionInfo,
        request_deserializer=reflection_pb2.ServerReflectionRequest.FromString,
        response_serializer=reflection_pb2.ServerReflectionResponse.SerializeToString,
    )
    return (
        *handlers_of(reflection_pb2_grpc.add_ServerReflectionServicer_to_server, servicer),
        grpc.method_handlers_generic_handler(V1, {"ServerReflectionInfo": v1}),
    )


def _describe_v1() -> None:
    """Add the descriptors of v1 to the default pool; safe to repeat."""
    file = descriptor_pb2.FileDescriptorProto()
    reflection_pb2.DESCRIPTOR.CopyToProto(file)
    file.name = "grpc/reflection/v1/reflection.proto"
    file.package = "grpc.reflection.v1"
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type_name = _in_v1(field.type_name)
    for method in file.service[0].method:
        method.input_type, method.output_type = _in_v1(method.input_type), _in_v1(method.output_type)
    descriptor_pool.Default().Add(file)


def _in_v1(type_name: str) -> str:
    return type_name.replace(".grpc.reflection.v1alpha.", ".grpc.reflection.v1.")
