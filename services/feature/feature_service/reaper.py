"""Large structures of Python objects are taken apart in a thread, step by step.

What is freed at once is freed by whoever lets go of it last, the interpreter's lock held: a million
features are a tenth of a second in which the event loop does nothing.
"""

import threading
from queue import SimpleQueue
from typing import Any

import numpy.typing as npt

Objects = npt.NDArray[Any]
STEP = 4096
"""Objects that are let go or copied with the interpreter's lock held: about a millisecond."""

_retired: SimpleQueue[Objects | list[dict[Any, Any]]] = SimpleQueue()


def retire(objects: Objects | list[dict[Any, Any]]) -> None:
    """Empty what nobody else holds: an array filled from its beginning, or dictionaries. For `__del__`."""
    _retired.put(objects)


def _work() -> None:
    while True:
        objects = _retired.get()
        if isinstance(objects, list):
            while objects:
                objects.pop().clear()
        else:
            for begin in range(0, len(objects), STEP):
                if objects[begin] is None:  # from here on nothing was ever written, and so takes no memory yet
                    break
                objects[begin : begin + STEP] = None
        del objects


threading.Thread(target=_work, name="reaper", daemon=True).start()
