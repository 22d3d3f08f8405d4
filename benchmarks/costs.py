"""What a training costs as it grows: the collectives of a step and of an epoch, and the memory that
grows with the number of images. Formulas only; `scaling.py` holds them against counts.

Every function names the code whose cost it tells. Bytes are what a rank hands to a collective; what
the network carries of them is `sent`.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

FLOAT32, FLOAT64, INT64 = 4, 8, 8
MIB = 2**20
HOST, DEVICE = "host", "device"
# of DistributedDataParallel: the first bucket to be ready is small, so that sending begins early
FIRST_BUCKET, BUCKET = MIB, 25 * MIB


class Call(NamedTuple):
    """Collectives that are alike."""

    purpose: str
    op: str  # allreduce, allgather or broadcast
    bytes: int  # of one call
    times: int = 1
    ranks: int | None = None  # that take part; None for all


@dataclass(frozen=True)
class Shapes:
    """What of a model decides its traffic."""

    gradients: Sequence[int]  # bytes of each, in the order in which a backward pass has them ready
    float_buffers: int  # bytes
    int_buffers: int
    trunk_norms: Sequence[int]  # channels of each batch norm
    head_norms: Sequence[int]


def sent(call: Call, world_size: int) -> float:
    """Bytes that a rank sends, by the algorithms that send least (rings)."""
    ranks = call.ranks or world_size
    share = {"allreduce": 2 * (ranks - 1) / ranks, "allgather": ranks - 1, "broadcast": 1}
    return share[call.op] * call.bytes * call.times


def by_size(calls: Iterable[Call]) -> Counter[tuple[str, int]]:
    """How often each kind of collective is called with each number of bytes."""
    counts: Counter[tuple[str, int]] = Counter()
    for call in calls:
        counts[call.op, call.bytes] += call.times
    return counts


# ---- of every method, each step


def step(shapes: Shapes, *, num_resolutions: int, gpu: bool, sync_ranks: int) -> list[Call]:
    """A step without the assignment.

    Args:
        shapes: of the model.
        num_resolutions: different sizes of crops: the trunk's batch norms see each by itself, the
            heads' all at once (`SSLModel.forward`).
        gpu: whether NCCL's kinds of batch norm and Sinkhorn are used, or those of a CPU.
        sync_ranks: that share the statistics of a batch norm; 1 for none.
    """
    return [
        *buckets(shapes.gradients),
        Call("buffers, DDP", "broadcast", shapes.float_buffers),
        Call("buffers, DDP", "broadcast", shapes.int_buffers),
        *batch_norms(shapes.trunk_norms, num_resolutions, gpu, sync_ranks, backward=True),
        *batch_norms(shapes.head_norms, 1, gpu, sync_ranks, backward=True),
        Call("is it finite", "allreduce", INT64),  # hooks.finite
        Call("agreement: stop, save", "allreduce", 3 * INT64),  # engine.between_steps
    ]


def buckets(gradients: Sequence[int]) -> list[Call]:
    """Gradients as DDP sends them from its second step on: collected as they are ready, and sent
    when there are enough."""
    sizes, filled, limit = [], 0, FIRST_BUCKET
    for size in gradients:
        filled += size
        if filled >= limit:
            sizes.append(filled)
            filled, limit = 0, BUCKET
    return [Call("gradients", "allreduce", size) for size in [*sizes, filled] if size]


def batch_norms(
    channels: Sequence[int], passes: int, gpu: bool, sync_ranks: int, *, backward: bool
) -> list[Call]:
    """On a CPU `AllReduceBatchNorm`: count, sum and squares, then the gradients of the two sums. On
    a GPU torch's `SyncBatchNorm`: all of it at once, then the gradients at once."""
    if sync_ranks == 1:
        return []
    calls = []
    for width in channels:
        if gpu:
            forward = [("allgather", 2 * width + 1, 1)]
            back = [("allreduce", 2 * width, 1)]
        else:
            forward = [("allreduce", 1, 1), ("allreduce", width, 2)]
            back = [("allreduce", width, 2)]
        calls += [
            Call("batch norm", op, FLOAT32 * numbers, times * passes, sync_ranks)
            for op, numbers, times in [*forward, *(back if backward else [])]
        ]
    return calls


# ---- of a method


def sinkhorn(num_prototypes: int, *, num_iters: int, num_crops: int, gpu: bool) -> list[Call]:
    """SwAV, each step: `ops.sinkhorn.sinkhorn` for each crop that assigns.

    The queue adds nothing: that of a rank stays there.
    """
    sums = Call("Sinkhorn", "allreduce", num_prototypes * FLOAT32)
    if gpu:  # by logarithms: a maximum and a sum in each iteration
        return [sums._replace(times=num_crops * num_iters * 2)]
    return [  # by factors: the range of the scores, and a sum in each iteration
        Call("Sinkhorn", "allreduce", 2 * FLOAT32, num_crops),
        sums._replace(times=num_crops * num_iters),
    ]


def kmeans(num_prototypes: int, dim: int, *, num_iters: int) -> list[Call]:
    """DeepCluster-v2, each epoch and set of prototypes: `ops.kmeans.spherical_kmeans`."""
    centroids = num_prototypes * dim * FLOAT32
    return [
        Call("k-means", "broadcast", INT64),  # rows of the first rank
        Call("k-means", "broadcast", centroids),
        Call("k-means", "allreduce", centroids, num_iters),
        Call("k-means", "allreduce", num_prototypes * INT64, num_iters),
    ]


def balanced_labels(num_prototypes: int, *, num_iters: int, converged: bool) -> list[Call]:
    """SeLa-v2, each epoch and set of prototypes: `ops.sinkhorn.balanced_labels`."""
    column = Call("Sinkhorn of the bank", "allreduce", num_prototypes * FLOAT64)
    return [
        Call("Sinkhorn of the bank", "allreduce", INT64),  # samples
        # a maximum and a sum at first; then a sum after every iteration but one that converges
        column._replace(times=2 + num_iters - converged),
        Call("Sinkhorn of the bank", "allreduce", FLOAT64, num_iters),  # the error
    ]


def labels(local_samples: int) -> list[Call]:
    """Both, each epoch and set of prototypes: `MemoryBank.spread` of positions and labels."""
    return [Call("labels to all ranks", "allgather", local_samples * INT64, 2)]


def first_bank(
    shapes: Shapes, *, num_steps: int, num_crops: int, gpu: bool, sync_ranks: int
) -> list[Call]:
    """Both, once in a run: `MemoryBank.fill`, in train mode, crop by crop and without gradients."""
    norms = [*shapes.trunk_norms, *shapes.head_norms]
    calls = batch_norms(norms, num_steps * num_crops, gpu, sync_ranks, backward=False)
    return [call._replace(purpose="first bank: batch norm") for call in calls]


# ---- memory


class Array(NamedTuple):
    """Something that grows with the number of images."""

    name: str
    bytes: float  # for N images
    place: str  # host or device, of each process
    lasts: str  # run, or the moment at which it is needed


@dataclass(frozen=True)
class Bank:
    """What the offline methods hold."""

    num_sets: int  # of prototypes
    num_slabs: int  # crops that assign
    dim: int


def memory(
    num_images: int, world_size: int, *, name_bytes: float, bank: Bank | None
) -> list[Array]:
    """Every array of a training whose size depends on the number of images, N.

    The images lie in class folders. Each of the W ranks has S = N / W of an epoch's images, and
    everything of the host by itself; its data workers share it.

    Args:
        num_images: N.
        world_size: W.
        name_bytes: mean length of a file's name without its folder.
        bank: of an offline method; None for one that assigns batch by batch.
    """
    n, s = num_images, num_images / world_size
    arrays = [
        # FileTable; the offsets are 32 bits wide as long as they can be
        Array("file names", n * (name_bytes + (4 if n * name_bytes < 2**32 else 8)), HOST, "run"),
        Array("labels", n * INT64, HOST, "run"),
        Array("positions of the epoch, as Python's numbers", s * 40, HOST, "run"),
        Array("scan of the folder", 2 * n * (name_bytes + 2), HOST, "start"),
        Array("fingerprint", 2 * n * INT64, HOST, "start"),
        Array("kNN: labelled images, equally per class", 58 * n, HOST, "start"),
        Array("order of the epoch", order_peak(n, world_size) - s * 40, HOST, "epoch's start"),
    ]
    if bank is not None:
        table = bank.num_sets * n * INT64
        arrays += [
            Array("bank: embeddings", s * bank.num_slabs * bank.dim * FLOAT32, DEVICE, "run"),
            Array("bank: positions", s * INT64, DEVICE, "run"),
            Array("cluster labels of all images", table, DEVICE, "run"),
            Array("labels to all ranks (`spread`)", 5 * n * INT64, DEVICE, "assignment"),
            Array("copies of the cluster labels, rank 0", 2 * table, HOST, "run"),  # a checkpoint's
            Array("NMI with the labels before, rank 0", 81 * n, HOST, "assignment"),
        ]
    return arrays


def order_peak(num_images: int, world_size: int) -> float:
    """Bytes of `ShuffledSampler.__iter__` at most, the list that stays included.

    First the permutation, a rotated copy of it and this rank's part; then the permutation, two
    copies of that part and the list that is made of it, 40 bytes for each number. One rank's part
    is the permutation itself.
    """
    n, s = INT64 * num_images, INT64 * num_images / world_size
    part = s if world_size > 1 else 0
    return max(2 * n + part, n + part + s + 5 * s)
