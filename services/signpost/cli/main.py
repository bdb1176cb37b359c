"""Where the `signpost` command begins: it ends with an exit code and at most one line, never with a traceback.

Exit codes: 0; 1 for what went wrong; 2 for wrong usage; 130 after Ctrl-C, quietly.
"""

import logging
import os
import sys
from typing import NoReturn

_EXTRA = ("typer", "rich", "ijson", "grpc_health")


def run() -> NoReturn:
    """The entry point."""
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its own lines on stderr say less than our errors
    logging.getLogger("signpost").addHandler(logging.NullHandler())
    try:
        from signpost.cli.app import main  # noqa: PLC0415 - without the extra it cannot be imported
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in _EXTRA:
            raise
        sys.exit("signpost: this command needs more packages: pip install 'signpost[cli]'")
    sys.exit(main())
