"""How far a run is, kept and taken up again, also where its epochs are made of other steps now."""

import logging
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ssl_platform.engine.run import Run

logger = logging.getLogger(__name__)


def position_state(run: Run) -> dict[str, Any]:
    """What a checkpoint keeps of it: how far the run is, and what that counts in."""
    return {
        "epoch": run.epoch,
        "epoch_step": run.epoch_step,
        "epoch_images": run.epoch_images,
        "step": run.step,
        "num_images": run.train_sampler.num_samples,
        "length": _length_of(run),
    }


def take_position(run: Run, state: Mapping[str, Any]) -> None:
    """Stand where a checkpoint was written, whatever its epochs were made of.

    The images of its epoch that are done stay done; where the images are other ones, as great a
    part of them. The steps of the epoch follow from that.
    """
    sampler = run.train_sampler
    run.epoch, run.step = state["epoch"], state["step"]
    run.epoch_images = round(_share_done(run, state) * sampler.num_samples)
    run.epoch_step = sampler.steps_per_epoch - sampler.steps_after(run.epoch_images)


def _share_done(run: Run, state: Mapping[str, Any]) -> Fraction:
    """The part of its epoch's images that a checkpoint has behind it."""
    if "epoch_images" in state:
        return Fraction(state["epoch_images"], state["num_images"])
    sampler, epoch_step = run.train_sampler, state["epoch_step"]
    steps = _old_steps_per_epoch(run, state)
    if steps == sampler.steps_per_epoch:
        return min(Fraction(1), Fraction(epoch_step * sampler.batch_size, sampler.num_samples))
    return Fraction(epoch_step, steps)


def _old_steps_per_epoch(run: Run, state: Mapping[str, Any]) -> int:
    """An old checkpoint tells it by the epochs that are over; before there are any, as today."""
    epoch, sampler = state["epoch"], run.train_sampler
    return (state["step"] - state["epoch_step"]) // epoch if epoch else sampler.steps_per_epoch


def change_of_length(run: Run, state: Mapping[str, Any]) -> str:
    """What the training is made of before and now, in words; nothing where that is the same.

    Of an old checkpoint, the number of epochs is not known, and counts as the same.
    """
    now, before = _length_of(run), state.get("length")
    if before is None:
        steps = _old_steps_per_epoch(run, state)
        told = f"epochs of {steps} steps"
        return "" if steps == now["steps_per_epoch"] else f"{told} before, {_in_words(now)} now"
    return "" if before == now else f"{_in_words(before)} before, {_in_words(now)} now"


def tell_of_another_schedule(run: Run, state: Mapping[str, Any]) -> None:
    """Say in a line what becomes of the learning rate where it goes on otherwise than before.

    Args:
        run: at its position, with steps to come.
        state: of the checkpoint, with that of its ``optimizer``.
    """
    change, length = change_of_length(run, state), _length_of(run)
    rate_before = state["optimizer"]["param_groups"][0]["lr"]
    scale = run.optimizer.param_groups[0].get("lr_scale", 1.0)
    last, here, end = (
        scale * run.schedule(position)
        for position in (max(0, run.position - 1), run.position, _num_steps(length) - 1)
    )
    if run.step == 0 or (not change and rate_before == last):
        return
    logger.info(
        "the schedule is another (%s): lr %.3g at the step before, %.3g at the next (epoch %d), "
        "%.3g at the last",
        change or f"{_in_words(length)}, other rates",
        rate_before,
        here,
        run.epoch + 1,
        end,
    )


def _length_of(run: Run) -> dict[str, int]:
    steps_per_epoch = run.train_sampler.steps_per_epoch
    return {"num_epochs": run.num_epochs, "steps_per_epoch": steps_per_epoch}


def _num_steps(length: Mapping[str, int]) -> int:
    return length["num_epochs"] * length["steps_per_epoch"]


def _in_words(length: Mapping[str, int]) -> str:
    return f"{length['num_epochs']} epochs of {length['steps_per_epoch']} steps"
