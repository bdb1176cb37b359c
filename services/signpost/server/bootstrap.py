"""One process: from settings to exit code."""

import asyncio
import gc
import logging
import signal
from collections.abc import Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import grpc
import uvloop
from grpc_health.v1 import health_pb2_grpc
from prometheus_client import disable_created_metrics

from signpost.errors import SignpostError
from signpost.log import open_store
from signpost.server import health, reflection, tracing
from signpost.server import logging as server_logging
from signpost.server.addresses import Address, check_free, expand
from signpost.server.calls import Calls
from signpost.server.log_metrics import LogMetrics, observe
from signpost.server.methods import methods_of
from signpost.server.metrics import ServerMetrics, serve_metrics
from signpost.server.options import server_options
from signpost.server.service import Service, handlers_of
from signpost.server.settings import ServerSettings, SettingsT, load_settings, refuse

_LOG = logging.getLogger(__name__)
_COLLECT_AFTER = (50_000, 20, 100)
"""Allocations between looks for garbage cycles. What passes through here in millions dies by its reference count:
at the usual 700 the looking took a tenth of a fan-out, and more of an import."""
_INFRASTRUCTURE = (health.SERVICE, reflection.V1ALPHA, reflection.V1)


def run(
    service_factory: Callable[[SettingsT], Service],
    settings_class: type[SettingsT],
    argv: Sequence[str] | None = None,
    *,
    program: str,
) -> int:
    """Serve until SIGTERM or SIGINT; what `python -m feature_service` calls. Answers the exit code.

    0 after a drain; exits with 2 and one line on stderr for a wrong setting, a port already taken or
    data that cannot be opened. A second signal cuts the drain short.
    """
    settings = load_settings(settings_class, argv, program=program)
    gc.set_threshold(*_COLLECT_AFTER)
    server_logging.configure(settings.log_level, settings.log_format)
    disable_created_metrics()  # type: ignore[no-untyped-call] # a series more for each counter, which nothing here reads
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_Process(lambda: service_factory(settings), settings).serve())
    except _Refused as refused:
        refuse(program, refused.__cause__)
    return 0


class _Refused(Exception):
    """The start has failed for a reason that the person who started it can mend; the cause says which."""


class _Process:
    """The order of start and stop."""

    def __init__(self, factory: Callable[[], Service], settings: ServerSettings) -> None:
        self._factory, self._settings = factory, settings
        self._stop, self._hurry = asyncio.Event(), asyncio.Event()
        self._main: asyncio.Task[Any] | None = None
        self._serving = False

    async def serve(self) -> None:
        """Start, serve until a signal comes, drain, stop."""
        loop = asyncio.get_running_loop()
        self._main = asyncio.current_task()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled)
        _LOG.info("starting", extra={"fields": {"log": self._settings.log_name}})
        try:
            async with AsyncExitStack() as stack:
                await self._start_and_serve(stack)
        except asyncio.CancelledError:
            if not self._stop.is_set():
                raise
        _LOG.info("stopped")

    def _signalled(self) -> None:
        """The first signal drains, the second one hurries; during the start there is nothing to drain."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()
        if not self._serving and self._main is not None:
            self._main.cancel()

    async def _start_and_serve(self, stack: AsyncExitStack) -> None:
        try:
            service, checks, calls, server = await self._start(stack)
        except (SignpostError, OSError) as error:
            raise _Refused from error
        self._serving = True
        await self._stop.wait()
        await self._drain(service, checks, calls, server)

    async def _start(self, stack: AsyncExitStack) -> "tuple[Service, health.Health, Calls, grpc.aio.Server]":
        settings = self._settings
        listen = [one for text in settings.listen for one in expand(Address.parse(text))]
        metrics_listen = [one for text in settings.metrics_listen for one in expand(Address.parse(text))]
        for address in (*listen, *metrics_listen):
            check_free(address)
        service = self._factory()
        spans = tracing.Tracing(tracing.configure(f"signpost-{service.name}"))
        stack.callback(spans.close)
        service.tracing = spans
        if settings.log is None:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
        logs = service.log_settings()
        engine = await stack.enter_async_context(
            open_store(settings.log_url, logs, settings=settings.engine_settings())
        )
        log_metrics = LogMetrics()
        store = observe(engine, [one.name for one in logs], log_metrics)
        stack.push_async_callback(service.close)
        await service.start(store)
        gc.collect()
        gc.freeze()  # what is loaded by now stays

        checks = health.Health(service.grpc_services)
        calls, server = self._make_server(service, checks, spans)
        serving = _bind(server, listen)
        await server.start()
        stack.push_async_callback(server.stop, 0)
        metrics_serving = _serve_metrics(metrics_listen)
        for work in (checks.follow(service, store), log_metrics.measure()):
            task = asyncio.create_task(work)
            task.add_done_callback(_report)
            stack.push_async_callback(_end, task)
        _LOG.info("listening", extra={"fields": {"listen": serving, "metrics": metrics_serving}})
        return service, checks, calls, server

    def _make_server(
        self, service: Service, checks: health.Health, spans: tracing.Tracing
    ) -> "tuple[Calls, grpc.aio.Server]":
        settings = self._settings
        reflected = (*service.grpc_services, health.SERVICE)
        handlers = (
            *service.handlers(),
            *handlers_of(health_pb2_grpc.add_HealthServicer_to_server, checks),
            *reflection.reflection_handlers(reflected),
        )
        methods = list(methods_of((*reflected, reflection.V1ALPHA, reflection.V1)))
        calls = Calls(
            methods,
            handlers,
            metrics=ServerMetrics(methods),
            tracing=spans,
            max_message_bytes=settings.max_message_bytes,
            log_calls=settings.log_calls,
            always=_INFRASTRUCTURE,
        )
        server = grpc.aio.server(
            interceptors=spans.interceptors(methods),
            options=server_options(settings),
            compression=grpc.Compression.Gzip if settings.compression == "gzip" else None,
        )
        server.add_generic_rpc_handlers((calls,))
        return calls, server

    async def _drain(self, service: Service, checks: health.Health, calls: Calls, server: grpc.aio.Server) -> None:
        """Health first, so that nobody new comes; then the streams, so that those who are here can move."""
        settings = self._settings
        _LOG.info("draining", extra={"fields": {"drainS": settings.drain_s, "stopS": settings.stop_s}})
        await checks.enter_graceful_shutdown()
        calls.draining = True
        await self._unless_hurried(service.drain(settings.drain_s), settings.drain_s)
        checks.end_watches()
        await self._unless_hurried(server.stop(settings.stop_s), settings.stop_s + 1)

    async def _unless_hurried(self, work: Coroutine[Any, Any, None], limit_s: float) -> None:
        """Do a part of the drain, for at most so long, or until a second signal."""
        task, hurry = asyncio.create_task(work), asyncio.create_task(self._hurry.wait())
        task.add_done_callback(_report)
        await asyncio.wait((task, hurry), timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
        await _end(hurry)
        await _end(task)


async def _end(task: "asyncio.Task[Any]") -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    await asyncio.wait((task,))


def _report(task: "asyncio.Task[Any]") -> None:
    """Log what a task has raised, as soon as it has."""
    if not task.cancelled() and (error := task.exception()) is not None:
        _LOG.error("a task of the server has failed", exc_info=error)


def _bind(server: grpc.aio.Server, addresses: Sequence[Address]) -> list[str]:
    """Bind all addresses; with port 0 the first one finds a port and the others take the same."""
    port, bound = 0, []
    for address in addresses:
        wanted = Address(address.host, address.port or port)
        try:
            port = server.add_insecure_port(str(wanted))
        except RuntimeError as error:
            raise OSError(f"cannot listen on {wanted}") from error
        bound.append(str(Address(address.host, port)))
    return bound


def _serve_metrics(addresses: Sequence[Address]) -> list[str]:
    port, bound = 0, []
    for address in addresses:
        serving = serve_metrics(Address(address.host, address.port or port))
        port = serving.port
        bound.append(str(serving))
    return bound
