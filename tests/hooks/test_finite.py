import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from ssl_platform.errors import DivergedError
from ssl_platform.hooks.finite import StopWhenNotFinite

STEPS_PER_EPOCH = 6


def train(losses: list[float], every_steps: int) -> None:
    """Fire the events of a training whose steps have these losses, in epochs of six steps."""
    hook = StopWhenNotFinite(every_steps=every_steps)
    run = SimpleNamespace(
        device=torch.device("cpu"),
        schedule=lambda step: 0.5 + step,
        output_dir=Path("some") / "run",
        epoch=0,
        step=0,
    )
    hook.on_train_start(run)
    for loss in losses:
        if run.step % STEPS_PER_EPOCH == 0:
            hook.on_epoch_start(run)
        run.losses = {"loss": torch.tensor(loss, requires_grad=True)}
        run.step += 1
        hook.on_step_end(run)
        if run.step % STEPS_PER_EPOCH == 0:
            run.epoch += 1
            hook.on_epoch_end(run)


@pytest.mark.parametrize("every_steps", [1, 4, 6, 100])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("bad_step", [1, 3, 4, 6, 7, 12])
def test_the_first_step_that_is_not_finite_is_named(bad, bad_step, every_steps):
    losses = [1.0] * 12
    losses[bad_step - 1] = bad
    with pytest.raises(DivergedError, match=rf" at step {bad_step} \(epoch ") as error:
        train(losses, every_steps)
    assert f"learning rate {0.5 + bad_step - 1:.3g})" in str(error.value)
    assert str(Path("some") / "run" / "checkpoints") in str(error.value)


def test_of_several_bad_steps_the_first_is_named():
    losses = [1.0, 1.0, float("inf"), float("nan"), 1.0, float("nan")]
    with pytest.raises(DivergedError, match=" at step 3 "):
        train(losses, every_steps=6)


@pytest.mark.parametrize("bad_step", [1, 6, 7])
def test_the_epoch_that_is_named_does_not_depend_on_when_the_device_is_asked(bad_step):
    losses = [1.0] * 12
    losses[bad_step - 1] = float("nan")
    epochs = set()
    for every_steps in (1, 100):  # at once, or at the end of the epoch
        with pytest.raises(DivergedError) as error:
            train(losses, every_steps)
        epochs |= set(re.findall(r"\(epoch (\d+),", str(error.value)))
    assert len(epochs) == 1


@pytest.mark.parametrize("every_steps", [1, 4, 100])
def test_a_finite_training_goes_on(every_steps):
    highest = torch.finfo(torch.float32).max
    train([0.0, -1.0, highest, -highest, 1e-45, 3.0] * 2, every_steps)


@pytest.mark.parametrize("every_steps", [0, -1])
def test_never_asking_is_refused(every_steps):
    with pytest.raises(ValueError, match=rf"^every_steps={every_steps}: at least 1$"):
        StopWhenNotFinite(every_steps=every_steps)
