"""The matrix: a fault while a workload runs, and then everything is there, once, in order.

Rows are FAULTS numbers, columns the five workloads. The run prints the table; docs/client.md has it.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from signpost.client import State

from tests.behaviour.client.conftest import Services
from tests.behaviour.client.workloads import WORKLOADS, Publish, Subscribe, Unary, Workload
from tests.support.metrics_text import Samples
from tests.support.proxy import Direction, FaultProxy
from tests.support.services import ServiceProcess, running

ALL = list(WORKLOADS)


def some_long(*quick: str) -> list[Any]:
    """All methods; only these in the quick run."""
    return [m if m in quick else pytest.param(m, marks=pytest.mark.long) for m in ALL]


Fault = Callable[[FaultProxy, ServiceProcess, Workload], Awaitable[None]]


async def survive(
    workload: Workload,
    service: ServiceProcess,
    fault: Fault,
    *,
    bytes_per_s: float | None = None,
    timeout_s: float = 120,
) -> FaultProxy:
    """Run a workload through a proxy, that slow from the start, break something meanwhile, check what came of it."""
    async with asyncio.timeout(timeout_s):
        await workload.prepare(service)
        async with FaultProxy(service.port) as proxy, asyncio.TaskGroup() as group:
            if bytes_per_s is not None:
                proxy.throttle(bytes_per_s, Direction.DOWN)
            work = group.create_task(workload.run(proxy.target, service))
            breaking = group.create_task(_break(proxy, service, workload, fault))
            await asyncio.wait((work,))
            breaking.cancel()
        await workload.check(service)
    return proxy


async def _break(proxy: FaultProxy, service: ServiceProcess, workload: Workload, fault: Fault) -> None:
    await workload.under_way.wait()
    await fault(proxy, service, workload)


@pytest.mark.parametrize("method", ALL)
async def test_fault_01_cut_at_any_byte_again_and_again(method: str, services: Services) -> None:
    dice = random.Random(method)

    async def cut(proxy: FaultProxy, service: ServiceProcess, workload: Workload) -> None:
        # What is open is cut now; those that come are cut at a byte of one direction or the other.
        proxy.cut_each([dice.randrange(1, 4000) for _ in range(6)], Direction.UP)
        proxy.cut_each([dice.randrange(1, 20_000) for _ in range(12)], Direction.DOWN)
        for _ in range(5):
            proxy.cut_now()
            await asyncio.sleep(0.15)

    workload = WORKLOADS[method]()
    proxy = await survive(workload, services[workload.service], cut)
    assert proxy.accepted > 3


@pytest.mark.columns("subscribe")
async def test_fault_02_cut_after_subscribed_and_before_the_first_delivery(services: Services) -> None:
    service = services["notification_service"]

    class CutEarly(Subscribe):
        async def _publish(self, service: ServiceProcess) -> None:
            self.under_way.set()
            await asyncio.sleep(0.1)  # it is cut, and refused, while these are published
            await super()._publish(service)

    async def cut(proxy: FaultProxy, service: ServiceProcess, workload: Workload) -> None:
        proxy.refuse()
        proxy.cut_now()
        await asyncio.sleep(0.5)
        proxy.heal()

    await survive(CutEarly(), service, cut)


@pytest.mark.parametrize("method", ["publish", "unary"])
async def test_fault_03_the_answer_is_lost(method: str, services: Services) -> None:
    async def lose(proxy: FaultProxy, service: ServiceProcess, workload: Workload) -> None:
        proxy.drop(Direction.DOWN)
        assert isinstance(workload, Publish | Unary)
        log = workload.service.removesuffix("_service") + "s"
        answered = workload.sequences[-1]
        async with asyncio.timeout(10):  # until something is stored whose answer cannot have come
            while Samples(await service.metrics()).value("signpost_log_head", log=log) <= answered:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        proxy.cut_now()
        proxy.heal()

    workload = WORKLOADS[method]()
    await survive(workload, services[workload.service], lose)
    assert isinstance(workload, Publish | Unary)
    assert workload.duplicates > 0


@pytest.mark.parametrize("method", ALL)
async def test_fault_05_the_network_stands_still(method: str, services: Services) -> None:
    noticed = asyncio.Event()

    async def stall(proxy: FaultProxy, service: ServiceProcess, workload: Workload) -> None:
        proxy.stall()
        if workload.status is None:
            await asyncio.sleep(1.2)  # a unary call has no state to look at: its tries time out
        else:
            assert await workload.status.wait_for(State.RECONNECTING) is State.RECONNECTING
        noticed.set()
        proxy.heal()

    workload = WORKLOADS[method]()
    # Slow enough that a list is not on this side already, whole, when the network stops.
    await survive(workload, services[workload.service], stall, bytes_per_s=200_000)
    assert noticed.is_set()


@pytest.mark.long
@pytest.mark.parametrize("method", ALL)
async def test_fault_05_the_peer_is_frozen(method: str, tmp_path: Path) -> None:
    async def freeze(proxy: FaultProxy, service: ServiceProcess, workload: Workload) -> None:
        service.freeze()
        if workload.status is None:
            await asyncio.sleep(1.2)
        else:
            await workload.status.wait_for(State.RECONNECTING)
        service.thaw()

    workload = WORKLOADS[method]()
    async with running(workload.service, tmp_path, args=["--heartbeat-s=1"]) as service:
        await survive(workload, service, freeze)


@pytest.mark.parametrize("method", some_long("subscribe"))
async def test_fault_06_the_connection_reaches_its_age(method: str, tmp_path: Path) -> None:
    async def nothing(proxy: FaultProxy, service: ServiceProcess, workload: Workload) -> None:
        await asyncio.sleep(0)

    workload = WORKLOADS[method]()
    age = ["--max-connection-age-s=0.4", "--max-connection-age-grace-s=0.2"]
    async with running(workload.service, tmp_path, args=age) as service:
        proxy = await survive(workload, service, nothing)
    assert proxy.accepted > 1


@pytest.mark.parametrize("method", some_long("subscribe", "publish"))
async def test_fault_07_sigterm_under_load_and_a_restart(method: str, tmp_path: Path) -> None:
    codes: list[int] = []

    async def restart(proxy: FaultProxy, service: ServiceProcess, workload: Workload) -> None:
        codes.append(await service.terminate())
        await service.start()

    workload = WORKLOADS[method]()
    async with running(workload.service, tmp_path, args=["--drain-s=0.5", "--stop-s=1"]) as service:
        await survive(workload, service, restart)
    assert codes == [0]
