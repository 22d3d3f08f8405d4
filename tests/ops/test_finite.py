import pytest
import torch

from ssl_platform.ops.finite import all_finite, not_finite, with_nan


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


NAN, INF = float("nan"), float("inf")


def test_what_is_not_finite_is_named_wherever_it_lies():
    state = {
        "weight": torch.tensor([1.0, NAN]),
        "large": torch.tensor([3e38, -3e38]),
        "half": torch.full((9,), 6e4).half(),
        "count": torch.tensor([7]),
        "complex": torch.tensor([complex(1, INF)]),
        "sparse": torch.tensor([[0.0, -INF]]).to_sparse(),
        "nested": [{"x": torch.tensor(INF, dtype=torch.bfloat16)}, (NAN, INF, 1.0)],
        "words": ["nan", None, True, 3],
        "none": torch.zeros(0),
    }
    assert not_finite(state, "a") == [
        "a.nested.1.0", "a.weight", "a.complex", "a.sparse", "a.nested.0.x",
    ]  # fmt: skip
    assert with_nan(state, "a") == ["a.weight"]
    assert not_finite({"x": torch.tensor([3e38])}, "a") == with_nan({}, "a") == []


@pytest.mark.parametrize("bad", [NAN, INF])
def test_a_sparse_or_complex_entry_is_found(bad):
    assert not all_finite([torch.tensor([0.0, bad]).to_sparse()])
    assert not all_finite([torch.tensor([complex(0.0, bad)])])
    assert all_finite([torch.tensor([0.0, 1.0]).to_sparse(), torch.tensor([1j])])
