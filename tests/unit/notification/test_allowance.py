"""FAULTS 20: an allowance lets through its rate, and says how long to wait."""

from hypothesis import given
from hypothesis import strategies as st
from notification_service.allowance import Allowance


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@given(st.lists(st.tuples(st.floats(0, 0.5), st.integers(1, 50)), max_size=200))
def test_no_more_than_burst_and_rate_and_one_frame(frames: list[tuple[float, int]]) -> None:
    clock = Clock()
    allowance = Allowance(100, 20, clock)
    taken = 0
    for pause, count in frames:
        clock.now += pause
        if allowance.take(count) == 0:
            taken += count
        assert taken <= 20 + clock.now * 100 + 50


def test_the_advised_pause_is_enough() -> None:
    clock = Clock()
    allowance = Allowance(10, 1, clock)
    assert allowance.take(100) == 0, "a frame over the burst is not refused for ever"
    wait_s = allowance.take(1)
    assert 9 < wait_s < 11
    clock.now += wait_s
    assert allowance.take(1) == 0
