"""What the promises mean, one function each. Every one raises AssertionError with the first offence."""

from collections.abc import Sequence
from itertools import pairwise


def ordered(numbers: Sequence[int]) -> None:
    """Each is greater than the one before."""
    for before, after in pairwise(numbers):
        assert before < after, f"{after} came after {before}"


def unique(numbers: Sequence[int]) -> None:
    """None came twice."""
    seen: set[int] = set()
    for number in numbers:
        assert number not in seen, f"{number} came twice"
        seen.add(number)


def contiguous(numbers: Sequence[int], count: int) -> None:
    """Every one of 0 .. count - 1 is there."""
    missing = sorted(set(range(count)) - set(numbers))
    assert not missing, f"{len(missing)} are missing, the first is {missing[0]}"
    assert len(set(numbers)) == count, "there is one that nobody sent"


def resumable(whole: Sequence[int], at: int, rest: Sequence[int]) -> None:
    """Going on from the position of the item at an index gives what stands behind it, and nothing else."""
    assert list(rest) == list(whole[at + 1 :]), f"resumed at {at}: {rest[:3]} instead of {whole[at + 1 : at + 4]}"


def all_of_them(numbers: Sequence[int], count: int) -> None:
    """Ordered, unique and contiguous."""
    unique(numbers)
    ordered(numbers)
    contiguous(numbers, count)
