"""A loss in a training loop of one's own: no run, no config, a scalar to call backward on."""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.engine.run import Loss
from ssl_platform.engine.state import rank_buffers
from ssl_platform.errors import ConfigError, kind_of
from ssl_platform.models.heads import FreezePrototypes, Prototyped
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import LOSSES

LossT = TypeVar("LossT", bound=Loss)


class Standalone(nn.Module, Generic[LossT]):
    """A loss that counts its own steps and keeps what a run would keep for it.

    Its ``state_dict()`` holds all that it needs to go on, the queues of all ranks included: what
    one rank saves serves all of them, also another number of ranks. The prototypes are weights of
    the model, and in the model's ``state_dict()``. In eval mode a call changes nothing.

    Args:
        kind: the class of the loss.
        model: whose outputs it will be given; not wrapped by DDP.
        num_crops: M, crops of each image.
        batch_size: B, images of one batch of this process.
        num_samples: images of the data set.
        seed: of what the loss draws.
        over_ranks: whether the ranks of a process group count as one; if not, each is on its own.
        options: of the loss.

    Raises:
        ConfigError: what cannot work, one line each.
    """

    def __init__(
        self,
        kind: type[LossT],
        model: SSLModel,
        *,
        num_crops: int,
        batch_size: int,
        num_samples: int,
        seed: int = 0,
        over_ranks: bool = True,
        options: Mapping[str, Any],
    ):
        super().__init__()
        self.kind, self.options, self.over_ranks = kind, dict(options), over_ranks
        self.num_crops, self.batch_size = num_crops, batch_size
        self.num_samples, self.seed = num_samples, seed
        self.step, self.epoch = 0, -1  # -1: none has begun
        self._refuse_arguments(model)
        self._freeze = FreezePrototypes(
            self.options["head"],
            steps=self.options.get("freeze_prototypes_steps", 0),
            epochs=self.options.get("freeze_prototypes_epochs", 0),
        )
        self._is_to_freeze = False
        # In a tuple, where torch does not take them for modules of this one: the model has a place
        # of its own, and DDP would give all ranks the queue of the first.
        self._kept: tuple[SSLModel, list[LossT]] = (model, [])
        self._ranks: list[dict[str, Tensor]] = []  # what each of several ranks owns
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")  # of too few samples: ranks may yet come
            self._built()

    def _refuse_arguments(self, model: Any) -> None:
        name = self.kind.__name__
        if not isinstance(model, SSLModel):
            raise ConfigError([f"{name}: model: an SSLModel, not {kind_of(model)}"])
        numbers = {
            "num_crops": self.num_crops,
            "batch_size": self.batch_size,
            "num_samples": self.num_samples,
        }
        problems = [
            f"{name}: {key}={value}: a whole number from 1 on"
            for key, value in numbers.items()
            if not isinstance(value, int) or value < 1
        ]
        problems += LOSSES.problems({"name": name, **self.options}, where=name)
        if problems:
            raise ConfigError(problems)

    def _built(self) -> LossT:
        with self._ranks_that_count():
            world_size = distributed.world_size()
        info = DataInfo(
            num_samples=self.num_samples,
            num_crops=self.num_crops,
            batch_size=self.batch_size,
            world_size=world_size,
            steps_per_epoch=self.num_samples // (self.batch_size * world_size),
            seed=self.seed,
        )
        name = self.kind.__name__
        try:
            loss: LossT = LOSSES.build({"name": name, **self.options}, self._kept[0], info)
        except ValueError as error:
            raise ConfigError([f"{name}.{line}" for line in str(error).splitlines()]) from error
        return loss

    def _ranks_that_count(self) -> AbstractContextManager[None]:
        return nullcontext() if self.over_ranks else distributed.alone()

    @property
    def model(self) -> SSLModel:
        """The model whose outputs this is the loss of."""
        return self._kept[0]

    @property
    def loss(self) -> LossT:
        """The loss as the platform has it. It is made at its first use: until then the number of
        ranks may not be known."""
        built = self._kept[1]
        if not built:
            built.append(self._built())
        return built[0].to(next(self.model.parameters()).device).train(self.training)

    def compute(self, output: Prototyped, index: Tensor | None = None) -> Tensor:
        """The loss of a batch, and in train mode a step; collective where ranks count as one.

        Args:
            output: of the prototypes' head for M crops, crop after crop.
            index: (B,) int64 positions of the images in the data set.

        Raises:
            ConfigError: the batch is not full, or `after_backward` was not called.
        """
        name, rows, num_crops = self.kind.__name__, len(output.embeddings), self.num_crops
        if rows % num_crops or (self.training and rows != num_crops * self.batch_size):
            raise ConfigError(
                [
                    f"{name}: the outputs have {rows} rows, not num_crops={num_crops} x "
                    f"batch_size={self.batch_size}: every batch is full with "
                    "DataLoader(drop_last=True)"
                ]
            )
        if self.training and self._is_to_freeze:
            raise ConfigError(
                [f"{name}: after_backward() keeps the prototypes frozen: call it after backward()"]
            )
        device, loss = output.embeddings.device, self.loss
        if index is None:
            index = torch.zeros(rows // num_crops, dtype=torch.long)
        index = index.to(device)
        batch = Batch([torch.empty(0)] * num_crops, torch.full_like(index, -1), index)
        with self._ranks_that_count(), torch.autocast(device.type, enabled=False):
            value = loss(self.model, {self.options["head"]: output}, batch)["loss"]
        if self.training:
            self._is_to_freeze = self._freeze.applies(position=self.step, epoch=self.epoch)
            self.step += 1
            self._gather(loss)
        return value

    def _gather(self, loss: LossT) -> None:
        """Keep what each rank owns, so that any of them can save it; collective."""
        ranks = range(distributed.world_size())
        if len(ranks) > 1:
            own = rank_buffers(loss)
            of_all = {name: distributed.all_gather(value[None]) for name, value in own.items()}
            self._ranks = [{name: of_all[name][rank] for name in own} for rank in ranks]

    def after_backward(self) -> None:
        """Keep the prototypes as they are in their first ``freeze_prototypes_steps`` and
        ``freeze_prototypes_epochs``: to be called between ``backward()`` and the optimizer."""
        self._freeze(self.model, position=self.step - 1, epoch=self.epoch)
        self._is_to_freeze = False

    def get_extra_state(self) -> dict[str, Any]:
        """Steps, epoch and the state of the loss on every rank."""
        return {
            "step": self.step,
            "epoch": self.epoch,
            "loss": dict(self.loss.state_dict()),
            "ranks": self._ranks or [rank_buffers(self.loss)],
        }

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Take back what `get_extra_state` gave, on any number of ranks.

        Raises:
            ConfigError: it is of a loss with other options.
        """
        loss = self.loss
        try:
            loss.load_state_dict(state["loss"])
            for name, buffer in rank_buffers(loss).items():
                value = self._own_part(name, [part[name] for part in state["ranks"]])
                if value.shape != buffer.shape:
                    raise ValueError(f"{name} {list(value.shape)}, here {list(buffer.shape)}")
                buffer.copy_(value)
        except (KeyError, RuntimeError, ValueError) as error:
            reason = " ".join(str(error).split())
            raise ConfigError(
                [f"{self.kind.__name__}: saved with other options: {reason}"]
            ) from error
        self.step, self.epoch, self._is_to_freeze = state["step"], state["epoch"], False
        self._gather(loss)

    def _own_part(self, name: str, parts: list[Tensor]) -> Tensor:
        """This rank's value of a buffer of which each rank had one."""
        if len(parts) == distributed.world_size() or not self.over_ranks:
            value = parts[distributed.rank() % len(parts)]
        else:
            value = self.loss.reshard(name, parts, batch_size=self.batch_size)
        return self.loss.fitted(name, value)
