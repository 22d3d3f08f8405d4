"""A training run, and the moments of it that its parts hear of."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import Batch
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.loading.sampler import ShuffledSampler
from ssl_platform.metrics import Metric
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.resharding import reshard


class Events:
    """Listener to all seven moments.

    A listener that adds something up over several steps gives it out by ``state_dict`` and takes it
    back by ``load_state_dict``, so that a run that is resumed in the middle of an epoch ends as an
    unbroken one. The names are those of `torch.nn.Module`: a loss has both already.

    Attributes:
        enabled: false for a hook that its options leave out of the run.
        comes_first: true for a hook that hears of each moment before the other hooks.
        comes_last: true for a hook that reports what the other hooks measured; it hears after them.
    """

    enabled = True
    comes_first = False
    comes_last = False

    def probe(self, train: ImageDataset, val: ImageDataset | None) -> None:
        """Find out before a run that these images are of no use to it.

        Raises:
            ValueError: why; the message begins with the key.
        """

    def probe_model(self, model: SSLModel, loss: "Loss") -> None:
        """Find out before a run that a hook is of no use to it; called in each check of a config.

        Args:
            model: as the run will have it, on torch's meta device.
            loss: likewise.

        Raises:
            ValueError: each line of the message begins with the option at fault.
        """

    def on_train_start(self, run: "Run") -> None:
        """After resuming, before the first epoch of this process."""

    def on_epoch_start(self, run: "Run") -> None:
        """Before the first batch of an epoch, the model in train mode.

        When a run is resumed in the middle of an epoch, a listener that has a state does not hear
        it again; one that has none does, with ``run.epoch_images > 0``.
        """

    def on_backward_end(self, run: "Run") -> None:
        """Gradients are averaged over ranks and not yet used."""

    def on_step_end(self, run: "Run") -> None:
        """The parameters are updated; ``run.losses`` and ``run.outputs`` are of this step."""

    def on_epoch_end(self, run: "Run") -> None:
        """After the last batch of an epoch, before its checkpoint is written."""

    def on_save_start(self, run: "Run") -> None:
        """Before a checkpoint is written, on all ranks; to raise is to prevent it."""

    def on_train_end(self, run: "Run") -> None:
        """After the last checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """What this rank has to remember: tensors and plain values, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Take back what ``state_dict`` gave, before ``on_train_start``; tensors on the device.

        Where the number of ranks has changed, every rank is given the state of the first.
        """


class Loss(nn.Module, Events):
    """Base of all losses. Subclasses are final.

    State rule: persistent buffers are equal on all ranks; a buffer registered with
    ``persistent=False`` belongs to its rank and is saved per rank. What is no tensor and has to
    outlive a kill in the middle of an epoch is given out by ``get_extra_state``. A loss has no
    parameters: what is learned lies in the model.

    Attributes:
        row_dims: of each buffer that ranks own, the dimension along which its samples lie.
        uniform_loss: the loss of a model that predicts every class or prototype equally, where that
            is a meaningful mark (ln K): a training that stays there has learned nothing.
        assignments: (sets of prototypes, num_samples) int64, the labels that this epoch trains on,
            equal on all ranks; -100 where a sample has none. None for a method that assigns
            batch by batch.
    """

    row_dims: ClassVar[Mapping[str, int]] = {}
    uniform_loss: float | None = None
    assignments: Tensor | None

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("assignments", None)

    @abstractmethod
    def forward(self, model: SSLModel, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """Return the losses of a batch, scalars: ``"loss"`` is minimised, the rest is for hooks."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "deal_out" in vars(cls):
            cls.reshard = cls.deal_out  # type: ignore[method-assign]

    def reshard(self, name: str, parts: Sequence[Tensor], *, batch_size: int) -> Tensor:
        """This rank's value of a rank-owned buffer that another number of ranks has left.

        By default the buffer holds one row per sample, step by step, a rank's batch for each. The
        rows of all ranks are put together to the steps' total batches, which are then split anew:
        the result is what these ranks would have written themselves.

        Args:
            name: of the buffer.
            parts: its values on those ranks, in their order.
            batch_size: of this rank.

        Raises:
            ValueError: the loss does not say how the buffer is laid out.
        """
        if name not in self.row_dims:
            raise ValueError(f"{type(self).__name__} does not say how {name} is dealt out to ranks")
        world_size = distributed.world_size()
        dim = self.row_dims[name]
        parts = reshard(parts, dim=dim, num_rows=batch_size, world_size=world_size)
        return parts[distributed.rank()]

    deal_out = reshard  # its name in plug-ins of before

    def fitted(self, name: str, value: Tensor) -> Tensor:
        """A rank-owned buffer that a run of another batch or data set has left, for this run.

        By default it is as it was: one of another size is refused.
        """
        return value


@dataclass
class Run:
    """One training run: what it is made of, and how far it got. It holds no config on purpose."""

    name: str
    model: SSLModel
    loss: Loss
    train_loader: Loader
    train_sampler: ShuffledSampler
    train_data: ImageDataset
    val_data: ImageDataset | None  #: labelled images to evaluate on
    eval_loader: Callable[[ImageDataset, np.ndarray], Loader]  #: centre crops of some positions
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]  #: learning rate at a position
    hooks: Mapping[str, Events]  #: by their name in the config, in the order in which they hear
    metrics: Mapping[str, Metric]  #: scores of an evaluation, by name
    output_dir: Path
    num_epochs: int
    device: torch.device
    autocast_dtype: torch.dtype | None  #: of the model's forward pass; None computes in float32
    epoch: int = 0  #: finished epochs
    epoch_step: int = 0  #: finished steps of the epoch under way
    epoch_images: int = 0  #: finished images of the epoch under way, over all ranks
    step: int = 0  #: finished steps, over all epochs; a number that never comes twice
    batch: Batch | None = None  #: of the latest step
    losses: dict[str, Tensor] = field(default_factory=dict)  #: of the latest step
    outputs: dict[str, Any] = field(default_factory=dict)  #: of the latest step, by head
    report: dict[str, float] = field(default_factory=dict)  #: measured by hooks, not yet logged
    results: dict[str, Any] = field(default_factory=dict)  #: what the run returns

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
