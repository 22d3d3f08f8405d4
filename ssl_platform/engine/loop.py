"""The training loop. It knows batches, losses and events, and no loss or hook by name."""

from collections.abc import Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.config.options import ResumeOptions
from ssl_platform.data.batch import Batch
from ssl_platform.engine import state
from ssl_platform.engine.run import Loss, Run
from ssl_platform.engine.saver import Saver
from ssl_platform.engine.stopping import StopSignals, stop_error
from ssl_platform.errors import ConfigError, kind_of
from ssl_platform.launch.progress import report_step


def train(run: Run, saver: Saver, resume: ResumeOptions) -> dict[str, Any]:
    """Train from where ``run`` stands to its last epoch, and return its results.

    Raises:
        ConfigError: there is no room for a checkpoint.
        StopRequested: a rank was sent a stop signal; a checkpoint is written.
        DivergedError, CheckpointError, DataError: the training cannot go on.
    """
    size = run.train_loader.transform.crop_sizes[0]
    replica = distributed.replicate(run.model, [torch.zeros(1, 3, size, size, device=run.device)])
    state.resume(run, resume)
    if run.epoch < run.num_epochs:
        saver.check_room(run)
    run.fire("on_train_start")
    with StopSignals() as stop:
        while run.epoch < run.num_epochs:
            train_epoch(replica, run, saver, stop)
    run.fire("on_train_end")
    return run.results


def train_epoch(replica: nn.Module, run: Run, saver: Saver, stop: StopSignals) -> None:
    """Train an epoch, or the rest of one that was interrupted."""
    replica.train()
    run.train_sampler.set_epoch(run.epoch, run.epoch_images)
    start_epoch(run)
    for batch in run.train_loader:
        train_step(replica, batch, run)
        if run.epoch_step < run.train_sampler.steps_per_epoch:
            between_steps(run, saver, stop)
    run.epoch, run.epoch_step, run.epoch_images = run.epoch + 1, 0, 0
    run.fire("on_epoch_end")
    run.report.clear()  # every hook has had it, also where none has written it
    between_steps(run, saver, stop)  # last, so that hooks cannot move the saved random state


def start_epoch(run: Run) -> None:
    """Fire ``on_epoch_start``; of an epoch that goes on, only for listeners without a state."""
    for listener in run.listeners:
        if run.epoch_images == 0 or not listener.state_dict():
            listener.on_epoch_start(run)


def train_step(replica: nn.Module, batch: Batch, run: Run) -> None:
    """One update: learning rate, forward, backward, optimizer, teacher."""
    run.batch = batch
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule(run.position) * group.get("lr_scale", 1.0)
    with torch.autocast(
        run.device.type, run.autocast_dtype, enabled=run.autocast_dtype is not None
    ):
        outputs = distributed.outputs_of(replica, batch.crops, run.model)
        run.outputs = run.model.with_teacher(outputs, batch.crops)
    run.losses = check_losses(run.loss, run.loss(run.model, run.outputs, batch))
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(run.losses["loss"]).backward()
    run.scaler.unscale_(run.optimizer)
    run.fire("on_backward_end")
    scale = run.scaler.get_scale()
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if run.scaler.get_scale() >= scale:  # else float16 has overflowed: the step was skipped
        run.model.update_teacher()
    run.step, run.epoch_step = run.step + 1, run.epoch_step + 1
    run.epoch_images += run.train_sampler.batch_size
    report_step(run.step)
    run.fire("on_step_end")


def between_steps(run: Run, saver: Saver, stop: StopSignals) -> None:
    """Save when it is due, and stop when any rank was asked to."""
    is_over = run.epoch == run.num_epochs
    agreed = run.agree(
        greatest={"stop_signal": stop.number, "periods": saver.periods()},
        least={"num_written": saver.num_written},
    )
    signal, periods = agreed["stop_signal"], agreed["periods"]
    saver.commit_if_written(agreed["num_written"])
    if signal or is_over or saver.is_due(run, periods):
        saver.save(run, periods)
    if signal or is_over:
        saver.close(must_succeed=is_over)
    if signal and not is_over:
        raise stop_error(signal, run.step)


def check_losses(loss: Loss, losses: Any) -> dict[str, Tensor]:
    """The losses of a batch as scalar tensors, after a check of what the loss has returned.

    Raises:
        ConfigError: there is no loss to minimise, or a value is not one number.
    """
    wanted = 'forward() has to give {"loss": a tensor with one number and a gradient, ...}'
    name = type(loss).__name__
    if not isinstance(losses, Mapping):
        raise ConfigError([f"loss: {name} gave {kind_of(losses)}; {wanted}"])
    if "loss" not in losses:
        raise ConfigError([f"loss: {name} gave {sorted(map(str, losses))}; {wanted}"])
    value = losses["loss"]
    if not isinstance(value, Tensor) or value.numel() != 1 or not value.is_floating_point():
        raise ConfigError([f"loss: {name} gave {kind_of(value)} as loss; {wanted}"])
    if not value.requires_grad:
        raise ConfigError(
            [f"loss: {name} gave a loss without a gradient, of no trained weight; {wanted}"]
        )
    for key, other in losses.items():
        is_number = isinstance(other, Real) or (isinstance(other, Tensor) and other.numel() == 1)
        if not is_number:
            raise ConfigError([f"loss: {name} gave {kind_of(other)} as {key}; one number each"])
    return {
        str(key): torch.as_tensor(other, device=value.device).reshape(())
        for key, other in losses.items()
    }
