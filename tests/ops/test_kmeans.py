import pytest
import torch
import torch.nn.functional as F
from held_memory import HeldMemory
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_on_ranks
from torch import Tensor

from ssl_platform import distributed
from ssl_platform.ops import kmeans
from ssl_platform.ops.kmeans import Clustering, lloyd, spherical_kmeans

seldom = settings(deadline=None, max_examples=30)


def rows(num: int, dim: int = 5, *, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, dim, dtype=dtype, generator=generator), dim=1)


def drawn(embeddings: Tensor, num_clusters: int, num_iters: int, *, seed: int = 0) -> Clustering:
    generator = torch.Generator().manual_seed(seed)
    return spherical_kmeans(
        embeddings, num_clusters=num_clusters, num_iters=num_iters, generator=generator
    )


def oracle(embeddings: Tensor, centroids: Tensor, num_iters: int) -> tuple[Tensor, Tensor]:
    """Spherical k-means as it is defined, one row and one cluster after the other."""

    def assign() -> list[int]:
        products = [[float(row @ centroid) for centroid in centroids] for row in embeddings]
        return [max(range(len(p)), key=lambda k: (p[k], -k)) for p in products]

    centroids = centroids.clone()
    for _ in range(num_iters):
        assignments = assign()
        for k in range(len(centroids)):
            members = [row for row, a in zip(embeddings, assignments, strict=True) if a == k]
            if members:
                centroids[k] = sum(members) / len(members)
        centroids = centroids / centroids.norm(dim=1, keepdim=True)
    return centroids, torch.tensor(assign())


@seldom
@given(
    num=st.integers(1, 40),
    dim=st.integers(2, 6),
    num_clusters=st.integers(1, 8),
    num_iters=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_it_is_the_definition(num, dim, num_clusters, num_iters, seed):
    embeddings, start = rows(num, dim, seed=seed), rows(num_clusters, dim, seed=seed + 1)
    found = lloyd(embeddings, start, num_iters)
    centroids, assignments = oracle(embeddings, start, num_iters)
    torch.testing.assert_close(found.centroids, centroids)
    assert found.assignments.equal(assignments)


@pytest.mark.parametrize("num_clusters", [63, 64, 65, 130])
def test_many_clusters_are_the_definition_too(num_clusters):
    embeddings, start = rows(100, 8), rows(num_clusters, 8, seed=1)
    found = lloyd(embeddings, start, 1)
    centroids, assignments = oracle(embeddings, start, 1)
    torch.testing.assert_close(found.centroids, centroids)
    assert found.assignments.equal(assignments)


def test_the_first_centroids_are_different_rows_that_the_generator_draws():
    embeddings = rows(30)
    first, again, other = (drawn(embeddings, 30, 0, seed=seed).centroids for seed in (0, 0, 1))
    assert first.equal(again) and not first.equal(other)
    assert sorted(first.tolist()) == sorted(embeddings.tolist())


@pytest.mark.parametrize("num_iters", [1, 4])
def test_a_cluster_without_rows_stays_where_it_is(num_iters):
    embeddings = rows(50).abs()
    start = torch.cat([embeddings[:3], -embeddings[:1]])
    centroids, assignments = lloyd(embeddings, start, num_iters)
    assert 3 not in assignments.tolist()
    torch.testing.assert_close(centroids[3], start[3], rtol=0, atol=1e-15)
    assert not torch.allclose(centroids[0], start[0])


def test_of_two_equal_centroids_the_lower_gets_the_rows_and_the_other_stays():
    embeddings = rows(50)
    start = embeddings[[3, 7, 3, 9]]
    assert set(lloyd(embeddings, start, 0).assignments.tolist()) == {0, 1, 3}
    centroids, _ = lloyd(embeddings, start, 1)
    torch.testing.assert_close(centroids[2], start[2], rtol=0, atol=1e-15)
    assert not torch.allclose(centroids[0], start[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("num_clusters", [2, 17, 63, 65, 300])
def test_rounding_does_not_tell_equal_centroids_apart(num_clusters, dtype):
    # a product of few rows, or at the edge of a matrix, may be summed in another order
    start = rows(1, 33, seed=1, dtype=dtype).repeat(num_clusters, 1)
    for num in (1, 2, 3, 50):
        for seed in range(5):
            embeddings = rows(num, 33, seed=seed, dtype=dtype)
            assert lloyd(embeddings, start, 0).assignments.unique().tolist() == [0]


def test_rows_that_are_all_equal_stay_where_they_are():
    embeddings = rows(1, 33, dtype=torch.float32).repeat(40, 1)
    centroids, _ = drawn(embeddings, 20, 3)
    torch.testing.assert_close(centroids, embeddings[:20])


def test_what_was_given_is_not_changed():
    embeddings, start = rows(20), rows(4, seed=1)
    before = embeddings.clone(), start.clone()
    lloyd(embeddings, start, 3)
    assert embeddings.equal(before[0]) and start.equal(before[1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_centroids_have_the_dtype_of_the_embeddings(dtype):
    found = drawn(rows(20, dtype=dtype), 4, 3)
    assert found.centroids.dtype == dtype
    assert found.assignments.dtype == torch.int64


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    embeddings = rows(20).to(dtype)
    found, exact = drawn(embeddings, 4, 3), drawn(embeddings.float(), 4, 3)
    assert found.centroids.dtype == torch.float32
    assert found.centroids.equal(exact.centroids)
    assert found.assignments.equal(exact.assignments)


def part_of_this_rank(ends: list[int], num_iters: int) -> list[Clustering]:
    """This rank's part of 40 rows, cut at ``ends``."""
    start, end = ends[distributed.rank() :][:2]
    whole = [rows(40, seed=seed) for seed in (0, 1)]
    return [lloyd(some[start:end], some[[1, 8, 1, 20, 33]], num_iters) for some in whole]


@pytest.mark.parametrize("num_iters", [0, 1, 10])
@pytest.mark.parametrize(
    "ends", [[0, 20, 40], [0, 33, 40], [0, 40, 40], [0, 10, 11, 40], [0, 30, 30, 40]]
)
def test_several_ranks_find_what_one_finds(ends, num_iters):
    on_ranks = run_on_ranks(part_of_this_rank, len(ends) - 1, ends, num_iters)
    for whole, *parts in zip(part_of_this_rank([0, 40], num_iters), *on_ranks, strict=True):
        torch.testing.assert_close(parts[0].centroids, whole.centroids)
        assert all(part.centroids.equal(parts[0].centroids) for part in parts)
        assert torch.cat([part.assignments for part in parts]).equal(whole.assignments)


def float32_centroids_of_this_rank() -> Tensor:
    mine = rows(500 + 7 * distributed.rank(), 33, seed=distributed.rank(), dtype=torch.float32)
    return drawn(mine, 70, 5).centroids


def test_centroids_are_the_same_on_all_ranks_to_the_bit():
    first, *others = run_on_ranks(float32_centroids_of_this_rank, 3)
    assert all(other.equal(first) for other in others)


def drawn_by_this_rank(counts: list[int], num_clusters: int) -> Tensor | str:
    rank = distributed.rank()
    try:
        return drawn(rows(counts[rank], seed=rank), num_clusters, 0, seed=rank).centroids
    except ValueError as error:
        return str(error)


def test_all_ranks_start_from_rows_of_the_first():
    first, second = run_on_ranks(drawn_by_this_rank, 2, [6, 3], 4)
    assert first.equal(second)
    assert all(row in rows(6, seed=0).tolist() for row in first.tolist())


def test_too_few_rows_on_the_first_rank_are_refused_by_all():
    found = run_on_ranks(drawn_by_this_rank, 2, [3, 9], 4)
    assert found == ["num_clusters=4: the first process has 3 embeddings to draw them from"] * 2


def test_a_centroid_whose_rows_cancel_or_are_zeros_stays_where_it_is():
    first, second, third = torch.eye(3, dtype=torch.float64)
    embeddings = torch.stack([first + second, first - second, second - first, -first - second])
    embeddings = torch.cat([F.normalize(embeddings, dim=1), torch.zeros(3, 3).double()])
    start = torch.stack([third, -third])  # at right angles to all: rows go to the first
    found = lloyd(embeddings, start, 3)
    assert found.centroids.equal(start)
    assert found.assignments.tolist() == [0] * 7


def test_rows_that_are_not_finite_are_refused():
    embeddings = rows(10)
    embeddings[1, 2], embeddings[3, 0] = torch.nan, torch.inf
    with pytest.raises(ValueError, match=r"^embeddings: 2 of 10 rows are NaN or infinite$"):
        drawn(embeddings, 4, 1)


@pytest.mark.parametrize("entries", [1, 1000, 20_000])
def test_the_block_changes_nothing(entries, monkeypatch):
    embeddings, start = rows(300), rows(50, seed=1)
    expected = lloyd(embeddings, start, 5)
    monkeypatch.setattr(kmeans, "BLOCK_ENTRIES", entries)
    found = lloyd(embeddings, start, 5)
    torch.testing.assert_close(found.centroids, expected.centroids)
    assert found.assignments.equal(expected.assignments)


@pytest.mark.parametrize(("num", "num_clusters"), [(100_000, 100), (6000, 3000)])
def test_the_products_of_all_rows_are_never_held_at_once(num, num_clusters):
    embeddings = rows(num, 4, dtype=torch.float32)
    with HeldMemory() as memory:
        lloyd(embeddings, embeddings[:num_clusters], 1)
    assert memory.most <= 2**24 < num * num_clusters * embeddings.itemsize
