"""The precision of a forward pass, and torch's settings of arithmetic on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch.backends import cudnn


@contextmanager
def arithmetic(
    *, matmul_precision: str, tf32: bool, benchmark: bool, deterministic: bool
) -> Iterator[None]:
    """Compute with these settings; afterwards they are as they were.

    Args:
        matmul_precision: of float32 products of matrices: ``highest``, ``high`` or ``medium``, see
            `torch.set_float32_matmul_precision`. ``medium`` also makes CPUs that have bfloat16 use
            it.
        tf32: convolutions of float32 may round their factors to 10 bits.
        benchmark: cuDNN tries its algorithms for each new shape and takes the fastest.
        deterministic: cuDNN uses only algorithms that give the same bits each time.
    """
    before = torch.get_float32_matmul_precision(), _cudnn_settings()
    _set(matmul_precision, (tf32, benchmark, deterministic))
    try:
        yield
    finally:
        _set(*before)


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 without TF32 or bfloat16; other settings stay."""
    with arithmetic(
        matmul_precision="highest",
        tf32=False,
        benchmark=cudnn.benchmark,
        deterministic=cudnn.deterministic,
    ):
        yield


def _cudnn_settings() -> tuple[bool, bool, bool]:
    return cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic


def _set(matmul_precision: str, settings: tuple[bool, bool, bool]) -> None:
    torch.set_float32_matmul_precision(matmul_precision)
    cudnn.allow_tf32, cudnn.benchmark, cudnn.deterministic = settings


def autocast_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The type of the model's forward pass under autocast; None for float32.

    ``auto`` is bfloat16 on a GPU that has it, float16 on an older one, and float32 on a CPU.
    """
    if precision == "auto":
        if device.type == "cpu":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]
