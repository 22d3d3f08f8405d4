"""The training loop. It knows batches, losses and events, and no loss or hook by name."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ssl_platform import checkpoint, distributed
from ssl_platform.checkpoint import CheckpointOptions
from ssl_platform.data.batch import Batch
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loader import Loader
from ssl_platform.data.sampler import ShuffledSampler
from ssl_platform.events import Events
from ssl_platform.losses.base import Loss
from ssl_platform.metrics import Metric
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.progress import report_step


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
    schedule: Callable[[int], float]  # learning rate of a step
    hooks: list[Events]
    metrics: Mapping[str, Metric]  # scores of an evaluation, by name
    output_dir: Path
    num_epochs: int
    checkpoint: CheckpointOptions
    device: torch.device
    autocast_dtype: torch.dtype | None  # of the model's forward pass; None computes in float32
    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps, over all epochs
    batch: Batch | None = None  # of the latest step
    losses: dict[str, Tensor] = field(default_factory=dict)  # of the latest step
    outputs: dict[str, Any] = field(default_factory=dict)  # of the latest step, by head
    report: dict[str, float] = field(default_factory=dict)  # measured by hooks, not yet logged
    results: dict[str, Any] = field(default_factory=dict)  # what the run returns

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.autocast_dtype == torch.float16
        )

    def fire(self, event: str) -> None:
        """Tell the loss, then every hook in order, that ``event`` happened."""
        for listener in (self.loss, *self.hooks):
            getattr(listener, event)(self)


def train(run: Run) -> dict[str, Any]:
    """Train from where ``run`` stands to its last epoch, and return its results."""
    replica = distributed.replicate(run.model)
    checkpoint.resume(run)
    run.fire("on_train_start")
    while run.epoch < run.num_epochs:
        train_epoch(replica, run)
        run.epoch += 1
        run.fire("on_epoch_end")
        if checkpoint.is_due(run):
            checkpoint.save(run)  # last, so that hooks cannot move the saved random state
    run.fire("on_train_end")
    return run.results


def train_epoch(replica: nn.Module, run: Run) -> None:
    replica.train()
    run.train_sampler.set_epoch(run.epoch)
    run.fire("on_epoch_start")
    for batch in run.train_loader:
        train_step(replica, batch, run)


def train_step(replica: nn.Module, batch: Batch, run: Run) -> None:
    """One update: learning rate, forward, backward, optimizer."""
    run.batch = batch
    for group in run.optimizer.param_groups:
        group["lr"] = run.schedule(run.step)
    with torch.autocast(
        run.device.type, run.autocast_dtype, enabled=run.autocast_dtype is not None
    ):
        run.outputs = replica(batch.crops)
    run.losses = run.loss(run.model, run.outputs, batch)
    run.optimizer.zero_grad(set_to_none=True)
    run.scaler.scale(run.losses["loss"]).backward()
    run.scaler.unscale_(run.optimizer)
    run.fire("on_backward_end")
    run.scaler.step(run.optimizer)
    run.scaler.update()
    run.step += 1
    report_step(run.step)
    run.fire("on_step_end")
