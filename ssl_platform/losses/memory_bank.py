"""The embeddings of the epoch before, from which offline clustering makes labels."""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor, nn

from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.distributed import all_gather, world_size


class MemoryBank(nn.Module):
    """One row per sample that this rank saw in its latest epoch, in the order of arrival.

    Each row was computed with the weights of its own time (arXiv:2006.09882, appendix D.2). The
    buffers are this rank's own.

    Args:
        data: the training set; the bank has ``data.num_local_samples`` rows, S.
        crops: positions of the crops whose embeddings are kept, one slab each.
        dim: D, width of an embedding.
    """

    index: Tensor  # (S,) int64 position in the data set
    embeddings: Tensor  # (slabs, S, D)

    def __init__(self, data: DataInfo, *, crops: Sequence[int], dim: int):
        super().__init__()
        self.crops, self.batch_size, self.cursor = crops, data.batch_size, 0
        rows = data.num_local_samples
        self.register_buffer("index", torch.zeros(rows, dtype=torch.long), persistent=False)
        self.register_buffer("embeddings", torch.zeros(len(crops), rows, dim), persistent=False)

    def rewind(self) -> None:
        """The next batch overwrites the oldest: called before each pass over the data."""
        self.cursor = 0

    @torch.no_grad()
    def write(self, index: Tensor, embeddings_M: Sequence[Tensor]) -> None:
        """Keep a batch: (B,) positions and, for every slab, (B, D) embeddings of its crop."""
        rows = slice(self.cursor, self.cursor + len(index))
        self.index[rows] = index
        for slab, embeddings in zip(self.embeddings, embeddings_M, strict=True):
            slab[rows] = embeddings
        self.cursor = rows.stop

    def get_extra_state(self) -> dict[str, int]:
        """Steps written in this pass, a number that does not depend on the number of ranks."""
        return {"steps": self.cursor // self.batch_size}

    def set_extra_state(self, state: dict[str, int]) -> None:
        """Go on behind the rows of that many steps."""
        self.cursor = state["steps"] * self.batch_size

    @torch.no_grad()
    def fill(self, embed: Callable[[Tensor], Tensor], batches: Iterable[Batch]) -> None:
        """Write a pass over the data; ``embed`` maps one crop of a batch to (B, D) embeddings."""
        self.rewind()
        for batch in batches:
            self.write(batch.index, [embed(batch.crops[crop]) for crop in self.crops])

    def slab(self, number: int) -> Tensor:
        """(S, D) embeddings for clustering ``number``: the crops take turns."""
        return self.embeddings[number % len(self.crops)]

    def spread(self, local_values: Tensor, table: Tensor) -> None:
        """Write one value per row of every rank's bank into a table over the data set.

        A sample with several rows gets the value of its latest one, whatever the number of ranks.

        Args:
            local_values: (S,), of this rank's rows.
            table: (num_samples,), equal on all ranks, written in place.
        """
        index, values = (self._by_time(all_gather(t)) for t in (self.index, local_values))
        # numpy keeps the last of several writes to a place; torch leaves the order open
        filled = table.cpu().numpy()
        filled[index.cpu().numpy()] = values.cpu().numpy()
        table.copy_(torch.from_numpy(filled))

    def _by_time(self, gathered: Tensor) -> Tensor:
        """Rows of all ranks, rank after rank, reordered to step after step."""
        return gathered.view(world_size(), -1, self.batch_size).transpose(0, 1).flatten()
