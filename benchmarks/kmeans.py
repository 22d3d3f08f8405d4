"""Cost of spherical k-means against the straightforward form and against faiss.

    python benchmarks/kmeans.py [--rounds 5] [--rows 100000] [--clusters 3000]

Two iterations and the assignment, from the same centroids. CPU time of one thread, rounds
interleaved in one process, so that a busy machine slows all alike. The straightforward form holds
all dot products at once and averages one cluster after the other. faiss is left out where it is
not installed (pip install faiss-cpu).
"""

import os

# read once, on import: the BLAS of faiss has threads of its own, the profiler a log
os.environ |= {"OMP_NUM_THREADS": "1", "KINETO_LOG_LEVEL": "99"}

import argparse
import importlib.util
import statistics
from itertools import accumulate
from time import process_time

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ssl_platform.ops.kmeans import spherical_kmeans

DIM, NUM_ITERS = 128, 2


def platform(embeddings: Tensor, start: Tensor) -> Tensor:
    return spherical_kmeans(
        embeddings, num_clusters=len(start), num_iters=NUM_ITERS, initial_centroids=start
    ).assignments


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


def extra_mebibytes(embeddings: Tensor, start: Tensor) -> float:
    """The most that torch held at once beyond the arguments."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        platform(embeddings, start)
    events = sorted(recorded.events(), key=lambda event: event.time_range.start)
    held = accumulate(
        event.cpu_memory_usage if event.name == "[memory]" else event.self_cpu_memory_usage
        for event in events
    )
    return max(held) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=3000)
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(args.rows, DIM), dim=1)
    start = embeddings[torch.randperm(args.rows)[: args.clusters]]

    contenders = {"platform": platform, "straightforward": straightforward}
    if importlib.util.find_spec("faiss"):
        contenders["faiss"] = faiss
    else:
        print("faiss is not installed, left out (pip install faiss-cpu)")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    assignments = {}
    for _ in range(args.rounds):
        for name, cluster in contenders.items():
            begin = process_time()
            assignments[name] = cluster(embeddings, start)
            seconds[name].append(process_time() - begin)

    print(
        f"{args.rounds} rounds of {args.rows} x {DIM} rows, K {args.clusters}, "
        f"{NUM_ITERS} iterations and the assignment"
    )
    for name, values in seconds.items():
        equal = (assignments[name] == assignments["platform"]).double().mean()
        print(
            f"{name:16}{statistics.median(values):6.2f} CPU seconds "
            f"({min(values):.2f} .. {max(values):.2f})   {equal:.3%} of the platform's assignments"
        )
    for a, b in [("straightforward", "platform"), ("platform", "faiss")]:
        if a in seconds and b in seconds:
            ratios = [x / y for x, y in zip(seconds[a], seconds[b], strict=True)]
            print(f"{a} / {b}: {statistics.median(ratios):.2f}")
    print(f"the platform held {extra_mebibytes(embeddings, start):.0f} MiB beyond its arguments")


if __name__ == "__main__":
    main()
