"""Cost of spherical k-means against the straightforward form and against faiss.

    python benchmarks/kmeans.py [--rounds 5]

100,000 rows, 3000 clusters: two iterations and the assignment, from the same centroids. CPU time of
one thread, rounds interleaved in one process, so that a busy machine slows all alike. The
straightforward form holds all dot products at once and averages one cluster after the other. faiss
is left out where it is not installed (pip install faiss-cpu).
"""

from ratios import Row, extra_mebibytes, rounds_of, run_alone, speedups  # isort: skip (threads)

import importlib.util
from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.kmeans import lloyd

NUM_ROWS, NUM_CLUSTERS, DIM, NUM_ITERS = 100_000, 3000, 128, 2


def platform(embeddings: Tensor, start: Tensor) -> Tensor:
    return lloyd(embeddings, start, NUM_ITERS).assignments


def straightforward(embeddings: Tensor, start: Tensor) -> Tensor:
    centroids = start.clone()
    for _ in range(NUM_ITERS):
        assignments = (embeddings @ centroids.T).max(dim=1).indices
        for cluster in range(len(centroids)):
            members = (assignments == cluster).nonzero()[:, 0]
            if len(members):
                centroids[cluster] = embeddings[members].mean(dim=0)
        centroids = F.normalize(centroids, dim=1)
    return (embeddings @ centroids.T).max(dim=1).indices


def faiss(embeddings: Tensor, start: Tensor) -> Tensor:
    import faiss

    faiss.omp_set_num_threads(1)
    clusters, dim = start.shape
    # neither a sample of the rows nor a warning about few of them
    kmeans = faiss.Kmeans(
        dim, clusters, niter=NUM_ITERS, spherical=True, min_points_per_centroid=1,
        max_points_per_centroid=len(embeddings),
    )  # fmt: skip
    kmeans.train(embeddings.numpy(), init_centroids=start.numpy())
    return torch.from_numpy(kmeans.index.search(embeddings.numpy(), 1)[1][:, 0])


def rows(rounds: int) -> Iterator[Row]:
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(NUM_ROWS, DIM), dim=1)
    start = embeddings[torch.randperm(NUM_ROWS)[:NUM_CLUSTERS]]
    methods = {"platform": platform, "straightforward": straightforward}
    if importlib.util.find_spec("faiss"):
        methods["faiss"] = faiss
    else:
        print("faiss is not installed, left out (pip install faiss-cpu)")
    assignments = {}

    def run(name: str) -> None:
        assignments[name] = methods[name](embeddings, start)

    seconds = rounds_of({name: partial(run, name) for name in methods}, rounds)
    for peer, target in (("straightforward", 1.5), ("faiss", 1 / 1.3)):
        if peer in methods:
            yield Row(f"k-means, {peer}", speedups(seconds[peer], seconds["platform"]), target)
            other = (assignments[peer] != assignments["platform"]).double().mean().item()
            yield Row(f"k-means, assigned otherwise than by {peer}, %", [100 * other], 1, "")
    held = extra_mebibytes(lambda: platform(embeddings, start))
    yield Row("k-means, memory beside the arguments", [held], 64, "MiB")


if __name__ == "__main__":
    run_alone(__doc__, rows, 5)
