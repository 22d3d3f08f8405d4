"""A training run, and the events that its loss and hooks are called at."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.console.working import working
from ssl_platform.data.batch import Batch
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.loading.loader import Loader
from ssl_platform.data.loading.sampler import ShuffledSampler
from ssl_platform.engine.scheduled import Scheduled
from ssl_platform.loggers import RunInfo
from ssl_platform.loggers.group import LoggerGroup
from ssl_platform.metrics import Metric
from ssl_platform.models.network import Network
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.resharding import reshard

MOMENTS = {  # of the events at which listeners may take a while
    "on_train_start": "before the first step",
    "on_epoch_start": "before the epoch",
    "on_epoch_end": "after the epoch",
    "on_save_start": "before a checkpoint",
    "on_train_end": "at the end",
}


class Events:
    """Base of hooks: a method for each of the seven events of a training.

    A hook that adds figures up over several steps returns them from ``state_dict`` and restores
    them in ``load_state_dict``, so that a run that is resumed in the middle of an epoch ends as an
    unbroken one. The names are those of `torch.nn.Module`: a loss has both methods already.

    Attributes:
        enabled: false for a hook that its options leave out of the run.
        comes_first: true for a hook that is called before the other hooks.
        comes_last: true for a hook that is called after them, to report their figures.
        results: names of numbers that it adds to ``run.results``, for ``objective`` to choose from;
            shell patterns: ``knn.trained.*``.
    """

    enabled = True
    comes_first = False
    comes_last = False
    results: ClassVar[Sequence[str]] = ()

    def probe(self, train: ImageDataset, val: ImageDataset | None) -> None:
        """Refuse, before a run, images that the hook cannot use.

        Raises:
            ValueError: the reason; the message begins with the key.
        """

    def probe_model(self, model: SSLModel, loss: "Loss") -> None:
        """Refuse, in each check of a config, a model or a loss that the hook cannot use.

        Args:
            model: the model of the run, on torch's meta device.
            loss: its loss, on the same device.

        Raises:
            ValueError: each line of the message begins with the option at fault.
        """

    def on_train_start(self, run: "Run") -> None:
        """After resuming, before the first epoch of this process."""

    def on_epoch_start(self, run: "Run") -> None:
        """Before the first batch of an epoch, the model in train mode.

        When a run is resumed in the middle of an epoch, it is called again, with
        ``run.epoch_images > 0``, but only for a loss or a hook without a state.
        """

    def on_backward_end(self, run: "Run") -> None:
        """After the backward pass: the gradients are averaged over ranks, and not used yet."""

    def on_step_end(self, run: "Run") -> None:
        """After the update; ``run.losses`` and ``run.outputs`` are those of this step."""

    def on_epoch_end(self, run: "Run") -> None:
        """After the last batch of an epoch, before its checkpoint is written."""

    def on_save_start(self, run: "Run") -> None:
        """Before a checkpoint is written, on all ranks; an error prevents it."""

    def on_train_end(self, run: "Run") -> None:
        """After the last checkpoint."""

    def state_dict(self) -> dict[str, Any]:
        """The state of this rank for a checkpoint: tensors and plain values, by name."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> Any:
        """Restore a state from ``state_dict``, before ``on_train_start``; tensors on the device.

        If the number of ranks has changed, every rank gets the state of the first.
        """


class Loss(nn.Module, Events):
    """Base of all losses. Subclasses are final.

    State rule: persistent buffers are equal on all ranks; a buffer registered with
    ``persistent=False`` belongs to its rank and is saved per rank. Values that are no tensors and
    that a resumed run needs are returned by ``get_extra_state``. A loss has no parameters: the
    model has all that is learned.

    Attributes:
        row_dims: for each buffer that ranks own, the dimension of its samples.
        uniform_loss: the loss of a model that predicts every class or prototype equally, if that
            is a useful reference (ln K): a training that stays there has learned nothing.
        assignments: (sets of prototypes, num_samples) int64, the labels that this epoch trains on,
            equal on all ranks; -100 for a sample without one. None for a method that assigns
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
        """The losses of a batch, scalars: ``"loss"`` is minimised, the others are for hooks."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "deal_out" in vars(cls):
            cls.reshard = cls.deal_out  # type: ignore[method-assign]

    def reshard(self, name: str, parts: Sequence[Tensor], *, batch_size: int) -> Tensor:
        """This rank's value of a rank-owned buffer that another number of ranks has saved.

        By default the buffer holds one row per sample, and for each step the batch of its rank. The
        rows of all ranks are joined to the total batch of each step, which is then split again:
        the result is the buffer that this rank would have written itself.

        Args:
            name: of the buffer.
            parts: its values on the ranks that have saved it, in their order.
            batch_size: of this rank.

        Raises:
            ValueError: the buffer has no entry in ``row_dims``.
        """
        if name not in self.row_dims:
            raise ValueError(f"{type(self).__name__} does not say how {name} is dealt out to ranks")
        world_size = distributed.world_size()
        dim = self.row_dims[name]
        parts = reshard(parts, dim=dim, num_rows=batch_size, world_size=world_size)
        return parts[distributed.rank()]

    deal_out = reshard  # its name in older plug-ins

    def fitted(self, name: str, value: Tensor) -> Tensor:
        """Fit a rank-owned buffer to another batch or data set than it was saved with.

        By default it stays as it is, and one of another size is refused.
        """
        return value


@dataclass
class Run:
    """One training run: its parts and its position. It holds no config on purpose."""

    name: str
    model: SSLModel
    replica: nn.Module  #: the model, wrapped for the ranks; its forward pass is the training's
    loss: Loss
    train_loader: Loader
    train_sampler: ShuffledSampler
    train_data: ImageDataset
    val_data: ImageDataset | None  #: labelled images to evaluate on
    #: centre crops of some positions, or crops by another transform
    eval_loader: Callable[..., Loader]
    optimizer: torch.optim.Optimizer
    schedule: Callable[[int], float]  #: learning rate at a position
    schedules: Mapping[str, Scheduled]  #: those of other options, by the option's path
    hooks: Mapping[str, Events]  #: by their name in the config, in the order in which they hear
    metrics: Mapping[str, Metric]  #: scores of an evaluation, by name
    output_dir: Path
    num_epochs: int
    micro_batch: int | None  #: images of this rank that go through the model at once
    clip_grad_norm: float | None  #: the largest norm of all gradients together
    device: torch.device
    autocast_dtype: torch.dtype | None  #: of the model's forward pass; None computes in float32
    loggers: LoggerGroup = field(default_factory=LoggerGroup)  #: who hears figures and pictures
    evaluate: Literal["student", "teacher"] = "student"  #: which of the two hooks measure
    epoch: int = 0  #: finished epochs
    epoch_step: int = 0  #: finished steps of the epoch under way
    epoch_images: int = 0  #: finished images of the epoch under way, over all ranks
    step: int = 0  #: finished steps, over all epochs; a number that never comes twice
    grad_norm: Tensor | None = None  #: of the latest step, before it was clipped; None if never
    batch: Batch | None = None  #: of the latest step
    losses: dict[str, Tensor] = field(default_factory=dict)  #: of the latest step
    #: of the latest step, by head; those of a teacher under ``teacher``
    outputs: dict[str, Any] = field(default_factory=dict)
    scheduled: dict[str, float] = field(default_factory=dict)  #: present values of ``schedules``
    report: dict[str, float] = field(default_factory=dict)  #: measured by hooks, not yet logged
    results: dict[str, Any] = field(default_factory=dict)  #: what the run returns

    def __post_init__(self) -> None:
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=self.autocast_dtype == torch.float16
        )
        self.agree = distributed.Agreement(self.device)
        with working("taking the fingerprint of the images"):
            self.data_fingerprint = self.train_data.fingerprint()
            self.data_sample = self.train_data.sample()

    @property
    def listeners(self) -> tuple[Events, ...]:
        """The loss and the hooks, in the order in which they are called."""
        return (self.loss, *self.hooks.values())

    @property
    def evaluated(self) -> Network:
        """The network that hooks measure: the model itself, or its teacher."""
        if self.evaluate == "student":
            return self.model
        assert self.model.teacher is not None  # the check of the config has looked
        return self.model.teacher

    @property
    def position(self) -> int:
        """How far the training is: finished epochs x their present number of steps, and steps.

        It equals ``step`` as long as all epochs have had the same number of steps, which another
        batch or data set changes. The learning rate, and all else that depends on how far the
        training is, follows the position.
        """
        return self.epoch * self.train_sampler.steps_per_epoch + self.epoch_step

    def info(self) -> RunInfo:
        """What loggers are told of the run, at its position."""
        return RunInfo(
            name=self.name,
            config=self.loggers.config,
            output_dir=self.output_dir,
            step=self.step,
            position=self.position,
            num_epochs=self.num_epochs,
            steps_per_epoch=self.train_sampler.steps_per_epoch,
        )

    def fire(self, event: str) -> None:
        """Call the method ``event`` of the loss, then of every hook in order."""
        for name, listener in self.named_listeners():
            self.tell(name, listener, event)

    def named_listeners(self) -> list[tuple[str, Events]]:
        """The loss and the hooks, with their paths in the config."""
        return [("loss", self.loss), *((f"hooks.{name}", h) for name, h in self.hooks.items())]

    def tell(self, name: str, listener: Events, event: str) -> None:
        """Call the method ``event`` of one of `named_listeners`."""
        moment = MOMENTS.get(event)
        with working(f"{name} {moment}") if moment else nullcontext():
            getattr(listener, event)(self)
