"""`python -m tests.bench.lagging`: the feature service, which also says how late its event loop has been.

The gauge `bench_loop_late_seconds` is the latest that a timer of a millisecond came since it was last asked for.
"""

import asyncio
import sys

from feature_service.config import FeatureSettings
from feature_service.service import FeatureService
from prometheus_client import Gauge
from signpost.log import Store
from signpost.server import run

_STEP_S = 0.001


class Lagging(FeatureService):
    """A feature service with a look at its loop."""

    async def start(self, store: Store) -> None:
        await super().start(store)
        self._latest_s = 0.0
        Gauge("bench_loop_late_seconds", "The latest timer").set_function(self._told)
        self._tasks.append(asyncio.create_task(self._look()))

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _STEP_S
            await asyncio.sleep(_STEP_S)
            self._latest_s = max(self._latest_s, loop.time() - due)

    def _told(self) -> float:
        latest, self._latest_s = self._latest_s, 0.0
        return latest


if __name__ == "__main__":
    sys.exit(run(Lagging, FeatureSettings, program="feature_service"))
