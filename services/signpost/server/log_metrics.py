"""What a process's logs do, as metrics: measured around the interface, so the same on every engine."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from typing import Any, cast

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from signpost.errors import SignpostError
from signpost.log.base import Append, Appended, Log, LogState, Statistics, Store

Answers = list[Appended | SignpostError]

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RECORDS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)
_SIZES_S = 15.0


class LogMetrics(Collector):
    """The figures of all logs of a store, in one registry."""

    def __init__(self, registry: CollectorRegistry = prometheus_client.REGISTRY) -> None:
        self.seconds = Histogram(
            "signpost_log_append_seconds",
            "From an append until its answer: once it is as durable as the engine promises",
            ("log",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.batch = Histogram(
            "signpost_log_append_batch_records",
            "Records handed to the log at once",
            ("log",),
            buckets=_RECORDS,
            registry=registry,
        )
        self.errors = Counter(
            "signpost_log_append_errors", "Appends that failed, by reason", ("log", "reason"), registry=registry
        )
        self._logs: dict[str, Log] = {}
        self._sizes: dict[str, Statistics] = {}
        registry.register(self)

    def watch(self, log: Log) -> None:
        """Show a log's head, state and size."""
        self._logs[log.name] = log

    async def measure(self) -> None:
        """Ask the engine for the sizes every 15 seconds, for ever: they cost a query."""
        while True:
            for name, log in self._logs.items():
                try:
                    self._sizes[name] = await log.statistics()
                except SignpostError:
                    self._sizes.pop(name, None)  # the engine is away: no figure is better than an old one
            await asyncio.sleep(_SIZES_S)

    def collect(self) -> Iterator[Metric]:
        head = GaugeMetricFamily("signpost_log_head", "Highest sequence that this process has seen", labels=["log"])
        state = GaugeMetricFamily("signpost_log_state", "1 for the state that the log is in", labels=["log", "state"])
        records = GaugeMetricFamily("signpost_log_records", "Records in the log", labels=["log"])
        size = GaugeMetricFamily("signpost_log_bytes", "Payload in the log", labels=["log"])
        for name, log in self._logs.items():
            now = log.state
            head.add_metric([name], log.head)
            for one in LogState:
                state.add_metric([name, one.value], one is now)
        for name, statistics in tuple(self._sizes.items()):
            records.add_metric([name], statistics.records)
            size.add_metric([name], statistics.bytes)
        yield from (head, state, records, size)


class ObservedLog:
    """A log whose appends are measured; everything else is the log's own."""

    def __init__(self, log: Log, metrics: LogMetrics) -> None:
        self._log = log
        self._seconds, self._batch = metrics.seconds.labels(log.name), metrics.batch.labels(log.name)
        self._errors = metrics.errors

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    def submit(self, entries: Sequence[Append]) -> "asyncio.Future[Answers]":
        began = time.perf_counter()
        future = self._log.submit(entries)
        future.add_done_callback(lambda done: self._answered(began, done))
        return future

    async def append_many(self, entries: Sequence[Append]) -> Answers:
        began = time.perf_counter()
        answers = await self._log.append_many(entries)
        self._observe(began, answers)
        return answers

    async def append(self, entry: Append) -> Appended:
        (answer,) = await self.append_many((entry,))
        if isinstance(answer, SignpostError):
            raise answer
        return answer

    def _answered(self, began: float, done: "asyncio.Future[Answers]") -> None:
        if not done.cancelled() and done.exception() is None:
            self._observe(began, done.result())

    def _observe(self, began: float, answers: Answers) -> None:
        self._seconds.observe(time.perf_counter() - began)
        self._batch.observe(len(answers))
        for answer in answers:
            if isinstance(answer, SignpostError):
                self._errors.labels(self._log.name, answer.reason).inc()


class ObservedStore:
    """A store whose logs are observed; everything else is the store's own."""

    def __init__(self, store: Store, names: Sequence[str], metrics: LogMetrics) -> None:
        self._store = store
        self._logs = {name: cast(Log, ObservedLog(store[name], metrics)) for name in names}
        for name in names:
            metrics.watch(store[name])

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def __getitem__(self, name: str) -> Log:
        return self._logs.get(name) or self._store[name]


def observe(store: Store, names: Sequence[str], metrics: LogMetrics) -> Store:
    """The store, observed."""
    return cast(Store, ObservedStore(store, names, metrics))
