"""The position of a run: saved, and restored also where an epoch has another number of steps."""

import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ssl_platform.engine.run import Run

logger = logging.getLogger(__name__)


def position_state(run: Run) -> dict[str, Any]:
    """The position for a checkpoint, with the number of images, epochs and steps per epoch."""
    return {
        "epoch": run.epoch,
        "epoch_step": run.epoch_step,
        "epoch_images": run.epoch_images,
        "step": run.step,
        "num_images": run.train_sampler.num_samples,
        "length": _length_of(run),
        **({"scheduled": run.scheduled} if run.scheduled else {}),
    }


def restore_position(run: Run, state: Mapping[str, Any]) -> None:
    """Go to the position of a checkpoint, also if its epochs had another number of steps.

    The images that its epoch has seen count as seen; of another number of images, the same share.
    The step of the epoch follows from that.
    """
    sampler = run.train_sampler
    run.epoch, run.step = state["epoch"], state["step"]
    run.epoch_images = round(_share_done(run, state) * sampler.num_samples)
    run.epoch_step = sampler.steps_per_epoch - sampler.steps_after(run.epoch_images)


def _share_done(run: Run, state: Mapping[str, Any]) -> Fraction:
    """The share of its epoch's images that a checkpoint has seen."""
    if "epoch_images" in state:
        return Fraction(state["epoch_images"], state["num_images"])
    sampler, epoch_step = run.train_sampler, state["epoch_step"]
    steps = _old_steps_per_epoch(run, state)
    if steps == sampler.steps_per_epoch:
        return min(Fraction(1), Fraction(epoch_step * sampler.batch_size, sampler.num_samples))
    return Fraction(epoch_step, steps)


def _old_steps_per_epoch(run: Run, state: Mapping[str, Any]) -> int:
    """Of an old checkpoint, by its finished epochs; as today if it has none."""
    epoch, sampler = state["epoch"], run.train_sampler
    return (state["step"] - state["epoch_step"]) // epoch if epoch else sampler.steps_per_epoch


def change_of_length(run: Run, state: Mapping[str, Any]) -> str:
    """The numbers of epochs and steps before and now, in words; empty if they are the same.

    An old checkpoint does not have the number of epochs, which counts as the same.
    """
    now = _length_of(run)
    before = state.get("length") or {"steps_per_epoch": _old_steps_per_epoch(run, state)}
    return "" if now == now | before else f"{_in_words(before)} before, {_in_words(now)} now"


def say_how_the_schedule_changes(run: Run, state: Mapping[str, Any]) -> None:
    """Log one line where the learning rate goes on differently than the checkpoint's run would.

    Args:
        run: at its position, with steps to come.
        state: of the checkpoint, with that of its ``optimizer``.
    """
    change, length = change_of_length(run, state), _length_of(run)
    num_steps = length["num_epochs"] * length["steps_per_epoch"]
    rate_before = state["optimizer"]["param_groups"][0]["lr"]
    group = run.optimizer.param_groups[0]
    scale = group.get("lr_scale", 1.0)
    previous, following, last = (
        scale * run.schedule(position)
        for position in (max(0, run.position - 1), run.position, num_steps - 1)
    )
    has_its_own = f"param_groups.{group.get('name')}.lr" in run.schedules
    if run.step == 0 or has_its_own or (not change and rate_before == previous):
        return
    logger.info(
        "the schedule is another (%s): lr %.3g at the step before, %.3g at the next (epoch %d), "
        "%.3g at the last",
        change or f"{_in_words(length)}, other rates",
        rate_before,
        following,
        run.epoch + 1,
        last,
    )


def say_how_scheduled_options_change(run: Run, state: Mapping[str, Any]) -> None:
    """Log a line for each option that goes on differently than the checkpoint's run would.

    Args:
        run: at its position, with steps to come.
        state: of the checkpoint.
    """
    for key, before in state.get("scheduled", {}).items():
        if key not in run.schedules:  # taken out, which the user has allowed
            continue
        value_at = run.schedules[key].schedule
        if before != value_at(max(0, run.position - 1)):
            logger.info(
                "schedules.%s is another: %.3g at the step before, %.3g at the next",
                key,
                before,
                value_at(run.position),
            )


def _length_of(run: Run) -> dict[str, int]:
    steps_per_epoch = run.train_sampler.steps_per_epoch
    return {"num_epochs": run.num_epochs, "steps_per_epoch": steps_per_epoch}


def _in_words(length: Mapping[str, int]) -> str:
    steps = f"epochs of {length['steps_per_epoch']} steps"
    return f"{length['num_epochs']} {steps}" if "num_epochs" in length else steps
