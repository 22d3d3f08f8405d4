"""Features of many images, computed by all ranks together, in the order of the images."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.console.working import working
from ssl_platform.data.batch import Batch
from ssl_platform.data.loading.loader import Loader
from ssl_platform.errors import DataError, DivergedError

logger = logging.getLogger(__name__)


class Features(NamedTuple):
    """Features of some images, and which of the images could be read."""

    rows: Tensor  # (N, D) float32, NaN where the image cannot be read
    readable: Tensor  # (N,) bool

    def leave_out(self, labels: Tensor, what: str) -> tuple[Tensor, Tensor]:
        """Features and labels of the images that can be read; logs how many cannot.

        Args:
            labels: (N, ...).
            what: name of the images in the message.
        """
        missing = int((~self.readable).sum())
        if not missing:
            return self.rows, labels
        if distributed.rank() == 0:
            logger.info(
                "%d of the %d %s cannot be read and are left out", missing, len(labels), what
            )
        return self.rows[self.readable], labels[self.readable]


@torch.no_grad()
def extract(
    embed: Callable[[Tensor], Tensor], loader: Loader, num_samples: int, *, num_crops: int = 1
) -> Features:
    """Apply ``embed`` to the first crop of every batch; each rank has a share of the images.

    Args:
        embed: (B, C, H, W) images to (B, D) features; a module is used in eval mode.
        loader: rank r gives samples r, r + R, r + 2R, ... of the R ranks.
        num_samples: over all ranks.
        num_crops: of each image; the features of several are joined to one row.

    Returns:
        The same on every rank, on the CPU.

    Raises:
        DataError: none of the images can be read, or too many cannot.
        DivergedError: not one of the images has finite features.
    """
    modules = embed.modules() if isinstance(embed, nn.Module) else ()
    modes = [(module, module.training) for module in modules]  # those of a teacher differ
    if isinstance(embed, nn.Module):
        embed.eval()
    try:
        with working("features", num_samples) as work:
            parts = []
            for batch in loader:
                parts.append(_rows(embed, batch, loader, num_crops))
                work.advance(len(batch.index) * distributed.world_size())
    finally:
        for module, is_training in modes:
            module.training = is_training
    # a rank without images gets the width from the others
    own_width = torch.tensor(parts[0].shape[1] if parts else 0, device=loader.device)
    width = int(distributed.all_reduce_max(own_width))
    local = torch.cat([torch.empty(0, width), *parts])
    ranks = distributed.world_size()
    share = -(-num_samples // ranks)
    padded = torch.nn.functional.pad(local, (0, 0, 0, share - len(local)))
    # nccl moves tensors of the GPU only
    gathered = distributed.all_gather(padded.to(loader.device)).cpu()
    rows = gathered.unflatten(0, (ranks, share)).transpose(0, 1).flatten(0, 1)[:num_samples]
    readable = rows[:, -1] > 0
    if num_samples and not readable.any():
        raise DataError(f"none of these {num_samples} images can be read")
    rows = rows[:, :-1].contiguous()
    if num_samples and not rows[readable].isfinite().all(dim=1).any():
        raise DivergedError(
            f"the features of all {num_samples} images are NaN or infinite: so are the weights, or "
            "the running statistics of batch norms; take an earlier checkpoint, or train with a "
            "lower optimizer.lr"
        )
    rows[~readable] = torch.nan
    return Features(rows, readable)


def _rows(
    embed: Callable[[Tensor], Tensor], batch: Batch, loader: Loader, num_crops: int
) -> Tensor:
    """(B, num_crops * D + 1): features, and 1 or 0 for whether the image could be read."""
    readable = loader.readable(batch.index)[:, None]
    features = [embed(crop).float().cpu() for crop in batch.crops[:num_crops]]
    return torch.cat([*features, readable.float()], dim=1)
