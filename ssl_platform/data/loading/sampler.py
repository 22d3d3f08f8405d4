"""The order of the images, and which rank gets which.

Samplers give ``(epoch, index)`` pairs: all that a data worker has to know about a sample.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np

# epoch of the crops of a pass without training; no run gets there
BEFORE_TRAINING: Final = 2**32 - 1


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
        self.seed, self.drop_last = seed, drop_last
        self.epoch = self.num_done = self.crops_of = 0

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        return self.steps_after(0)

    def steps_after(self, num_done: int) -> int:
        """Steps that an epoch still has after ``num_done`` samples, over all ranks."""
        full, rest = divmod(self.num_samples - num_done, self.batch_size)
        return full + (rest > 0 and not self.drop_last)

    def set_epoch(self, epoch: int, num_done: int = 0, *, crops_of: int | None = None) -> None:
        """The next iteration gives the order of ``epoch``, without its first ``num_done`` samples.

        They may be no multiple of the batch, where a run goes on with another.

        Args:
            crops_of: the epoch that the images' crops are drawn for, if it is another.
        """
        self.epoch, self.num_done = epoch, num_done
        self.crops_of = epoch if crops_of is None else crops_of

    def __len__(self) -> int:
        """Samples of this rank in a whole epoch."""
        full, num_last = self._shares(self.num_samples)
        return full * (self.batch_size // self.world_size) + num_last

    def __iter__(self) -> Iterator[tuple[int, int]]:
        crops_of, share = self.crops_of, self.batch_size // self.world_size
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.num_samples)
        order = np.roll(order, -self.num_done)
        full, num_last = self._shares(self.num_samples - self.num_done)
        num_full = full * self.batch_size
        batches = order[:num_full].reshape(-1, self.world_size, share)[:, self.rank].ravel()
        last = np.resize(np.roll(order, -num_full), (self.world_size, num_last))[self.rank]
        return ((crops_of, index) for index in np.concatenate([batches, last]).tolist())

    def _shares(self, num_samples: int) -> tuple[int, int]:
        """Full batches of so many samples, and this rank's part of a smaller last one."""
        full, rest = divmod(num_samples, self.batch_size)
        return full, 0 if self.drop_last else -(-rest // self.world_size)


class SequentialSampler:
    """The given positions in order, dealt out to the ranks in turn."""

    def __init__(self, positions: Sequence[int] | np.ndarray, rank: int, world_size: int):
        self._mine = np.asarray(positions, dtype=np.int64)[rank::world_size]

    def __len__(self) -> int:
        return len(self._mine)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((0, index) for index in self._mine.tolist())
