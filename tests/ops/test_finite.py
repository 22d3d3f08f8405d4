import pytest
import torch

from ssl_platform.ops.finite import all_finite


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_bad_entry_anywhere_is_found(bad, place):
    tensors = [torch.ones(3, 4), torch.zeros(0), torch.ones(()), torch.ones(5, dtype=torch.double)]
    tensors += [torch.tensor([7]), torch.tensor([True])]
    assert all_finite(tensors)
    target = [t for t in tensors if t.numel()][place]
    target.view(-1)[-1] = bad
    assert not all_finite(tensors)


def test_large_and_small_numbers_are_finite():
    assert all_finite([torch.tensor([1e18, -1e18, 1e-45, 0.0])])
    assert all_finite([])
