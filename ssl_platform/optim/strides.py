"""Tensors laid out for torch's fused kernels, which read memory in its order and ignore strides."""

import torch
from torch import Tensor
from torch.optim import Optimizer

from ssl_platform.errors import ConfigError


def align(optimizer: Optimizer) -> None:
    """Copy gradients and states whose strides are not those of their parameter.

    Raises:
        ConfigError: a gradient is sparse.
    """
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.grad is not None:
                _align(param, optimizer)


def _align(param: Tensor, optimizer: Optimizer) -> None:
    assert param.grad is not None
    if param.grad.layout != torch.strided:
        raise ConfigError(
            [
                f"optimizer: the gradient of a parameter of shape {tuple(param.shape)} is sparse, "
                "which no optimizer here can step by; make its layer with sparse=False"
            ]
        )
    if not _same_layout(param.grad, param):
        param.grad = torch.empty_like(param).copy_(param.grad)
    if param in optimizer.state:
        state = optimizer.state[param]
        for name, value in state.items():
            is_of_elements = isinstance(value, Tensor) and value.shape == param.shape
            if is_of_elements and not _same_layout(value, param):
                state[name] = torch.empty_like(param, dtype=value.dtype).copy_(value)


def _same_layout(tensor: Tensor, param: Tensor) -> bool:
    return tensor.stride() == param.stride() or _steps(tensor) == _steps(param)


def _steps(tensor: Tensor) -> list[tuple[int, int]]:
    """(stride, size) of each dimension of more than one element: others may have any stride."""
    return [step for step in zip(tensor.stride(), tensor.shape, strict=True) if step[1] != 1]


def is_dense(tensor: Tensor) -> bool:
    """Whether the elements fill their part of the memory, each in a place of its own."""
    return tensor.is_contiguous() or torch.ops.aten.is_non_overlapping_and_dense(tensor)


def overlaps(tensor: Tensor) -> bool:
    """Whether two elements may share a place in memory, as those of ``expand`` do."""
    reach = 0
    for stride, size in sorted(_steps(tensor)):
        if stride <= reach:
            return tensor.numel() > 0
        reach += stride * (size - 1)
    return False
