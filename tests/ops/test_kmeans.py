import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import run_on_ranks
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_platform import distributed
from ssl_platform.ops import kmeans
from ssl_platform.ops.kmeans import spherical_kmeans


def rows(num: int, dim: int = 5, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(num, dim, dtype=dtype, generator=generator), dim=1)


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


@settings(deadline=None, max_examples=25)
@given(
    num=st.integers(1, 40),
    dim=st.integers(1, 6),
    num_clusters=st.integers(1, 8),
    num_iters=st.integers(0, 5),
    seed=st.integers(0, 1000),
)
def test_it_is_the_definition(num, dim, num_clusters, num_iters, seed):
    embeddings, start = rows(num, dim, seed), rows(num_clusters, dim, seed + 1)
    found = spherical_kmeans(
        embeddings, num_clusters=num_clusters, num_iters=num_iters, initial_centroids=start
    )
    centroids, assignments = oracle(embeddings, start, num_iters)
    torch.testing.assert_close(found.centroids, centroids)
    assert torch.equal(found.assignments, assignments)


def test_the_first_centroids_are_different_rows_that_the_generator_draws():
    embeddings = rows(30)
    found = [
        spherical_kmeans(
            embeddings,
            num_clusters=30,
            num_iters=0,
            generator=torch.Generator().manual_seed(seed),
        ).centroids
        for seed in (0, 0, 1)
    ]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
    assert sorted(found[0].tolist()) == sorted(embeddings.tolist())


def test_every_iteration_brings_rows_and_centroids_closer():
    embeddings, start = rows(200), rows(12, seed=1)
    closeness = []
    for num_iters in range(8):
        centroids, assignments = spherical_kmeans(
            embeddings, num_clusters=12, num_iters=num_iters, initial_centroids=start
        )
        closeness.append((embeddings * centroids[assignments]).sum().item())
    assert closeness == sorted(closeness) and closeness[-1] > closeness[0] + 1


def test_a_second_centroid_at_the_same_place_gets_no_rows_and_stays():
    embeddings = rows(50)
    start = embeddings[[3, 7, 3, 9]].clone()
    centroids, _ = spherical_kmeans(
        embeddings, num_clusters=4, num_iters=1, initial_centroids=start
    )
    torch.testing.assert_close(centroids[2], start[2])
    assert not torch.allclose(centroids[0], start[0])
    _, at_start = spherical_kmeans(embeddings, num_clusters=4, num_iters=0, initial_centroids=start)
    assert set(at_start.tolist()) == {0, 1, 3}


def test_the_order_of_the_rows_does_not_matter():
    embeddings, start = rows(60), rows(5, seed=1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    found, permuted = (
        spherical_kmeans(e, num_clusters=5, num_iters=6, initial_centroids=start)
        for e in (embeddings, embeddings[order])
    )
    torch.testing.assert_close(permuted.centroids, found.centroids)
    assert torch.equal(permuted.assignments, found.assignments[order])


def test_what_was_given_is_not_changed():
    embeddings, start = rows(20), rows(4, seed=1)
    before = embeddings.clone(), start.clone()
    spherical_kmeans(embeddings, num_clusters=4, num_iters=3, initial_centroids=start)
    assert torch.equal(embeddings, before[0]) and torch.equal(start, before[1])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_computed_in_float32(dtype):
    embeddings = rows(20).to(dtype)
    found = spherical_kmeans(
        embeddings, num_clusters=4, num_iters=3, initial_centroids=embeddings[:4]
    )
    exact = spherical_kmeans(
        embeddings.double(), num_clusters=4, num_iters=3, initial_centroids=embeddings[:4].double()
    )
    assert found.centroids.dtype == torch.float32
    torch.testing.assert_close(found.centroids, exact.centroids.float())


def of_a_rank(ends: list[int]) -> tuple[list[list[float]], list[int]]:
    """Cluster this rank's part of 40 rows, cut at ``ends``, from given centroids."""
    rank = distributed.rank()
    mine = rows(40)[ends[rank] : ends[rank + 1]]
    start = rows(40)[[1, 8, 1, 20, 33]]
    found = spherical_kmeans(mine, num_clusters=5, num_iters=10, initial_centroids=start)
    return found.centroids.tolist(), found.assignments.tolist()


@pytest.mark.parametrize("ends", [[0, 20, 40], [0, 33, 40], [0, 40, 40], [0, 10, 11, 40]])
def test_several_ranks_find_what_one_finds(ends):
    centroids, assignments = of_a_rank([0, 40])
    found = run_on_ranks(of_a_rank, len(ends) - 1, ends)
    torch.testing.assert_close(torch.tensor(found[0][0]), torch.tensor(centroids))
    assert all(c == found[0][0] for c, _ in found)  # to the bit
    assert [a for _, part in found for a in part] == assignments


def random_start_of_a_rank(counts: list[int], num_clusters: int) -> list[list[float]] | str:
    rank = distributed.rank()
    torch.manual_seed(rank)
    mine = rows(counts[rank], seed=rank)
    try:
        found = spherical_kmeans(mine, num_clusters=num_clusters, num_iters=0)
    except ValueError as error:
        return str(error)
    return found.centroids.tolist()


def test_all_ranks_start_from_rows_of_the_first():
    first, second = run_on_ranks(random_start_of_a_rank, 2, [6, 9], 4)
    assert first == second
    assert all(row in rows(6, seed=0).tolist() for row in first)


def test_too_few_rows_on_the_first_rank_are_refused_by_all():
    assert (
        run_on_ranks(random_start_of_a_rank, 2, [3, 9], 4)
        == ["num_clusters=4: the first process has 3 embeddings to draw them from"] * 2
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_clusters": 0}, "num_clusters=0: at least 1"),
        ({"num_iters": -1}, "num_iters=-1: 0 or more"),
        (
            {"initial_centroids": rows(3)},
            r"initial_centroids: shape \(3, 5\), must be \(4, 5\)",
        ),
    ],
)
def test_what_cannot_work_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        spherical_kmeans(rows(10), **({"num_clusters": 4, "num_iters": 1} | options))


class LargestTensor(TorchDispatchMode):
    """Remembers the entries of the largest tensor that is made."""

    entries = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.entries = max(self.entries, tensor.numel())
        return result


def test_memory_does_not_grow_with_rows_times_clusters(monkeypatch):
    monkeypatch.setattr(kmeans, "BLOCK_ENTRIES", 1000)
    embeddings = rows(300)
    expected = spherical_kmeans(
        embeddings, num_clusters=50, num_iters=0, initial_centroids=embeddings[:50]
    )
    with LargestTensor() as largest:
        found = spherical_kmeans(
            embeddings, num_clusters=50, num_iters=0, initial_centroids=embeddings[:50]
        )
    assert largest.entries <= embeddings.numel()  # 1500, not 300 x 50
    assert torch.equal(found.assignments, expected.assignments)
