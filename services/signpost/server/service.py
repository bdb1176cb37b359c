"""What a service is to the bootstrap: handlers, a start, a truth about readiness, a drain, an end.

The life of a service, in this order and in one task: `__init__(settings)`, `start(store)`,
`handlers()`, calls come and go while `unready()` is asked several times a second, `drain(deadline_s)`
on SIGTERM or SIGINT, `close()`. `close` is called even where `start` failed; the store is closed after it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, TypeAlias

import grpc

from signpost.log.base import LogSettings, Store
from signpost.server.tracing import Tracing

Handlers: TypeAlias = "Iterable[grpc.GenericRpcHandler[Any, Any]]"


class Service(ABC):
    """One process's service. Its gRPC handlers raise `SignpostError`s and need know no status codes.

    Every call goes through the library's one wrapper, which decodes requests, turns errors into
    statuses with details, counts, traces, logs, and refuses new calls with DRAINING once the
    process is going away. A method of `grpc_services` that `handlers` does not have is answered
    UNIMPLEMENTED with an ErrorInfo.
    """

    name: ClassVar[str]
    """Short name for logs, traces and metrics: `feature`, `notification`."""

    grpc_services: ClassVar[Sequence[str]]
    """Full names, as in the protos (whose modules are imported): they get health, reflection and metrics."""

    tracing: Tracing = Tracing()
    """Set by the bootstrap before `start`: makes the spans of deliveries. Off: does nothing."""

    @abstractmethod
    def log_settings(self) -> Sequence[LogSettings]:
        """The logs to open before `start`."""

    @abstractmethod
    async def start(self, store: Store) -> None:
        """Begin: what must be there before the port opens. Long work (a replay) goes on behind `unready`.

        A `LogRefused`, `InvalidArgument` or `OSError` raised here ends the process with one line and exit code 2.
        """

    @abstractmethod
    def handlers(self) -> Handlers:
        """The gRPC handlers: `grpc.method_handlers_generic_handler(...)` or `handlers_of(add, servicer)`."""

    @abstractmethod
    def unready(self) -> str | None:
        """Why calls should go elsewhere for now (`replaying`, ...); None: ready. Cheap, no I/O."""

    @abstractmethod
    async def drain(self, deadline_s: float) -> None:
        """Tell open streams to move and return once they have, at the latest after `deadline_s`.

        New calls are refused by the library from now on; health says NOT_SERVING already.
        """

    @abstractmethod
    async def close(self) -> None:
        """End every task of the service. The store is still open. Safe after a failed `start`."""


class _Collector:
    """Takes the place of a server for the generated `add_..._to_server` functions."""

    def __init__(self) -> None:
        self.handlers: list[grpc.GenericRpcHandler[Any, Any]] = []

    def add_generic_rpc_handlers(self, handlers: Handlers) -> None:
        self.handlers.extend(handlers)

    def add_registered_method_handlers(self, service_name: str, handlers: dict[str, Any]) -> None:
        """The same handlers once more, for the synchronous server's fast path: not used here."""


def handlers_of(add: Callable[[Any, Any], None], servicer: object) -> "list[grpc.GenericRpcHandler[Any, Any]]":
    """The handlers of a generated servicer: `handlers_of(add_FeatureServiceServicer_to_server, servicer)`."""
    collector = _Collector()
    add(servicer, collector)
    return collector.handlers
