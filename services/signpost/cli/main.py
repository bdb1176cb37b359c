"""Where the `signpost` command begins: it ends with an exit code and at most one line, never with a traceback.

Exit codes: 0; 1 for what went wrong; 2 for wrong usage; 130 after Ctrl-C, quietly.
"""

import io
import logging
import os
import sys
from typing import NoReturn

_EXTRA = ("typer", "rich", "ijson", "grpc_health")


def run() -> NoReturn:
    """The entry point."""
    _streams()
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines on stderr say less than our errors
    logging.getLogger("signpost").addHandler(logging.NullHandler())
    try:
        from signpost.cli.app import main  # noqa: PLC0415 - without the extra it cannot be imported
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.exit("signpost: this command needs more packages: pip install 'signpost[cli]'")
    sys.exit(main())


def _streams() -> None:
    """Have all three, closed or not; UTF-8 for programs, and what a terminal cannot show is no error."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # or the first connection would take its number
        pass
    os.close(descriptor)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115 - to the end
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=None if stream.isatty() else "utf-8", errors="replace")
