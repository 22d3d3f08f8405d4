import json
import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssl_platform.optim.schedules import (
    Constant,
    Cosine,
    EpochCosine,
    Linear,
    Piecewise,
    Steps,
    Warmup,
    WarmupCosine,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "lr_schedule.json").read_text())
CASES = VECTORS["cases"]


def schedule_of(case) -> WarmupCosine:
    return WarmupCosine(
        case["base_lr"],
        case["epochs"],
        case["iters_per_epoch"],
        warmup_epochs=case["warmup_epochs"],
        start_lr=case["start_warmup"],
        final_lr=case["final_lr"],
    )


def short(**options) -> WarmupCosine:
    return WarmupCosine(1.0, 5, 4, **({"start_lr": 0.1, "final_lr": 0.01} | options))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_rates_equal_those_of_the_reference(case):
    schedule, total_steps = schedule_of(case), case["total_steps"]
    assert [schedule(step) for step in case["steps"]] == pytest.approx(case["lr"], rel=1e-12)
    if total_steps < 100_000:
        rates = [schedule(step) for step in range(total_steps)]
        assert sum(rates) == pytest.approx(case["lr_sum"], rel=1e-9)
        if "all" in case:
            assert rates == pytest.approx(case["all"], rel=1e-12)


def test_without_warm_up_the_first_step_has_the_base_rate():
    assert short(warmup_epochs=0)(0) == 1


def test_a_warm_up_of_one_step_starts_at_the_start_rate_and_goes_on_at_the_base_rate():
    schedule = short(warmup_epochs=0.25)
    assert schedule(0) == pytest.approx(0.1)
    assert schedule(1) == pytest.approx(1)


@pytest.mark.parametrize(("warmup_epochs", "num_steps"), [(0.5, 2), (1, 4), (1.5, 6), (2, 8)])
def test_a_warm_up_climbs_in_equal_steps_to_the_base_rate(warmup_epochs, num_steps):
    schedule = short(warmup_epochs=warmup_epochs)
    rates = [schedule(step) for step in range(num_steps)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[-1] == pytest.approx(1)
    steps = [after - before for before, after in pairwise(rates)]
    assert steps == pytest.approx([0.9 / (num_steps - 1)] * (num_steps - 1))
    assert schedule(num_steps) == pytest.approx(1)


def test_a_warm_up_that_fills_the_last_epoch_but_a_fraction_has_a_rate_for_every_step():
    schedule = WarmupCosine(1.0, 1, 4, warmup_epochs=0.9, start_lr=0.1, final_lr=0.01)
    rates = [schedule(step) for step in range(4)]
    assert rates == pytest.approx([0.1, 0.4, 0.7, 1.0])


@given(
    num_epochs=st.integers(1, 20),
    steps_per_epoch=st.integers(1, 20),
    warmup=st.floats(0, 0.9),
    start_lr=st.floats(0, 1),
    final_lr=st.floats(0, 1),
)
def test_every_rate_lies_between_the_given_ones(
    num_epochs, steps_per_epoch, warmup, start_lr, final_lr
):
    schedule = WarmupCosine(
        1.0,
        num_epochs,
        steps_per_epoch,
        warmup_epochs=warmup * num_epochs,
        start_lr=start_lr,
        final_lr=final_lr,
    )
    rates = [schedule(step) for step in range(num_epochs * steps_per_epoch)]
    assert min(start_lr, final_lr) - 1e-12 <= min(rates)
    assert max(rates) <= 1 + 1e-12


@pytest.mark.parametrize("warmup_epochs", [-1, 5, 5.5, float("nan")])
def test_a_warm_up_that_is_not_shorter_than_the_training_is_refused(warmup_epochs):
    with pytest.raises(ValueError, match=rf"^warmup_epochs={warmup_epochs}: .*num_epochs=5"):
        short(warmup_epochs=warmup_epochs)


def test_a_constant_rate_is_the_base_rate_at_every_step():
    schedule = Constant(0.3, 5, 4)
    assert {schedule(step) for step in range(20)} == {0.3}


EVALUATION = json.loads(
    (Path(__file__).parents[1] / "vectors" / "counts_and_eval_schedules.json").read_text()
)


def test_the_official_linear_evaluation_decays_per_epoch():
    expected = EVALUATION["linear_eval_cosine_lr_per_epoch"]
    schedule = EpochCosine(0.3, 100, 7)
    for step in range(700):
        assert schedule(step) == pytest.approx(expected[step // 7], rel=1e-12, abs=1e-17)


def test_the_official_semi_supervised_rates():
    expected = EVALUATION["semisup_1pct_lr_per_epoch_trunk_head"]
    schedule = Steps(0.02, 20, 3, milestones=[12, 16], factor=0.2)
    for step in range(60):
        trunk, head = expected[step // 3]
        assert schedule(step) == pytest.approx(trunk, rel=1e-12)
        assert 250 * schedule(step) == pytest.approx(head, rel=1e-12)


def test_milestones_that_do_not_rise_are_refused():
    with pytest.raises(ValueError) as caught:
        Steps(1.0, 10, 1, milestones=[5, 2], factor=0.1)
    assert str(caught.value) == "milestones=[5, 2]: epochs in rising order, e.g. [30, 60]"


def dino(base: float, final: float, epochs: int, steps: int) -> np.ndarray:
    """The weight decay and the teacher's momentum of DINO, step by step."""
    steps_done = np.arange(epochs * steps)
    return final + 0.5 * (base - final) * (1 + np.cos(np.pi * steps_done / len(steps_done)))


@pytest.mark.parametrize(("base", "end"), [(0.04, 0.4), (0.996, 1.0)])
def test_the_weight_decay_and_the_momentum_of_dino(base, end):
    schedule = Cosine(base, 100, 7, end=end)
    values = [schedule(step) for step in range(700)]
    assert values == pytest.approx(dino(base, end, 100, 7), rel=1e-12)
    assert (schedule(0), schedule(350)) == pytest.approx((base, (base + end) / 2))


def test_the_momentum_of_byol():
    schedule = Cosine(0.996, 10, 5, end=1.0)
    for step in range(50):
        share = (math.cos(math.pi * step / 50) + 1) / 2
        assert schedule(step) == pytest.approx(1 - (1 - 0.996) * share, rel=1e-12)


def test_the_temperature_of_the_teacher_of_dino():
    """From 0.04 to 0.07 in 30 epochs, in as many equal steps as there are values."""
    schedule = Warmup(0.07, 100, 1, start=0.04, epochs=30)
    values = [schedule(step) for step in range(100)]
    assert values == pytest.approx([*np.linspace(0.04, 0.07, 30), *[0.07] * 70], rel=1e-12)
    assert Warmup(0.07, 4, 1, start=0.04, epochs=0.5)(0) == 0.07  # of no step


def test_a_line_ends_where_it_says_and_stays():
    schedule = Linear(1.0, 10, 4, end=3.0, epochs=2.5)
    assert [schedule(step) for step in (0, 5, 10, 39)] == [1, 2, 3, 3]
    assert Linear(1.0, 1, 4, end=3.0, epochs=2)(3) == 1.75  # longer than the training


def test_values_of_some_epochs():
    schedule = Piecewise(1.0, 6, 2, milestones=[2, 4], values=[0.5, 3.0])
    assert [schedule(step) for step in range(12)] == [1] * 4 + [0.5] * 4 + [3] * 4


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Piecewise(1.0, 6, 2, milestones=[4, 2], values=[1.0, 2.0]), "milestones=[4, 2]: "
         "epochs in rising order, e.g. [30, 60]"),
        (lambda: Piecewise(1.0, 6, 2, milestones=[2], values=[]), "values=[]: one for each of "
         "milestones=[2]"),
        (lambda: Warmup(1.0, 6, 2, start=0.0, epochs=7), "epochs=7: the training has "
         "num_epochs=6; the warm-up must not be longer"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(build, message):
    with pytest.raises(ValueError) as caught:
        build()
    assert str(caught.value) == message
