"""What is on the clock and what is not, and that work on the wrong side is noticed."""

import time

import pytest

from underpar.core.clock import TIMED, UNTIMED, Clock, process_age
from underpar.core.errors import TrainError


def test_pauses_are_booked_and_not_counted() -> None:
    clock = Clock()
    with clock.pause("compile"):
        time.sleep(0.02)
    clock.start()
    began = time.perf_counter()
    with clock.pause("validation"):
        time.sleep(0.03)
    clock.book("validation", 1.0)
    whole = time.perf_counter() - began
    assert clock.elapsed <= whole - 0.03
    assert clock.paused_seconds["compile"] >= 0.02
    assert clock.paused_seconds["validation"] >= 1.03
    clock.stop()
    stopped = clock.elapsed
    time.sleep(0.01)
    assert clock.elapsed == stopped


@pytest.mark.parametrize("work", TIMED)
def test_training_off_the_clock_ends_the_run(work: str) -> None:
    clock = Clock()
    with pytest.raises(TrainError, match=f"'{work}' begins while the clock stands"):
        clock.mark(work)
    clock.start()
    clock.mark(work)
    with clock.pause("validation"), pytest.raises(TrainError, match="while the clock stands"):
        clock.mark(work)
    clock.mark(work)


@pytest.mark.parametrize("work", UNTIMED)
def test_other_work_on_the_clock_ends_the_run(work: str) -> None:
    clock = Clock()
    clock.mark(work)
    clock.start()
    with pytest.raises(TrainError, match=f"'{work}' begins while the clock runs"):
        clock.mark(work)


def test_a_pause_that_no_rule_knows_is_refused() -> None:
    clock = Clock()
    clock.start()
    with pytest.raises(TrainError, match="'tea' begins while"), clock.pause("tea"):
        pass
    with pytest.raises(TrainError, match="no pause is called 'tea'"):
        clock.book("tea", 1.0)


def test_the_age_of_a_process_grows() -> None:
    age = process_age()
    assert age > 0
    time.sleep(0.02)
    assert process_age() >= age
