"""Collectives of a training: predicted by the formulas of `costs.py`, and counted.

    python benchmarks/scaling.py [NAME ...] [--processes 2 4 8]
    python benchmarks/scaling.py --recipes          predictions for ResNet-50, nothing is counted
    python benchmarks/scaling.py --memory           what grows with the number of images

Tiny trainings of each method with gloo on this machine. Counted is what reaches torch's dispatcher:
every collective, those included that DDP starts in C++, and the bytes that a rank hands to it.
"""

from ratios import print_table  # noqa: F401  # isort: skip (threads)

import argparse
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import costs
import torch
import torch.distributed as dist
from costs import Call, Shapes
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

from ssl_platform import distributed
from ssl_platform.config import compose
from ssl_platform.config.options import TrainOptions, options_of
from ssl_platform.config.source import Source
from ssl_platform.data.batch import DataInfo
from ssl_platform.engine.build import Builder, data_info
from ssl_platform.engine.loop import between_steps, train_step
from ssl_platform.engine.saver import Saver
from ssl_platform.engine.stopping import StopSignals
from ssl_platform.models.heads import prototype_head
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import LOSSES, load_components

TINY = [
    "data.train.num_samples=128",  # 4 steps
    "data.val.num_samples=16",
    "data.batch_size=32",
    "data.num_workers=0",
    "heads.prototypes.hidden_dim=16",
    "heads.prototypes.out_dim=8",
    "schedule.warmup_epochs=0",
    "~hooks.knn",
    "hooks.log.every_steps=1000",  # a line of it is one more collective, of 4 bytes
    "loggers.tensorboard.enabled=false",
    "launch.threads=1",
]
SETS = "heads.prototypes.num_prototypes=[12, 8, 12]"
TRAININGS = {
    "swav": [
        "config=pretrain/swav/quickstart",
        *TINY,
        "heads.prototypes.num_prototypes=[12]",
        "loss.queue_length=32",
        "loss.queue_start_epoch=0",
    ],
    "deepcluster_v2": ["config=pretrain/deepcluster_v2/quickstart", *TINY, SETS],
    "sela_v2": [
        "config=pretrain/sela_v2/quickstart",
        *TINY,
        SETS,
        "loss.tolerance=0",  # never reached, so that the number of iterations is known
        "loss.max_iters=7",
    ],
    "swav, ResNet-50": [  # the published model on small crops: what it sends is the same
        "config=pretrain/swav/quickstart",
        *TINY,
        "trunk=resnet50",
        "heads.prototypes={hidden_dim: 2048, out_dim: 128, num_prototypes: [3000]}",
        "loss.queue_length=0",
    ],
}
RECIPES = {  # with the processes that they are for
    "swav/rn50_800ep_8gpu": 8,
    "swav/rn50_800ep": 64,
    "deepcluster_v2/rn50_400ep_8gpu": 8,
    "deepcluster_v2/rn50_400ep": 64,
    "sela_v2/rn50_400ep_8gpu": 8,
    "sela_v2/rn50_400ep": 64,
}
IMAGENET = 1_281_167
MANY = 10**9
NAME_BYTES = 20  # n01440764_10026.JPEG
Moments = dict[str, list[Call]]  # step, first bank, assignment (of an epoch)


class Collectives(TorchDispatchMode):
    """Counts the collectives that are called in it, by kind and bytes of this rank's tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[tuple[str, int]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func.namespace == "c10d":
            op = func.__name__.partition("_.")[0]
            tensors = args[1] if op == "allgather" else args[0]  # the former has its outputs first
            self.calls[op, sum(tensor.nbytes for tensor in tensors)] += 1
        return func(*args, **(kwargs or {}))


def count(overrides: list[str], output_dir: str) -> tuple[Moments, dict[str, Counter]]:
    """Predict and count the collectives of a training; collective itself.

    Returns:
        Predictions, and counts by the same names of moments.
    """
    world_size = distributed.world_size()
    own = [f"launch.processes={world_size}", f"output_dir={output_dir}", "device=cpu"]
    options = options_of(compose([*overrides, *own]))
    assert isinstance(options, TrainOptions)
    run, saver = Builder(options).run(), Saver(Path(output_dir), options.save)
    run.replica.train()
    counts = {}
    gradients = ready_gradients(run.model)
    run.fire("on_train_start")
    with Collectives() as counted:
        run.loss.on_epoch_start(run)
    first = counted.calls
    for hook in run.hooks.values():
        hook.on_epoch_start(run)
    with StopSignals() as stop:
        for batch in run.train_loader:  # what comes after the epoch is not looked at
            with Collectives() as counted:
                train_step(batch, run)
                between_steps(run, saver, stop)
            counts["step"] = counted.calls  # the last counts: DDP settles its buckets in the first
    run.epoch = 1
    with Collectives() as counted:
        run.loss.on_epoch_start(run)
    counts["assignment"] = counted.calls
    counts["first bank"] = first - counted.calls
    crop_sizes = run.train_loader.transform.crop_sizes
    info = data_info(
        options,
        num_samples=len(run.train_data),
        num_classes=None,
        num_crops=len(crop_sizes),
        world_size=world_size,
    )
    group = options.sync_batch_norm.group_size or world_size
    predicted = predict(
        run.model,
        shapes_of(run.model, gradients[: len(gradients) // run.step]),
        options,
        info,
        num_resolutions=len(set(crop_sizes)),
        gpu=False,
        sync_ranks=min(group, world_size) if options.sync_batch_norm.enabled else 1,
    )
    return predicted, counts


def predict(
    model: SSLModel,
    shapes: Shapes,
    options: TrainOptions,
    info: DataInfo,
    *,
    num_resolutions: int,
    gpu: bool,
    sync_ranks: int,
) -> Moments:
    """The formulas, put together for a method."""
    loss = options.loss
    head = prototype_head(model, loss["head"])
    crops = len(loss["assign_crops"])
    step = costs.step(shapes, num_resolutions=num_resolutions, gpu=gpu, sync_ranks=sync_ranks)
    if loss["name"] == "SwAVLoss":
        (k,) = head.num_prototypes
        iters = loss["sinkhorn_iters"]
        step += costs.sinkhorn(k, num_iters=iters, num_crops=crops, gpu=gpu)
        return {"step": step, "first bank": [], "assignment": []}
    assignment: list[Call] = []
    for k in head.num_prototypes:
        if loss["name"] == "DeepClusterV2Loss":
            assignment += costs.kmeans(k, head.out_dim, num_iters=loss["kmeans_iters"])
        else:
            iters = loss["max_iters"]
            assignment += costs.balanced_labels(k, num_iters=iters, converged=False)
        assignment += costs.labels(info.num_local_samples)
    first_bank = costs.first_bank(
        shapes,
        num_steps=info.steps_per_epoch,
        num_crops=crops,
        gpu=gpu,
        sync_ranks=sync_ranks,
    )
    return {"step": step, "first bank": first_bank, "assignment": assignment}


def ready_gradients(model: nn.Module) -> list[int]:
    """A list that every backward pass from now on adds to: bytes of each gradient that it makes, in
    the order of autograd's graph."""
    found: list[int] = []
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(lambda p: found.append(p.nbytes))
    return found


def shapes_of(model: SSLModel, gradients: list[int]) -> Shapes:
    """What of a model decides its traffic, given the bytes of its gradients as they are ready."""
    buffers = list(model.buffers())
    return Shapes(
        gradients=gradients,
        float_buffers=sum(b.nbytes for b in buffers if b.is_floating_point()),
        int_buffers=sum(b.nbytes for b in buffers if not b.is_floating_point()),
        trunk_norms=_channels(model.trunk),
        head_norms=_channels(model.heads),
    )


def _channels(module: nn.Module) -> list[int]:
    return [norm.num_features for norm in module.modules() if isinstance(norm, _BatchNorm)]


def of_recipe(name: str, world_size: int) -> Moments:
    """Predictions for a published recipe on GPUs, without its images."""
    cfg, _ = Source.of([f"config=pretrain/{name}", "data.train.path=/"]).read()
    load_components()
    options = options_of(cfg)
    assert isinstance(options, TrainOptions)
    groups = options.data.transform["crops"].values()
    sizes = [group["size"] for group in groups if group["count"]]
    info = data_info(
        options,
        num_samples=IMAGENET,
        num_classes=None,
        num_crops=sum(group["count"] for group in groups),
        world_size=world_size,
    )
    with torch.device("meta"):
        model = Builder(options, device=torch.device("meta"), world_size=1).model
        LOSSES.build(options.loss, model, info)  # it may freeze the prototypes
        gradients = ready_gradients(model)
        outputs = model([torch.zeros(2, 3, size, size) for size in sizes])
        torch.stack([s.sum() for s in outputs[options.loss["head"]].scores]).sum().backward()
    sync = options.sync_batch_norm
    return predict(
        model,
        shapes_of(model, gradients),
        options,
        info,
        num_resolutions=len(set(sizes)),
        gpu=True,
        sync_ranks=min(sync.group_size or world_size, world_size) if sync.enabled else 1,
    )


def rows(moments: Moments, world_size: int) -> Iterator[str]:
    """Calls and bytes by purpose, as a Markdown table."""
    for moment, calls in moments.items():
        ordered = sorted(calls, key=lambda call: call.purpose)
        for purpose, group in groupby(ordered, key=lambda call: call.purpose):
            alike = list(group)
            handed = sum(call.bytes * call.times for call in alike)
            sent = sum(costs.sent(call, world_size) for call in alike)
            times = sum(call.times for call in alike)
            yield f"| {moment} | {purpose} | {times:,} | {handed:,} | {sent / 1e6:,.2f} |"


def memory_rows() -> Iterator[str]:
    """GB of each process with the recipes' bank, as a Markdown table."""
    cases = [(n, w) for n in (IMAGENET, MANY) for w in (8, 64)]
    yield f"| what | where | when | {' | '.join(f'{n:.3g} on {w}' for n, w in cases)} |"
    yield f"|{'---|' * (3 + len(cases))}"
    bank = costs.Bank(num_sets=3, num_slabs=2, dim=128)
    columns = [costs.memory(n, w, name_bytes=NAME_BYTES, bank=bank) for n, w in cases]
    for arrays in zip(*columns, strict=True):
        name, _, place, lasts = arrays[0]
        sizes = " | ".join(f"{array.bytes / 1e9:.3g}" for array in arrays)
        yield f"| {name} | {place} | {lasts} | {sizes} |"


def totals(calls: Counter[tuple[str, int]]) -> str:
    """Calls and bytes, for a cell of the table."""
    size = sum(size * times for (_, size), times in calls.items())
    return f"{sum(calls.values()):,} calls, {size:,} bytes"


def _on_rank(rank: int, world_size: int, folder: str, name: str) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # as in a training
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world_size
    )
    predicted, counted = count(TRAININGS[name], f"{folder}/run")
    if rank == 0:
        for moment, calls in predicted.items():
            expected = costs.by_size(calls)
            told = [totals(calls) for calls in (expected, counted[moment])]
            if not expected and not counted[moment]:
                continue  # the method has nothing to do then
            verdict = "equal" if expected == counted[moment] else "DIFFERENT"
            print(f"| {name} | {world_size} | {moment} | {' | '.join(told)} | {verdict} |")
    dist.barrier()
    dist.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(TRAININGS))
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 4, 8])
    parser.add_argument("--recipes", action="store_true")
    parser.add_argument("--memory", action="store_true")
    args = parser.parse_args()
    unknown = set(args.names) - set(TRAININGS)
    if unknown:
        parser.error(f"no such training: {', '.join(sorted(unknown))}")
    if args.recipes:
        for name, world_size in RECIPES.items():
            print(f"\n{name}, {world_size} GPUs\n")
            print("| when | what | calls | bytes of a rank | MB that it sends |")
            print("|---|---|---|---|---|")
            print("\n".join(rows(of_recipe(name, world_size), world_size)))
        return
    if args.memory:
        print("\n".join(memory_rows()))
        return
    print("| method | processes | when | predicted | counted | |\n|---|---|---|---|---|---|")
    for name in args.names or TRAININGS:
        for world_size in args.processes:
            with tempfile.TemporaryDirectory() as folder:
                Path(f"{folder}/run").mkdir()
                torch.multiprocessing.spawn(_on_rank, (world_size, folder, name), nprocs=world_size)


if __name__ == "__main__":
    main()
