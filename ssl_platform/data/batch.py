"""What flows from the data to the model, and what a loss may know of where it came from."""

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor


class Batch(NamedTuple):
    """One step's samples of this rank. The same three fields for every method and benchmark."""

    crops: list[Tensor]  #: one (B, C, H, W) tensor per crop; crops of equal size are adjacent
    label: Tensor  #: (B,) int64 class, -1 where the data set has none
    #: (B,) int64 position of the sample in the data set; hides tuple.index, which nobody needs
    index: Tensor  # type: ignore[assignment]


@dataclass(frozen=True)
class DataInfo:
    """What a loss may know of the training set."""

    num_samples: int
    num_crops: int
    batch_size: int  #: of this rank
    world_size: int
    steps_per_epoch: int
    seed: int  #: of everything random in the run
    num_classes: int | None = None  #: None for unlabelled images
    drop_last: bool = True  #: every batch is full

    @property
    def num_local_samples(self) -> int:
        """Samples that this rank sees in one epoch."""
        return self.steps_per_epoch * self.batch_size
