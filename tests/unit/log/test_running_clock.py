"""A clock that leaves out the time in which nobody looked at it."""

from signpost.log.jetstream.clock import RunningClock


def test_time_passes_while_it_is_looked_at_and_hardly_while_it_is_not() -> None:
    real = 100.0
    clock = RunningClock(lambda: real, longest_s=1.0)
    began = clock()
    for _ in range(10):
        real += 0.5
        clock()
    assert clock() == began + 5.0
    real += 600.0
    assert clock() == began + 6.0
    real += 0.25
    assert clock() == began + 6.25
