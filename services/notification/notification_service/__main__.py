"""`python -m notification_service`: serve until SIGTERM or SIGINT."""

import sys

from signpost.server import run

from notification_service.service import NotificationService
from notification_service.settings import NotificationSettings


def main() -> int:
    """The entry point; answers the exit code."""
    return run(NotificationService, NotificationSettings, program="python -m notification_service")


if __name__ == "__main__":
    sys.exit(main())
