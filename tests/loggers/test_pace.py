"""The time that a training still takes, by a clock of the test."""

import pytest
from run_infos import info

from ssl_platform.loggers.pace import Pace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def paced(tmp_path, **of_run) -> tuple[Pace, Clock]:
    clock = Clock()
    return Pace(info(tmp_path, **of_run), clock), clock


def walk(pace: Pace, clock: Clock, *seconds: float) -> None:
    """Steps that take so long each."""
    for each in seconds:
        clock.now += each
        pace.move(pace.position + 1)


@pytest.mark.parametrize(
    ("start", "position", "seconds", "left"),
    [(0, 6, 10.0, 30.0), (12, 15, 30.0, 90.0), (20, 24, 3.0, 0.0)],
)
def test_it_is_that_of_the_steps_left(start, position, seconds, left, tmp_path):
    pace, clock = paced(tmp_path, step=90, position=start, steps_per_epoch=8)
    clock.now += seconds
    pace.move(position)
    assert pace.seconds_left() == pytest.approx(left)


def test_it_follows_the_latest_steps_and_not_the_mean_of_all(tmp_path):
    pace, clock = paced(tmp_path, num_epochs=1, steps_per_epoch=100)
    walk(pace, clock, 60, *[10] * 9)
    pace.measure()
    assert pace.seconds_left() == 90 * 10  # the first step, a slow one, tells nothing
    walk(pace, clock, *[0.5] * 10)
    assert pace.seconds_left() == 80 * 10  # until there are figures
    pace.measure()
    assert pace.seconds_left() == 80 * 0.5
    pace.measure()
    assert pace.seconds_left() == 80 * 0.5


def test_pauses_between_epochs_are_no_steps_and_come_again(tmp_path):
    pace, clock = paced(tmp_path, num_epochs=4, steps_per_epoch=4)
    walk(pace, clock, 1, 1, 1, 1)
    assert pace.seconds_left() == 12
    walk(pace, clock, 31)
    pace.measure()
    assert pace.seconds_left() == 9 * 1 + 2 * 31
    walk(pace, clock, 1, 1, 1)
    pace.measure()
    assert pace.seconds_left() == 6 * 1 + 2 * 31
    walk(pace, clock, 11, 1, 1, 1)
    assert pace.seconds_left() == 3 * 1 + 1 * 21


def test_a_place_where_it_has_been_tells_nothing(tmp_path):
    pace, clock = paced(tmp_path)
    walk(pace, clock, 3)
    clock.now += 50
    pace.move(1)
    assert pace.seconds_left() == 11 * 3
