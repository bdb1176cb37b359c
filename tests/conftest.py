"""Settings of the whole test run."""

import os
import signal
import sys

from hypothesis import settings

pytest_plugins = ["tests.support.matrix"]

# The machines that run this are shared, so no example has a deadline. CI tries the same examples every
# time, so that a red run is about the change; everywhere else each run tries new ones.
settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "here")

# Hundreds of processes are started. Each would compile all that it imports, where an environment forbids to keep that.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A run that a script started in the background has Ctrl-C ignored, and so would every process that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
