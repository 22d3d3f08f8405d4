"""Principal components of many rows, which need not fit into memory."""

import torch
from scipy import linalg
from torch import Tensor


@torch.no_grad()
def principal_components(
    rows: Tensor, num_components: int, *, block: int = 8192
) -> tuple[Tensor, Tensor]:
    """Mean and principal directions by the covariance, which is summed block by block.

    Args:
        rows: (N, D); may be a memory-mapped file.
        num_components: at most as many as min(N, D) are found.

    Returns:
        (D,) mean and (D, components) directions of unit length, of the largest variance first;
        both float32.
    """
    num_rows, dim = rows.shape
    mean = torch.stack([part.double().sum(0) for part in rows.split(block)]).sum(0) / num_rows
    covariance = torch.zeros(dim, dim, dtype=torch.float64)
    for part in rows.split(block):
        centred = part.double() - mean
        covariance += centred.T @ centred
    found = min(num_components, num_rows, dim)
    _, directions = linalg.eigh(covariance.numpy(), subset_by_index=[dim - found, dim - 1])
    return mean.float(), torch.from_numpy(directions).flip(1).float()
