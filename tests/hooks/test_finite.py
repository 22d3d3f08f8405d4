import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from ranks import run_on_ranks
from torch import nn

from ssl_platform import distributed
from ssl_platform.data.batch import Batch
from ssl_platform.errors import DivergedError
from ssl_platform.hooks.finite import StopWhenNotFinite
from ssl_platform.loggers.group import LoggerGroup

STEPS_PER_EPOCH = 6
POSITION = 20  # where the first step is: a run with other epochs before
NAN = float("nan")


def a_run(output_dir: Path, *, scaled: bool = False) -> SimpleNamespace:
    return SimpleNamespace(
        device=torch.device("cpu"),
        model=nn.Linear(1, 1, bias=False),
        scaler=torch.amp.GradScaler("cpu", enabled=scaled),
        schedule=lambda step: 0.5 + step,
        train_data=SimpleNamespace(describe=lambda index: f"{index}.jpg"),
        output_dir=output_dir,
        loggers=LoggerGroup(),
        report={},
        epoch=0,
        step=0,
        position=POSITION,
    )


def train(
    output_dir: Path,
    losses: list[float],
    gradients: list[float] | None = None,
    *,
    scaled: bool = False,
    max_skipped: int = 2,
) -> None:
    """Fire the events of a training whose steps have these losses and gradients."""
    hook = StopWhenNotFinite(every_steps=4, max_skipped=max_skipped)
    run = a_run(output_dir, scaled=scaled)
    hook.on_train_start(run)
    for loss, gradient in zip(losses, gradients or [1.0] * len(losses), strict=True):
        rank = distributed.rank()
        run.batch = Batch([], torch.empty(0), torch.tensor([10 * run.step + rank]))
        run.losses = {"loss": torch.tensor(loss, requires_grad=True), "part": torch.tensor(1.0)}
        run.model.weight.grad = torch.full((1, 1), gradient)
        hook.on_backward_end(run)
        run.step, run.position = run.step + 1, run.position + 1
        run.epoch = run.step // STEPS_PER_EPOCH
    hook.on_save_start(run)


@pytest.mark.parametrize("bad", [NAN, float("inf"), -float("inf")])
@pytest.mark.parametrize("bad_step", [1, 3, 6, 7, 12])
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_the_step_that_is_not_finite_is_named_before_its_update(bad, bad_step, where, tmp_path):
    values = [1.0] * 12
    values[bad_step - 1] = bad
    both = (values, None) if where == "loss" else ([1.0] * 12, values)
    with pytest.raises(DivergedError) as error:
        train(tmp_path, *both)
    epoch = 1 + (bad_step - 1) // STEPS_PER_EPOCH
    rate = f"{0.5 + POSITION + bad_step - 1:.3g}"
    assert f" at step {bad_step} (epoch {epoch}, learning rate {rate})" in str(error.value)
    told = json.loads((tmp_path / "not_finite.json").read_text())
    assert (told["step"], told["epoch"], f"{told['lr']:.3g}") == (bad_step, epoch, rate)
    assert told["images"] == {str(10 * (bad_step - 1)): f"{10 * (bad_step - 1)}.jpg"}
    assert told["losses"] == [{"loss": str(bad) if where == "loss" else 1.0, "part": 1.0}]
    assert told["gradients_not_finite"] == (["weight"] if where == "gradient" else [])


def test_a_finite_training_goes_on(tmp_path):
    values = [0.0, -1.0, 1e18, -1e18, 1e-45, 3.0] * 2
    train(tmp_path, values, values)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("num_bad", "stops"), [(2, False), (3, True)])
def test_under_the_scaler_a_few_bad_steps_in_a_row_are_left_out(num_bad, stops, tmp_path):
    gradients = [1.0, *[NAN] * 2, 1.0, *[NAN] * num_bad, 1.0]
    if not stops:
        train(tmp_path, [1.0] * len(gradients), gradients, scaled=True)
        return
    with pytest.raises(DivergedError, match=" at step 7 "):
        train(tmp_path, [1.0] * len(gradients), gradients, scaled=True)


def bad_on_the_second_rank(folder: str) -> str:
    """The first rank's loss is finite; returns what it says."""
    losses = [1.0, 1.0, NAN if distributed.rank() == 1 else 1.0]
    try:
        train(Path(folder), losses)
    except DivergedError as error:
        return str(error)
    return "nothing"


def test_all_ranks_stop_at_the_same_step(tmp_path):
    first, second = run_on_ranks(bad_on_the_second_rank, 2, str(tmp_path))
    assert first == second and re.search(" at step 3 ", first)
    told = json.loads((tmp_path / "not_finite.json").read_text())
    assert [losses["loss"] for losses in told["losses"]] == [1.0, "nan"]
    assert set(told["images"]) == {"20", "21"}
