"""Features of many images, computed by all ranks together and returned in the images' order."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.data.loader import Loader
from ssl_platform.errors import DivergedError


@torch.no_grad()
def extract(embed: Callable[[Tensor], Tensor], loader: Loader, num_samples: int) -> Tensor:
    """Apply ``embed`` to the first crop of every batch of a loader that is dealt out over ranks.

    Args:
        embed: (B, C, H, W) images to (B, D) features; a module is used in eval mode.
        loader: rank r gives samples r, r + R, r + 2R, ... of the R ranks.
        num_samples: over all ranks.

    Returns:
        (num_samples, D) float32 on every rank, on the CPU.

    Raises:
        DivergedError: not one of the images has finite features.
    """
    was_training = isinstance(embed, nn.Module) and embed.training
    if isinstance(embed, nn.Module):
        embed.eval()
    try:
        parts = [embed(batch.crops[0]).float().cpu() for batch in loader]
    finally:
        if isinstance(embed, nn.Module):
            embed.train(was_training)
    # a rank without images learns the width from the others
    known = torch.tensor(parts[0].shape[1] if parts else 0, device=loader.device)
    width = int(distributed.all_reduce_max(known))
    local = torch.cat([torch.empty(0, width), *parts])
    ranks = distributed.world_size()
    share = -(-num_samples // ranks)
    padded = torch.nn.functional.pad(local, (0, 0, 0, share - len(local)))
    gathered = _gather(padded, loader.device).unflatten(0, (ranks, share))
    features = gathered.transpose(0, 1).flatten(0, 1)[:num_samples]
    if num_samples and not features.isfinite().all(dim=1).any():
        raise DivergedError(
            f"the features of all {num_samples} images are NaN or infinite: so are the weights, or "
            "the running statistics of batch norms; take an earlier checkpoint, or train with a "
            "lower optimizer.lr"
        )
    return features


def _gather(rows: Tensor, device: torch.device) -> Tensor:
    # nccl moves tensors of the GPU only
    return distributed.all_gather(rows.to(device)).cpu()
