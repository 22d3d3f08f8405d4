"""Neighbours of rows in their own table, and what they say."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from ranks import run_on_ranks

from ssl_platform.ops import neighbours
from ssl_platform.ops.label_errors import label_votes
from ssl_platform.ops.near_duplicates import near_duplicates, pixel_cosines, tiny_thumbnails
from ssl_platform.ops.neighbours import (
    Neighbours,
    distance_at,
    expected_seconds,
    self_neighbours,
    unusual_distances,
)
from ssl_platform.ops.whitening import whitened, whitening

CPU = torch.device("cpu")


def some_rows(num: int, dim: int = 6) -> torch.Tensor:
    return torch.randn(num, dim, generator=torch.Generator().manual_seed(0))


def in_shares(num_rows: int, share: int) -> Neighbours:
    neighbours.SHARE = share
    return self_neighbours(some_rows(num_rows), k=4, device=CPU)


def test_neighbours_are_those_of_the_whole_matrix_in_any_shares(monkeypatch):
    monkeypatch.setattr(neighbours, "SHARE", 7)
    rows, done = some_rows(50), []
    found = self_neighbours(rows, k=4, device=CPU, done=done.append)
    units = F.normalize(rows, dim=1)
    cosines, places = (units @ units.T).fill_diagonal_(-2).topk(4)
    torch.testing.assert_close(found.cosines, cosines)
    assert torch.equal(found.rows, places)
    assert done == [7] * 7 + [1]


def test_ranks_share_the_rows_and_find_the_same(monkeypatch):
    monkeypatch.setattr(neighbours, "SHARE", neighbours.SHARE)  # put back what in_shares sets
    alone = in_shares(50, 7)
    for found in run_on_ranks(in_shares, 2, 50, 7):
        assert torch.equal(found.cosines, alone.cosines)
        assert torch.equal(found.rows, alone.rows)


def test_a_row_is_not_its_own_neighbour_among_many_copies():
    rows = some_rows(1).expand(9, -1)
    found = self_neighbours(rows, k=3, device=CPU)
    assert not (found.rows == torch.arange(9)[:, None]).any()
    assert all(len(set(row)) == 3 for row in found.rows.tolist())
    assert self_neighbours(rows[:3], k=5, device=CPU).rows.shape == (3, 2)
    grouped = near(found.cosines.tolist(), found.rows.tolist(), 0.999)
    assert set(grouped.groups.tolist()) == {0}
    assert expected_seconds(rows, k=3, device=CPU) > 0


def near(cosines: list, rows: list, least: float, pixels: float = 2, least_pixels: float = 2):
    found = Neighbours(torch.tensor(cosines), torch.tensor(rows))
    all_pixels = torch.full_like(found.cosines, pixels)
    all_pixels[0, 0] = 1.0
    return near_duplicates(found, all_pixels, least_cosine=least, least_pixel_cosine=least_pixels)


def test_near_duplicates_are_pairs_once_and_groups_in_order():
    cosines = [[0.5, 0.1], [0.99, 0.2], [0.97, 0.97], [0.99, 0.97], [0.97, 0.3]]
    rows = [[1, 2], [3, 0], [4, 3], [1, 2], [2, 0]]
    found = near(cosines, rows, 0.98, pixels=0)
    assert found.pairs.tolist() == [[1, 3]]
    assert found.groups.tolist() == [-1, 0, -1, 0, -1]
    found = near(cosines, rows, 0.97, pixels=0)
    assert found.pairs.tolist() == [[1, 3], [2, 3], [2, 4]]
    np.testing.assert_allclose(found.cosines, [0.99, 0.97, 0.97])
    assert found.groups.tolist() == [-1, 0, 0, 0, 0]
    nothing = near(cosines, rows, 1.5, pixels=0)
    assert len(nothing.pairs) == 0 and set(nothing.groups.tolist()) == {-1}
    by_pixels = near(cosines, rows, 1.5, pixels=0, least_pixels=0.9)
    assert by_pixels.pairs.tolist() == [[0, 1]]
    assert (by_pixels.cosines.tolist(), by_pixels.pixel_cosines.tolist()) == ([0.5], [1])


def test_thumbnails_are_near_whatever_size_and_side_but_not_where_they_are_flat():
    image = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(image, scale_factor=0.5, mode="area")
    views = [image, image.flip(3), small, 1 - image, image * 0.3, torch.full_like(image, 0.4)]
    thumbnails = torch.cat([tiny_thumbnails(view) for view in views]).half()
    cosines = pixel_cosines(thumbnails, torch.tensor([[1, 2, 3, 4, 5]] * 6))
    assert cosines[0, [0, 1, 3, 4]].tolist() == pytest.approx([1, 1, 1, 0], abs=1e-2)
    assert cosines[0, 2] < 0.5  # the negative
    assert cosines[5].tolist() == [0] * 5


def test_deviations_of_distances():
    distances = torch.tensor([1, math.e, math.e**2, math.e**3, 0, 1e6, math.e**2, math.e])
    deviations = unusual_distances(distances)
    # the logarithms have the median 1, and their distances from it the median 1
    assert deviations[:4].tolist() == pytest.approx([-1 / 1.4826, 0, 1 / 1.4826, 2 / 1.4826])
    assert deviations[4] == -math.inf and deviations[5] > 3.5
    assert distance_at(distances, 1 / 1.4826) == pytest.approx(math.e**2)
    equal = unusual_distances(torch.tensor([0.0, 2, 2, 2]))
    assert equal.tolist() == [-math.inf, 0, 0, 0]


def test_copies_alone_have_no_usual_distance():
    distances = torch.zeros(5)
    assert unusual_distances(distances).tolist() == [-math.inf] * 5
    assert distance_at(distances, -3.5) == 0


def votes_of(labels: list[int], groups: list[int] | None = None):
    """Of two sets of points on two axes, each a neighbour of all others."""
    points = torch.zeros(len(labels), 2)
    points[: len(labels) // 2, 0] = points[len(labels) // 2 :, 1] = 1
    points += 0.01 * some_rows(len(labels), 2)
    found = self_neighbours(points, k=4, device=CPU)
    return label_votes(
        found,
        torch.tensor(labels),
        groups=torch.tensor(groups or [-1] * len(labels)),
        num_classes=3,
        temperature=0.1,
    )


def test_a_wrong_label_among_sure_neighbours_is_found():
    found = votes_of([0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 0])
    assert found.is_error.nonzero().flatten().tolist() == [5, 11]
    assert found.suggested[[5, 11]].tolist() == [0, 1]
    assert found.margin[[5, 11]].tolist() == pytest.approx([-1, -1], abs=1e-3)
    assert found.own[0] > 0.6 and found.suggested[0] == 1


def test_rows_without_a_label_neither_vote_nor_are_wrong():
    found = votes_of([0, -1, 0, 0, 0, 0, 1, 1, 1, 1, -1, -1])
    assert not found.is_error.any()
    assert found.own[[1, 10, 11]].isnan().all() and (found.suggested[[1, 10, 11]] == -1).all()
    assert (found.own[found.own.isfinite()] > 0.99).all()


def test_a_copy_has_no_vote_on_its_copy():
    labels = [1, 1, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1]  # the first two are copies of one image
    assert votes_of(labels, None).own[0] > 0
    found = votes_of(labels, [0, 0, *[-1] * 10])
    assert found.own[:2].tolist() == [0, 0]
    assert found.is_error[:2].all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_whitened_features_are_uncorrelated_and_of_one_length(dtype):
    rows = (some_rows(400, 6) @ torch.diag(torch.tensor([9.0, 3, 1, 0.3, 0.1, 0])) + 5).to(dtype)
    whiten = whitening(rows, 5)
    found = whitened(rows, whiten)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.T @ found / 400, torch.eye(found.shape[1]), atol=0.02, rtol=0)
    torch.testing.assert_close(whiten(rows[3:5]), found[3:5])
    assert whitening(rows[:9], 5).directions.shape[1] == 2
    assert whitening(torch.ones(8, 3), 3).directions.isfinite().all()
