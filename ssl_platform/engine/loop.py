"""The training loop. It knows batches, losses and events, and no loss or hook by name."""

from contextlib import ExitStack, nullcontext
from typing import Any

from ssl_platform.config.options import ResumeOptions
from ssl_platform.console.working import WATCH, working
from ssl_platform.data.batch import Batch
from ssl_platform.engine import state
from ssl_platform.engine.gradients import clip_gradients, compute_gradients, tell_of_micro_batches
from ssl_platform.engine.run import Run
from ssl_platform.engine.saver import Saver
from ssl_platform.engine.stopping import StopSignals, stop_error
from ssl_platform.launch.progress import report_step


def train(run: Run, saver: Saver, resume: ResumeOptions) -> dict[str, Any]:
    """Train from where ``run`` stands to its last epoch, and return its results.

    Raises:
        ConfigError: there is no room for a checkpoint.
        StopRequested: a rank was sent a stop signal; a checkpoint is written.
        DivergedError, CheckpointError, DataError: the training cannot go on.
    """
    with working("looking for a checkpoint to go on from"):
        state.resume(run, resume)
    if run.epoch < run.num_epochs:
        saver.check_room(run)
        set_scheduled(run)  # what listeners do before the first step has its values too
    tell_of_micro_batches(run)
    with run.loggers.closing(run.results):
        run.fire("on_train_start")
        run.loggers.start(run.info())
        with StopSignals() as stop:
            while run.epoch < run.num_epochs:
                train_epoch(run, saver, stop)
        run.fire("on_train_end")
    return run.results


def train_epoch(run: Run, saver: Saver, stop: StopSignals) -> None:
    """Train an epoch, or the rest of one that was interrupted."""
    run.replica.train()
    run.train_sampler.set_epoch(run.epoch, run.epoch_images)
    start_epoch(run)
    with ExitStack() as until_first:
        until_first.enter_context(working("waiting for the first images of the epoch"))
        for batch in run.train_loader:
            until_first.close()
            is_first = run.batch is None  # of this process: kernels are chosen, code is compiled
            with working("computing the first step") if is_first else nullcontext():
                train_step(batch, run)
            if run.epoch_step < run.train_sampler.steps_per_epoch:
                between_steps(run, saver, stop)
    run.epoch, run.epoch_step, run.epoch_images = run.epoch + 1, 0, 0
    run.fire("on_epoch_end")
    run.report.clear()  # every hook has had it, also where none has written it
    between_steps(run, saver, stop)  # last, so that hooks cannot move the saved random state


def start_epoch(run: Run) -> None:
    """Fire ``on_epoch_start``; of an epoch that goes on, only for listeners without a state."""
    set_scheduled(run)
    for name, listener in run.named_listeners():
        if run.epoch_images == 0 or not listener.state_dict():
            run.tell(name, listener, "on_epoch_start")


def train_step(batch: Batch, run: Run) -> None:
    """One update: scheduled values, gradients, optimizer, teacher."""
    run.batch = batch
    set_scheduled(run)
    run.optimizer.zero_grad(set_to_none=True)
    compute_gradients(batch, run)
    run.scaler.unscale_(run.optimizer)
    run.fire("on_backward_end")
    clip_gradients(run)  # without those that the loss has just dropped
    update_weights(run)
    run.step, run.epoch_step = run.step + 1, run.epoch_step + 1
    run.epoch_images += run.train_sampler.batch_size
    report_step(run.step)
    WATCH.heard()
    run.fire("on_step_end")
    run.loggers.step(run.step)


def update_weights(run: Run) -> None:
    """The optimizer's step, then the teacher's; neither where float16 has overflowed."""
    teacher = run.model.teacher
    scale = run.scaler.get_scale() if teacher is not None else 0.0  # on a GPU the host waits for it
    run.scaler.step(run.optimizer)
    run.scaler.update()
    if teacher is not None and run.scaler.get_scale() >= scale:  # less where a step was skipped
        teacher.update(run.model)


def set_scheduled(run: Run) -> None:
    """Set the learning rate, and all else that has a schedule, to the values of the position."""
    rate = run.schedule(run.position)
    for group in run.optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
    run.scheduled = {key: option.set_at(run.position) for key, option in run.schedules.items()}


def between_steps(run: Run, saver: Saver, stop: StopSignals) -> None:
    """Save when it is due, and stop when any rank was asked to.

    Raises:
        StopRequested: after a checkpoint was written.
    """
    is_over = run.epoch == run.num_epochs
    agreed = run.agree(
        greatest={"stop_signal": stop.number, "periods": saver.periods()},
        least={"num_written": saver.num_written},
    )
    signal, periods = agreed["stop_signal"], agreed["periods"]
    saver.commit_if_written(agreed["num_written"])
    if signal or is_over or saver.is_due(run, periods):
        with working("saving a checkpoint"):
            saver.save(run, periods)
            if signal or is_over:
                saver.close(must_succeed=is_over)
    if signal and not is_over:
        raise stop_error(signal, run.step)
