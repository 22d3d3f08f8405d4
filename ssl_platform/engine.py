"""The training loop. It knows batches, losses and events, and no loss or hook by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_platform import distributed, run_state
from ssl_platform.data.batch import Batch
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loader import Loader
from ssl_platform.data.sampler import ShuffledSampler
from ssl_platform.events import Events
from ssl_platform.losses.base import Loss, check_losses
from ssl_platform.metrics import Metric
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.progress import report_step
from ssl_platform.run_state import ResumeOptions
from ssl_platform.saver import Saver
from ssl_platform.stopping import StopSignals, stop_error


@dataclass
class Run:
    """One training run: what it is made of, and how far it got. It holds no config on purpose."""

    name: str
    model: SSLModel
    loss: Loss
    train_loader: Loader
    train_sampler: ShuffledSampler
    train_data: ImageDataset
    val_data: ImageDataset | None  # labelled images to evaluate on
    eval_loader: Callable[[ImageDataset, np.ndarray], Loader]  # centre crops of some positions
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]  # learning rate at a position
    hooks: Mapping[str, Events]  # by their name in the config, in the order in which they hear
    metrics: Mapping[str, Metric]  # scores of an evaluation, by name
    output_dir: Path
    num_epochs: int
    saver: Saver
    resume: ResumeOptions
    device: torch.device
    autocast_dtype: torch.dtype | None  # of the model's forward pass; None computes in float32
    epoch: int = 0  # finished epochs
    epoch_step: int = 0  # finished steps of the epoch under way
    epoch_images: int = 0  # finished images of the epoch under way, over all ranks
    step: int = 0  # finished steps, over all epochs; a number that never comes twice
    batch: Batch | None = None  # of the latest step
    losses: dict[str, Tensor] = field(default_factory=dict)  # of the latest step
    outputs: dict[str, Any] = field(default_factory=dict)  # of the latest step, by head
    report: dict[str, float] = field(default_factory=dict)  # measured by hooks, not yet logged
    results: dict[str, Any] = field(default_factory=dict)  # what the run returns

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.autocast_dtype == torch.float16
        )
        self.agree = distributed.Agreement(self.device)
        self.data_fingerprint = self.train_data.fingerprint()  # takes a while for many files
        self.data_sample = self.train_data.sample()

    @property
    def listeners(self) -> tuple[Events, ...]:
        return (self.loss, *self.hooks.values())

    @property
    def position(self) -> int:
        """How far the training is, in steps of its present epochs.

        It is ``step`` as long as all epochs have equally many steps. Where a run goes on with
        another batch or data set they have not, and what depends on how far the training is, the
        learning rate first, goes by this.
        """
        return self.epoch * self.train_sampler.steps_per_epoch + self.epoch_step

    def fire(self, event: str) -> None:
        """Tell the loss, then every hook in order, that ``event`` happened."""
        for listener in self.listeners:
            getattr(listener, event)(self)


def train(run: Run) -> dict[str, Any]:
    """Train from where ``run`` stands to its last epoch, and return its results.

    Raises:
        ConfigError: there is no room for a checkpoint.
        StopRequested: a rank was sent a stop signal; a checkpoint is written.
        DivergedError, CheckpointError, DataError: the training cannot go on.
    """
    size = run.train_loader.transform.crop_sizes[0]
    replica = distributed.replicate(run.model, [torch.zeros(1, 3, size, size, device=run.device)])
    run_state.resume(run)
    if run.epoch < run.num_epochs:
        run.saver.check_room(run)
    run.fire("on_train_start")
    with StopSignals() as stop:
        while run.epoch < run.num_epochs:
            train_epoch(replica, run, stop)
    run.fire("on_train_end")
    return run.results


def train_epoch(replica: nn.Module, run: Run, stop: StopSignals) -> None:
    """An epoch, or what is left of one that was interrupted."""
    replica.train()
    run.train_sampler.set_epoch(run.epoch, run.epoch_images)
    start_epoch(run)
    for batch in run.train_loader:
        train_step(replica, batch, run)
        if run.epoch_step < run.train_sampler.steps_per_epoch:
            between_steps(run, stop)
    run.epoch, run.epoch_step, run.epoch_images = run.epoch + 1, 0, 0
    run.fire("on_epoch_end")
    run.report.clear()  # all have heard, whether one of them writes it or not
    between_steps(run, stop)  # last, so that hooks cannot move the saved random state


def start_epoch(run: Run) -> None:
    """Tell of a new epoch; of one that goes on, those alone that remember nothing of it."""
    for listener in run.listeners:
        if run.epoch_images == 0 or not listener.state_dict():
            listener.on_epoch_start(run)


def train_step(replica: nn.Module, batch: Batch, run: Run) -> None:
    """One update: learning rate, forward, backward, optimizer."""
    run.batch = batch
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule(run.position) * group.get("lr_scale", 1.0)
    with torch.autocast(
        run.device.type, run.autocast_dtype, enabled=run.autocast_dtype is not None
    ):
        run.outputs = distributed.outputs_of(replica, batch.crops, run.model)
    run.losses = check_losses(run.loss, run.loss(run.model, run.outputs, batch))
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(run.losses["loss"]).backward()
    run.scaler.unscale_(run.optimizer)
    run.fire("on_backward_end")
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step, run.epoch_step = run.step + 1, run.epoch_step + 1
    run.epoch_images += run.train_sampler.batch_size
    report_step(run.step)
    run.fire("on_step_end")


def between_steps(run: Run, stop: StopSignals) -> None:
    """Save when it is time to, and leave when any rank was asked to."""
    saver, is_over = run.saver, run.epoch == run.num_epochs
    # the least of the ranks' numbers is the greatest of the negative ones
    number, periods, written = run.agree(stop.number, saver.periods(), -saver.num_written)
    saver.commit_what_is_written(-written)
    if number or is_over or saver.is_due(run, periods):
        saver.save(run, periods)
    if number or is_over:
        saver.close(must_succeed=is_over)
    if number and not is_over:
        raise stop_error(number, run.step)
