"""Measures without labels that are tried in a benchmark, against their papers' formulas."""

import numpy as np
import pytest
import torch
from label_free_measures import alpha_req, lidar, rankme


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def smooth_rank(values: np.ndarray) -> float:
    shares = values / np.abs(values).sum() + 1e-7
    return float(np.exp(-(shares * np.log(shares)).sum()))


def test_rankme_is_the_formula_of_its_paper():
    features = rows(30, 6) * torch.tensor([9.0, 5, 3, 1, 0.1, 0])
    values = np.linalg.svd(features.numpy(), compute_uv=False)
    assert rankme(features) == pytest.approx(smooth_rank(values))


def test_rankme_counts_equal_directions_at_any_scale_and_in_any_rotation():
    assert rankme(torch.eye(8)) == pytest.approx(8, rel=1e-4)
    assert rankme(torch.ones(20, 8)) == pytest.approx(1, rel=1e-4)  # one point
    features = rows(40, 8)
    rotation = torch.linalg.qr(rows(8, 8, seed=3))[0]
    assert rankme(1000 * features @ rotation) == pytest.approx(rankme(features))
    assert rankme(features.float()) == pytest.approx(rankme(features))


def test_lidar_is_the_formula_of_its_paper():
    features = rows(40, 3, 5) + 2 * rows(40, 1, 5, seed=1) * torch.tensor([1.0, 1, 0.5, 0.1, 0])
    means = features.mean(dim=1).numpy()
    s_b = sum(np.outer(m, m) for m in means - means.mean(axis=0)) / 40
    within = [x - m for crops, m in zip(features.numpy(), means, strict=True) for x in crops]
    s_w = sum(np.outer(w, w) for w in within) / 120 + 1e-4 * np.eye(5)
    values, vectors = np.linalg.eigh(s_w)
    root = vectors @ np.diag(values**-0.5) @ vectors.T
    assert lidar(features) == pytest.approx(smooth_rank(np.linalg.eigvalsh(root @ s_b @ root)))


def test_lidar_does_not_count_what_crops_of_an_image_do_not_share():
    means = torch.zeros(200, 1, 6, dtype=torch.float64)
    means[..., :2] = rows(200, 1, 2)
    assert lidar(means + 0.001 * rows(200, 2, 6, seed=1)) == pytest.approx(2, rel=0.05)


@pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
def test_alpha_req_finds_the_exponent_of_a_power_law(alpha):
    basis = torch.linalg.qr(rows(50, 20) - rows(50, 20).mean(dim=0))[0]
    features = basis * torch.arange(1, 21, dtype=torch.float64) ** (-alpha / 2)
    assert alpha_req(features + 3, first=1, last=20) == pytest.approx(alpha)
    assert alpha_req(features + 3, first=5, last=15) == pytest.approx(alpha)
    assert np.isnan(alpha_req(torch.ones(50, 20), first=1, last=20))
