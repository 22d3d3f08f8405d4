"""Crops that find each other, against the sentence written out, and what it has to satisfy."""

import numpy as np
import pytest
import torch

from ssl_platform.ops.label_free import found_share


def rows(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def found_by_hand(first: np.ndarray, second: np.ndarray, num_near: int) -> float:
    """Each crop's place among all others, sorted by cosine."""
    hits = 0
    for queries, others in ((first, second), (second, first)):
        for number, query in enumerate(queries):
            cosines = [query @ one / np.linalg.norm(query) / np.linalg.norm(one) for one in others]
            hits += number in np.argsort(cosines)[::-1][:num_near]
    return hits / len(first) / 2


@pytest.mark.parametrize(("num_images", "num_near"), [(40, 4), (7, 1), (34, 3)])
def test_a_crop_is_found_among_the_nearest_tenth(num_images, num_near):
    first = rows(num_images, 5)
    second = first + 1.5 * rows(num_images, 5, seed=1)
    expected = found_by_hand(first.numpy(), second.numpy(), num_near)
    assert 0.1 < expected < 1
    assert found_share(first, second) == pytest.approx(expected)
    order = torch.randperm(num_images, generator=torch.Generator().manual_seed(2))
    assert found_share(7 * second[order], first[order]) == pytest.approx(expected)


def test_equal_features_are_all_found_and_all_the_same_by_chance(monkeypatch):
    features = rows(50, 5)
    assert found_share(features, features) == 1
    assert found_share(torch.ones(50, 5), torch.ones(50, 5)) == pytest.approx(0.1)
    assert found_share(torch.zeros(50, 5), torch.zeros(50, 5)) == pytest.approx(0.1)
    monkeypatch.setattr("ssl_platform.ops.label_free.BLOCK", 7)
    assert found_share(features, features) == 1


def test_a_row_that_is_not_finite_is_never_found():
    features = rows(50, 5)
    features[:10] = torch.nan
    assert found_share(features, features) == 0.8
