"""Large structures of Python objects are taken apart in a thread, step by step.

What is freed at once is freed by whoever lets go of it last, the interpreter's lock held: a million
features are a tenth of a second in which the event loop does nothing.
"""

import threading
import weakref
from collections.abc import Iterable
from queue import SimpleQueue
from typing import Any

import numpy.typing as npt

Objects = npt.NDArray[Any]
STEP = 4096
"""Objects that are let go or copied with the interpreter's lock held: about a millisecond."""

_retired: SimpleQueue[Objects | list[dict[Any, Any]]] = SimpleQueue()


def retire_with(owner: object, *held: Objects | list[dict[Any, Any]]) -> None:
    """Once an owner is gone, empty what it held: arrays filled from their beginning, and dictionaries."""
    weakref.finalize(owner, _retire, held).atexit = False  # the end of the process frees it at once


def _retire(held: Iterable[Objects | list[dict[Any, Any]]]) -> None:
    for objects in held:
        if sum(map(len, objects) if isinstance(objects, list) else objects.shape) > STEP:
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
