"""Which image comes when, and on which rank.

Samplers give ``(epoch, index)`` pairs: all that a data worker has to know about a sample.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

BEFORE_TRAINING: Final = (
    2**32 - 1
)  # epoch of the crops of a pass without training; no run gets there


class ShuffledSampler:
    """Each epoch a new order of the whole set, cut into global batches; each rank has its part.

    The global batches depend on the seed and on the epoch, not on the number of ranks. What does
    not fill the last batch is left out, and another order leaves out others; or it makes a smaller
    batch, to which samples from the start of the order are added until all ranks have equally many.

    Args:
        num_samples: length of the data set.
        batch_size: samples of one step, over all ranks.
        rank: of this process.
        world_size: number of processes.
        seed: of the orders.
        drop_last: leave out what does not fill the last batch.

    Raises:
        ValueError: ``batch_size`` is no multiple of ``world_size``, or larger than the set.
    """

    def __init__(
        self,
        num_samples: int,
        *,
        batch_size: int,
        rank: int,
        world_size: int,
        seed: int,
        drop_last: bool = True,
    ):
        if batch_size < 1 or batch_size % world_size:
            raise ValueError(
                f"batch_size={batch_size}: must be a multiple of the number of processes, "
                f"{world_size}"
            )
        if drop_last and batch_size > num_samples:
            raise ValueError(f"batch_size={batch_size}: the data set has only {num_samples} images")
        self.num_samples, self.batch_size = num_samples, batch_size
        self.rank, self.world_size = rank, world_size
        self.seed, self.epoch, self.start_step, self.crops_of = seed, 0, 0, 0
        rest = 0 if drop_last else num_samples % batch_size
        self.num_last = -(-rest // world_size)  # samples of this rank in a smaller last batch

    @property
    def steps_per_epoch(self) -> int:
        return self.num_samples // self.batch_size + (self.num_last > 0)

    def set_epoch(self, epoch: int, start_step: int = 0, *, crops_of: int | None = None) -> None:
        """The next iteration gives the order of ``epoch``, from its step ``start_step`` on.

        Args:
            crops_of: the epoch that the images' crops are drawn for, if it is another.
        """
        self.epoch, self.start_step = epoch, start_step
        self.crops_of = epoch if crops_of is None else crops_of

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch."""
        full = self.num_samples // self.batch_size
        return full * (self.batch_size // self.world_size) + self.num_last

    def __iter__(self) -> Iterator[tuple[int, int]]:
        crops_of = self.crops_of
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_samples)
        num_full = self.num_samples // self.batch_size * self.batch_size
        share = self.batch_size // self.world_size
        full = order[:num_full].reshape(-1, self.world_size, share)[:, self.rank].ravel()
        last = np.resize(np.roll(order, -num_full), (self.world_size, self.num_last))[self.rank]
        mine = np.concatenate([full, last])[self.start_step * share :]
        return ((crops_of, index) for index in mine.tolist())


class SequentialSampler:
    """The given positions in order, dealt out to the ranks in turn."""

    def __init__(self, positions: Sequence[int] | np.ndarray, rank: int, world_size: int):
        self._mine = np.asarray(positions, dtype=np.int64)[rank::world_size]

    def __len__(self) -> int:
        return len(self._mine)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self._mine.tolist())
