"""Batch norm over the samples of several ranks.

torch's own SyncBatchNorm takes CUDA tensors only. `AllReduceBatchNorm` computes the same numbers
with two small all-reduces and runs anywhere.
"""

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_platform import distributed

# not their subclasses, which would lose what they add
CONVERTED = (nn.BatchNorm1d, nn.BatchNorm2d)


class AllReduceBatchNorm(_BatchNorm):
    """`nn.BatchNorm1d`/`2d` whose training statistics are those of all ranks of ``group``."""

    group: dist.ProcessGroup | None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    @classmethod
    def of(cls, module: _BatchNorm, group: dist.ProcessGroup | None) -> "AllReduceBatchNorm":
        """The same batch norm, its parameters and statistics shared, over ``group``."""
        new = cls(module.num_features, module.eps, module.momentum)
        new.group = group
        new.weight, new.bias = module.weight, module.bias
        for name, buffer in module.named_buffers():
            setattr(new, name, buffer)
        return new

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() < 2:
            raise ValueError(f"expected at least 2 dimensions, got {input.dim()}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) normalised; in train mode a collective of the group."""
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        dtype = input.dtype
        input = input.to(torch.promote_types(dtype, torch.float32))
        dims = [d for d in range(input.dim()) if d != 1]
        shape = [-1 if d == 1 else 1 for d in range(input.dim())]
        local_count = input.new_tensor([input.numel() / input.shape[1]])
        count = distributed.differentiable_sum(local_count, self.group)
        mean = distributed.differentiable_sum(input.sum(dims), self.group) / count
        centred = input - mean.view(shape)
        # two passes: E[x^2] - E[x]^2 cancels in float32
        var = distributed.differentiable_sum(centred.square().sum(dims), self.group) / count
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            unbiased = var * (count / (count - 1))
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
        scale = self.weight * torch.rsqrt(var + self.eps)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(dtype)


def _own_group(size: int) -> dist.ProcessGroup:
    """The group of ``size`` consecutive ranks that this rank is in."""
    starts = range(0, distributed.world_size(), size)
    # new_group is collective: every rank makes every group, in the same order
    groups = [dist.new_group(list(range(start, start + size))) for start in starts]
    group = groups[distributed.rank() // size]
    assert isinstance(group, dist.ProcessGroup)  # this rank is a member
    return group


def synchronize_batch_norm(
    model: nn.Module,
    *,
    group_size: int = 0,
    world_size: int | None = None,
    device: torch.device | None = None,
) -> nn.Module:
    """Make every batch norm of ``model`` use the statistics of ``group_size`` consecutive ranks.

    Args:
        model: converted in place where possible; use the returned module.
        group_size: 0, or more than there are ranks, for all of them; otherwise a divisor of their
            number. 1 changes nothing.
        world_size: number of ranks, by default of those that are there; where they are not, as in
            the check of a config, the batch norms are those of the run and synchronise nothing.
        device: of the run; by default the model's.
    """
    world_size = world_size or distributed.world_size()
    device = device or next(model.parameters()).device
    size = min(group_size or world_size, world_size)
    if size == 1:
        return model
    group = _own_group(size) if distributed.is_distributed() else None
    if device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(model, process_group=group)
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm) and type(child) in CONVERTED:
                setattr(parent, name, AllReduceBatchNorm.of(child, group))
    return model
