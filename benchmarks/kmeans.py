"""Cost of spherical k-means against the straightforward form and against faiss.

    python benchmarks/kmeans.py [--rounds 3] [--rows 100000] [--clusters 3000]

Two iterations and the assignment from the same centroids. CPU time of one thread, rounds
interleaved in one process, so that a busy machine slows all alike. The straightforward form holds
all dot products at once (1.2 GB here) and averages one cluster after the other. faiss is left out
where it is not installed (pip install faiss-cpu).
"""

import argparse
import statistics
from collections.abc import Callable
from time import process_time

import numpy as np
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
        assignments = (embeddings @ centroids.T).argmax(dim=1)
        for cluster in range(len(centroids)):
            members = embeddings[assignments == cluster]
            if len(members):
                centroids[cluster] = members.mean(dim=0)
        centroids = F.normalize(centroids, dim=1)
    return (embeddings @ centroids.T).argmax(dim=1)


def faiss(embeddings: Tensor, start: Tensor) -> Tensor:
    import faiss

    faiss.omp_set_num_threads(1)
    clusters, dim = start.shape
    # no subsampling; faiss counts the assignment after the last update as an iteration of its own
    kmeans = faiss.Kmeans(
        dim, clusters, niter=NUM_ITERS, spherical=True, max_points_per_centroid=len(embeddings),
        min_points_per_centroid=1,
    )  # fmt: skip
    kmeans.train(embeddings.numpy(), init_centroids=start.numpy())
    return torch.from_numpy(kmeans.index.search(embeddings.numpy(), 1)[1][:, 0])


def extra_mebibytes(embeddings: Tensor, start: Tensor) -> float:
    """Most memory held at once beyond the arguments."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        platform(embeddings, start)
    held = np.cumsum(
        [
            event.self_cpu_memory_usage if event.name != "[memory]" else event.cpu_memory_usage
            for event in sorted(recorded.events(), key=lambda event: event.time_range.start)
        ]
    )
    return held.max() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--clusters", type=int, default=3000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    embeddings = F.normalize(torch.randn(arguments.rows, DIM), dim=1)
    start = embeddings[torch.randperm(arguments.rows)[: arguments.clusters]].clone()

    contenders: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "straightforward": straightforward,
        "platform": platform,
    }
    try:
        import faiss as _

        contenders["faiss"] = faiss
    except ImportError:
        print("faiss: not installed, left out (pip install faiss-cpu)")
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    found = {}
    for _ in range(arguments.rounds):
        for name, run in contenders.items():
            begin = process_time()
            found[name] = run(embeddings, start)
            seconds[name].append(process_time() - begin)

    print(f"k-means, {arguments.rows} x {DIM}, K {arguments.clusters}, CPU seconds of one thread")
    for name, values in seconds.items():
        equal = (found[name] == found["platform"]).double().mean()
        median, spread = statistics.median(values), f"{min(values):.2f} to {max(values):.2f}"
        ratio = median / statistics.median(seconds["platform"])
        print(f"  {name:16} {median:5.2f} ({spread}), {ratio:4.2f} x platform, {equal:.3%} equal")
    print(f"  platform holds {extra_mebibytes(embeddings, start):.0f} MiB beyond its arguments")


if __name__ == "__main__":
    main()
