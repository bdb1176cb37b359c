"""The logs' figures are those of the interface, whatever the engine."""

import asyncio

import prometheus_client
import pytest
from prometheus_client import CollectorRegistry
from signpost.errors import StaleSequence
from signpost.log import LogSettings, open_store
from signpost.log.base import Append
from signpost.server.log_metrics import LogMetrics, observe

from tests.support.metrics_text import Samples


async def test_appends_are_timed_counted_and_their_errors_named() -> None:
    registry = CollectorRegistry()
    async with open_store("memory:", [LogSettings("things")]) as engine:
        metrics = LogMetrics(registry)
        store = observe(engine, ["things"], metrics)
        log = store["things"]
        assert (await log.append(Append("a", b"1"))).sequence == 1
        await log.submit([Append("a", b"2"), Append("b", b"3")])
        await asyncio.sleep(0)  # callbacks of a future run a moment later
        with pytest.raises(StaleSequence):
            await log.append(Append("a", b"4", expected_sequence=1))
        assert log.head == 3
        assert (await log.read(0)).through == 3, "what is not measured is the log's own"
        samples = Samples(prometheus_client.generate_latest(registry).decode())
    assert samples.value("signpost_log_append_seconds_count", log="things") == 3
    assert samples.value("signpost_log_append_batch_records_sum", log="things") == 4
    assert samples.value("signpost_log_append_errors_total", log="things", reason="STALE_SEQUENCE") == 1
    assert samples.value("signpost_log_head", log="things") == 3
    assert samples.value("signpost_log_state", log="things", state="writable") == 1
    assert samples.value("signpost_log_state", log="things", state="full") == 0
