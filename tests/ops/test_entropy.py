import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_platform.ops.entropy import effective_rank, entropy, participation_ratio


@pytest.mark.parametrize("num_classes", [1, 2, 10, 3000])
def test_a_uniform_distribution_has_the_entropy_of_its_size(num_classes):
    uniform = torch.full((num_classes,), 1 / num_classes, dtype=torch.float64)
    assert entropy(uniform).item() == pytest.approx(math.log(num_classes))


def test_a_certain_outcome_has_no_entropy():
    assert entropy(torch.eye(5)).tolist() == [0] * 5


def test_entropy_is_taken_over_the_last_dimension():
    rows = torch.tensor([[[0.5, 0.5], [1.0, 0.0], [0.25, 0.75]]], dtype=torch.float64)
    quarter = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    expected = torch.tensor([[math.log(2), 0, quarter]], dtype=torch.float64)
    torch.testing.assert_close(entropy(rows), expected)


def rotation(dim: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, dtype=torch.float64, generator=generator)).Q


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.data(), st.floats(1e-6, 1e6))
def test_an_isotropic_covariance_of_rank_r_has_effective_rank_r(dim, data, variance):
    rank = data.draw(st.integers(1, dim))
    axes = rotation(dim, seed=rank)[:, :rank]
    assert effective_rank(variance * axes @ axes.T).item() == pytest.approx(rank, rel=1e-6)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=8))
def test_effective_rank_lies_between_one_and_the_dimension(variances):
    rank = effective_rank(torch.diag(torch.tensor(variances, dtype=torch.float64))).item()
    assert 1 - 1e-9 <= rank <= len(variances) + 1e-9


def test_effective_rank_does_not_depend_on_the_axes():
    variances = torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5], dtype=torch.float64))
    turn = rotation(4, seed=0)
    torch.testing.assert_close(effective_rank(turn @ variances @ turn.T), effective_rank(variances))


def test_a_covariance_of_zero_has_effective_rank_one():
    assert effective_rank(torch.zeros(4, 4)).item() == 1


@pytest.mark.parametrize("variance", [3e38, 1e-30, 1e-37])
def test_effective_rank_does_not_depend_on_the_size_of_the_numbers(variance):
    assert effective_rank(variance * torch.eye(4)).item() == pytest.approx(4)


@pytest.mark.parametrize(
    ("variances", "dimensions"), [([2, 0, 0], 1), ([3, 3, 0], 2), ([1, 1, 1], 3)]
)
def test_the_participation_ratio_counts_equal_dimensions(variances, dimensions):
    turn = rotation(3, seed=1)
    covariance = turn @ torch.diag(torch.tensor(variances, dtype=torch.float64)) @ turn.T
    assert participation_ratio(covariance).item() == pytest.approx(dimensions)


def test_no_variance_has_no_participation_ratio():
    assert participation_ratio(torch.zeros(3, 3)).isnan()
