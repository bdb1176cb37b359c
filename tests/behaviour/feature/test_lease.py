"""A killed holder's lease: taken over at once where nobody else can have the log open, waited for elsewhere."""

import subprocess
import sys
from pathlib import Path

import pytest
from signpost.log import LogSettings, Retention, open_store
from signpost.log.lease import Lease

from tests.support.nats import NatsServer
from tests.support.services import ROOT, clean_environment

STATE = LogSettings("state", Retention(max_age_s=3600.0, keep_last=True))
HOLD_AND_DIE = """
import asyncio, os, sys
from signpost.log import open_store
from signpost.log.lease import Lease
from tests.behaviour.feature.test_lease import STATE

async def main():
    async with open_store(sys.argv[1], [STATE]) as store:
        assert await Lease(store["state"], "relay", "first", ttl_s=600.0).try_acquire()
        os._exit(9)

asyncio.run(main())
"""


@pytest.mark.parametrize(("engine", "at_once"), [("sqlite", True), ("jetstream", False)])
async def test_a_dead_process_holds_nothing_that_only_one_process_can_hold(
    engine: str, at_once: bool, tmp_path: Path
) -> None:
    url, server = f"sqlite:///{tmp_path / 'log.db'}", None
    if engine == "jetstream":
        server = NatsServer(tmp_path / "nats")
        server.start()
        url = server.url
    try:
        died = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
            [sys.executable, "-c", HOLD_AND_DIE, url], cwd=ROOT, env=clean_environment(), timeout=60, check=False
        )
        assert died.returncode == 9
        async with open_store(url, [STATE]) as store:
            lease = Lease(store["state"], "relay", "second", ttl_s=600.0)
            assert await lease.try_acquire() is at_once
            if at_once:
                # One of this process is another matter: it is alive.
                assert not await Lease(store["state"], "relay", "third", ttl_s=600.0).try_acquire()
    finally:
        if server is not None:
            server.kill()
