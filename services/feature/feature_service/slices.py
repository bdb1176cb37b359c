"""Long tests in slices, so that whoever runs many of them in few threads can let each have its turn.

Guarantee: the answer is that of one test of everything. Work in slices is a generator: it yields where others
may go first, and returns what it has found.
"""

import time
from collections.abc import Callable, Generator
from typing import TypeVar

import numpy as np

from feature_service.geometry import Mask
from feature_service.table import Slots

T = TypeVar("T")
Sliced = Generator[None, None, T]
_SLICE_S = 0.02
"""Processor time between two yields: more makes others wait longer, less hands over more often."""


def tested(test: Callable[[Slots], Mask], slots: Slots, first: int) -> Sliced[Mask]:
    """Which of these slots pass. A slot may take microseconds or milliseconds: the `first` ones tell."""
    if len(slots) <= first:
        return test(slots)
    passed = np.empty(len(slots), bool)
    begin, step, spent = 0, first, 0.0
    while begin < len(slots):
        if spent > _SLICE_S / 2:
            yield
            spent = 0.0
        started = time.thread_time()
        passed[begin : begin + step] = test(slots[begin : begin + step])
        took = time.thread_time() - started
        spent += took
        begin += step
        step = max(1, min(2 * step, int(step * _SLICE_S / max(took, 1e-6))))
    return passed


def whole(work: Sliced[T]) -> T:
    """The answer, without letting anybody go first."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            answer: T = end.value
            return answer
