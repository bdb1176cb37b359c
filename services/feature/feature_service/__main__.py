"""`python -m feature_service`."""

import gc
import sys

from signpost.server import run

from feature_service.config import FeatureSettings
from feature_service.service import FeatureService

_ALLOCATIONS = 50_000
"""Between looks for garbage cycles. Millions of small tuples come and go here, none of them in a cycle: at the
usual 700 the looking took a large part of an import."""


def main() -> int:
    """Serve until told to stop; answers the exit code."""
    gc.set_threshold(_ALLOCATIONS, 20, 100)
    return run(FeatureService, FeatureSettings, program="feature_service")


if __name__ == "__main__":
    sys.exit(main())
