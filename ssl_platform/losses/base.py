"""What a loss is: it turns outputs into losses, owns its method's state, and hears the events."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, ClassVar, Final

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.errors import ConfigError, kind_of
from ssl_platform.events import Events
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.ops.rows import deal_out

UNASSIGNED: Final = -100  # label of a sample that has none; cross entropy leaves it out


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
            equal on all ranks; `UNASSIGNED` where a sample has none. None for a method that assigns
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

    def deal_out(self, name: str, parts: Sequence[Tensor], *, batch_size: int) -> Tensor:
        """This rank's value of a rank-owned buffer that another number of ranks has left.

        By default the buffer holds one row per sample, step by step, a rank's batch for each. The
        rows of all ranks are put together to the steps' total batches, which are then cut anew: the
        result is what these ranks would have come to by themselves.

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
        return deal_out(parts, dim=self.row_dims[name], num_rows=batch_size, world_size=world_size)[
            distributed.rank()
        ]

    def fitted(self, name: str, value: Tensor) -> Tensor:
        """A rank-owned buffer that a run of another batch or data set has left, for this run.

        By default it is as it was: one of another size is refused.
        """
        return value


def check_losses(loss: Loss, losses: Any) -> dict[str, Tensor]:
    """What a loss gave for a batch, which keeps to its contract, as tensors of one number each.

    Raises:
        ConfigError: there is nothing in it to minimise, or something that is no number.
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


def partial_batches(data: DataInfo) -> list[str]:
    """What is wrong for a method that keeps every sample's embedding in a place of its own."""
    if data.drop_last:
        return []
    return ["drop_last=false: the method needs full batches; set drop_last=true"]


def unusable_crops(assign_crops: list[int], num_crops: int) -> list[str]:
    """What is wrong with the positions of the crops that images are assigned by."""
    if num_crops < 2:
        return [
            f"assign_crops={assign_crops}: the method compares at least 2 crops, there is "
            f"{num_crops}"
        ]
    chosen = set(assign_crops)
    if chosen and chosen <= set(range(num_crops)) and len(chosen) == len(assign_crops):
        return []
    return [
        f"assign_crops={assign_crops}: different positions of crops, from 0 to {num_crops - 1} "
        f"(the data has {num_crops} crops)"
    ]
