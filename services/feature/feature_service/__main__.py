"""`python -m feature_service`."""

import sys

from signpost.server import run

from feature_service.config import FeatureSettings
from feature_service.service import FeatureService


def main() -> int:
    """Serve until told to stop; answers the exit code."""
    return run(FeatureService, FeatureSettings, program="feature_service")


if __name__ == "__main__":
    sys.exit(main())
