"""PutFence, DeleteFence, ListFences."""

from typing import Any

import grpc

from feature_service.fences.book import FenceBook
from feature_service.fences.requests import completed
from feature_service.parsing import parsed
from feature_service.validation import Problems, check_id, check_message_id, collection_of
from protos.feature.v1 import feature_pb2 as pb

Context = grpc.aio.ServicerContext[Any, Any]
DEFAULT_PAGE, MAX_PAGE = 100, 1000


class FenceServicer:
    """The fence methods of feature.v1.FeatureService."""

    def __init__(self, book: FenceBook) -> None:
        self._book = book

    async def put_fence(self, request: pb.PutFenceRequest, context: Context) -> pb.PutFenceResponse:
        """PutFence."""
        fence = await parsed(_fence_of, request)
        stored = await self._book.put(fence, request.message_id)
        return pb.PutFenceResponse(fence=stored.fence, duplicate=stored.duplicate)

    async def delete_fence(self, request: pb.DeleteFenceRequest, context: Context) -> pb.DeleteFenceResponse:
        """DeleteFence."""
        problems = Problems()
        check_id(problems, "id", request.id)
        problems.check()
        deleted = await self._book.delete(request.id, notify_left=request.notify_left)
        return pb.DeleteFenceResponse(deleted=deleted)

    async def list_fences(self, request: pb.ListFencesRequest, context: Context) -> pb.ListFencesResponse:
        """ListFences."""
        problems = Problems()
        if request.page_size > MAX_PAGE:
            problems.add("page_size", f"must be at most {MAX_PAGE}")
        collection_of(problems, request.collection)
        problems.check()
        page = await self._book.page(request.collection, request.page_size or DEFAULT_PAGE, request.page_token)
        return pb.ListFencesResponse(fences=page.fences, next_page_token=page.next_token)

    def methods(self) -> dict[str, "grpc.RpcMethodHandler[Any, Any]"]:
        """The methods, by name."""
        return {
            "PutFence": grpc.unary_unary_rpc_method_handler(
                self.put_fence, pb.PutFenceRequest.FromString, pb.PutFenceResponse.SerializeToString
            ),
            "DeleteFence": grpc.unary_unary_rpc_method_handler(
                self.delete_fence, pb.DeleteFenceRequest.FromString, pb.DeleteFenceResponse.SerializeToString
            ),
            "ListFences": grpc.unary_unary_rpc_method_handler(
                self.list_fences, pb.ListFencesRequest.FromString, pb.ListFencesResponse.SerializeToString
            ),
        }


def _fence_of(request: pb.PutFenceRequest) -> pb.Fence:
    problems = Problems()
    fence = completed(problems, request.fence)
    check_message_id(problems, request.message_id)
    problems.check()
    return fence
