"""`make run`, from its first moment on: until something is started, Ctrl-C or SIGTERM ends it at once, with 0."""

import os
import signal


def main() -> None:
    """Run it."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _end)
    from signpost.cli.dev import main  # noqa: PLC0415 - it takes a third of a second, in which Ctrl-C is heard

    main()


def _end(*_: object) -> None:
    os._exit(0)  # an exception would be shown as the traceback of whatever is being imported


if __name__ == "__main__":
    main()
