"""Rules among the values of a config that no component owns."""

import os
from collections.abc import Iterator, Sequence
from math import ceil, prod
from pathlib import Path

import torch
from torch import nn

from ssl_platform.config.options import ImageJobOptions, JobOptions, TrainOptions
from ssl_platform.data.decoding.pixels import COLOURS
from ssl_platform.data.loading.transport import num_slots
from ssl_platform.engine.build import resolve_device
from ssl_platform.job.objective import problems_of_objective
from ssl_platform.launch import Launcher, joined_world, launcher_of, limits
from ssl_platform.ops.arithmetic import autocast_dtype
from ssl_platform.ops.image_size import ImageSize, height_and_width

COPIES_OF_WEIGHTS = 3  # that are trained, with gradients and the momentum of the optimizer
WORKER_BYTES = 32 * 2**20  # of a data worker, beside what it shares with its process
MAX_NAME = 255  # bytes
MEMORY_SHARE = 0.8  # of the machine, that a run may need


def problems_of_job(options: JobOptions) -> list[str]:
    """What is wrong among the keys that every job has."""
    launcher = launcher_of(options.launch)
    problems = [f"launch.{line}" for line in launcher.problems(options.launch)]
    if options.launch.launcher is not None and options.launch.slurm is not None:
        problems.append("launch.launcher: there is launch.slurm too; leave one of them null")
    if not options.name or ".." in Path(options.name).parts:
        problems.append(f"name={options.name}: a name of its own, without '..'")
    if not _can_be_a_path(options.output_dir):
        problems.append(f"output_dir={options.output_dir}: no directory can have such a name")
    elif Path(os.path.abspath(options.output_dir)) in Path.cwd().parents:
        problems.append(
            f"output_dir={options.output_dir}: the working directory lies in it; give the run "
            "a directory of its own"
        )
    is_training = isinstance(options, TrainOptions)
    if isinstance(options, ImageJobOptions) and not is_training and options.data.micro_batch:
        problems.append(
            f"data.micro_batch={options.data.micro_batch}: only a training has micro-batches; here "
            "data.eval_batch_size says how many images go through the model at once"
        )
    return problems + _problems_of_machine(options, launcher)


def _problems_of_machine(options: JobOptions, launcher: Launcher) -> list[str]:
    if joined_world() is not None:
        if options.launch.slurm is not None:
            return ["launch=slurm: this is a job already; use launch=one_process"]
        if options.launch.launcher is not None:
            return ["launch.launcher: the processes are there already; launch.launcher=null"]
    if launcher.is_elsewhere:  # device and limits are those of another machine
        return []
    num_workers = options.data.num_workers if isinstance(options, TrainOptions) else 0
    problems = limits.open_files_problems(world_size(options), num_workers)
    if not isinstance(options, TrainOptions):  # see problems_of_memory()
        problems += limits.addresses_problems()
    if options.device == "cuda" and not torch.cuda.is_available():
        problems.append("device=cuda: torch finds no GPU here; use device=cpu or device=auto")
    return problems


def problems_of_training(options: TrainOptions, num_samples: int) -> list[str]:
    """What is wrong among the numbers of a training of so many images; 0 where that is unknown."""
    problems = [*_problems_of_batch(options, num_samples), *_problems_of_precision(options)]
    if options.evaluate == "teacher" and options.teacher is None:
        problems.append("evaluate=teacher: there is no teacher; add teacher=ema, or leave it out")
    if options.weights is not None and options.checkpoint is None:
        problems.append(
            f"weights={options.weights}: of which checkpoint? set checkpoint=<a run>, or leave it "
            "out"
        )
    return problems + problems_of_objective(options)


def _problems_of_batch(options: TrainOptions, num_samples: int) -> Iterator[str]:
    world, batch_size = world_size(options), options.data.batch_size
    if batch_size < 1 or batch_size % world:
        yield (
            f"data.batch_size={batch_size}: the total batch must be a positive multiple of the "
            f"{world} processes, e.g. {max(1, round(batch_size / world)) * world}"
        )
    elif problem := _problem_of_micro_batch(options.data.micro_batch, batch_size // world):
        yield f"{problem} (data.batch_size={batch_size}, {_processes(world)})"
    if options.drop_last and 0 < num_samples < batch_size:
        yield (
            f"data.batch_size={batch_size}: the training set has only {num_samples} images, "
            "so an epoch has no full batch"
        )
    size = options.sync_batch_norm.group_size
    if options.sync_batch_norm.enabled and size and world > size and world % size:
        yield f"sync_batch_norm.group_size={size}: {world} processes are not a multiple of it"


def _problem_of_micro_batch(size: int | None, share: int) -> str | None:
    """What is wrong with a micro-batch of the ``share`` images of a process."""
    if size is None or share % size == 0:
        return None
    fitting = max(n for n in range(1, min(size, share) + 1) if share % n == 0)
    return f"data.micro_batch={size}: has to divide the {share} images of a process, e.g. {fitting}"


def _processes(number: int) -> str:
    return "1 process" if number == 1 else f"{number} processes"


def _problems_of_precision(options: TrainOptions) -> Iterator[str]:
    if launcher_of(options.launch).is_elsewhere:
        return  # the device is one of another machine
    device = resolve_device(options.device)
    dtype = autocast_dtype(options.precision, device)
    if dtype is not None and device.type == "cpu" and not cpu_is_fast_in(dtype):
        yield (
            f"precision={options.precision}: this CPU has no such arithmetic; it would be many "
            "times slower than in float32; use precision=float32 or precision=auto"
        )


def problems_of_memory(
    options: TrainOptions, model: nn.Module, loss: nn.Module | None, crop_sizes: Sequence[ImageSize]
) -> list[str]:
    """Refuse what this machine can only fail at: the least that a training holds."""
    copies = COPIES_OF_WEIGHTS if resolve_device(options.device).type == "cpu" else 1
    tensors = [*model.buffers(), *(loss.buffers() if loss is not None else ())]
    per_process = sum(t.nbytes for t in tensors) + sum(
        p.nbytes * (copies if p.requires_grad else 1) for p in model.parameters()
    )
    workers = options.data.num_workers
    batch_size = options.data.batch_size // world_size(options)
    images, channels = num_slots(batch_size, workers) * batch_size, options.data.channels or COLOURS
    per_process += workers * WORKER_BYTES + images * sum(
        channels * prod(height_and_width(size)) for size in crop_sizes
    )
    needed = options.launch.processes * per_process
    available, whose = limits.memory()
    problems = []
    if needed > MEMORY_SHARE * available:
        problems.append(
            f"launch.processes={options.launch.processes}: weights, gradients, optimizer, "
            f"banks, {options.data.num_workers} data workers and batches of each process take "
            f"{ceil(needed / 2**30):,} GiB, {whose} {available / 2**30:,.1f}"
        )
    return problems + limits.addresses_problems(per_process)


def has_steps(options: TrainOptions) -> bool:
    """Whether there is an image for each process."""
    return options.data.batch_size >= world_size(options)


def world_size(options: JobOptions) -> int:
    """Number of processes of the run."""
    return launcher_of(options.launch).world_size(options.launch)


def cpu_is_fast_in(dtype: torch.dtype) -> bool:
    """Whether the CPU has matrix arithmetic in ``dtype``; elsewhere it is emulated."""
    capabilities = torch.cpu.get_capabilities()
    names = {
        torch.bfloat16: ("avx512_bf16", "amx_bf16", "bf16"),
        torch.float16: ("avx512_fp16", "amx_fp16", "fp16"),
    }
    return any(capabilities.get(name, False) for name in names[dtype])


def _can_be_a_path(text: str) -> bool:
    """Whether a file system takes it, as far as its bytes tell."""
    try:
        parts = os.fsencode(text).split(b"/")
    except UnicodeEncodeError:
        return False
    return all(len(part) <= MAX_NAME and b"\0" not in part for part in parts)
