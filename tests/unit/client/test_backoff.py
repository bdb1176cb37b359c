"""Backoff: bounds, jitter, and what takes it back to the start."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from signpost.client.backoff import Backoff, BackoffCounter
from signpost.client.clock import FakeClock


def test_the_bound_doubles_up_to_the_cap() -> None:
    backoff = Backoff()
    assert [round(backoff.bound_s(n), 3) for n in range(1, 11)] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 20, 20]


@given(st.integers(1, 100_000), st.floats(0, 1, exclude_max=True))
def test_a_delay_is_anywhere_from_zero_to_the_bound(failures: int, draw: float) -> None:
    backoff = Backoff()
    assert backoff.delay_s(failures, lambda: draw) == backoff.bound_s(failures) * draw
    assert 0 <= backoff.delay_s(failures, lambda: draw) <= backoff.cap_s


@pytest.mark.parametrize("wrong", [{"first_s": -1.0}, {"first_s": 30.0}, {"factor": 0.5}, {"stable_s": -1.0}])
def test_nonsense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="not a backoff"):
        Backoff(**wrong)


def test_only_a_stable_connection_takes_it_back_to_the_start() -> None:
    clock = FakeClock()
    counter = BackoffCounter(Backoff(), clock=clock, random=lambda: 0.5)
    assert [counter.failed() for _ in range(3)] == [0.05, 0.1, 0.2]
    counter.connected()
    clock.advance(29.9)
    assert counter.failed() == 0.4
    counter.connected()
    clock.advance(30)
    assert counter.failed() == 0.05
    assert counter.failures == 1


def test_what_the_server_asks_for_is_waited_and_then_the_jitter() -> None:
    counter = BackoffCounter(Backoff(), clock=FakeClock(), random=lambda: 0.5)
    assert counter.failed(at_least_s=2.0) == 2.05
