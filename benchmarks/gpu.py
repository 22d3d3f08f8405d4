"""What one GPU does, in one table of the form that docs/speed.md takes.

    python benchmarks/gpu.py [--minutes 5] [--device cuda] [--tiny]

- steps of SwAV, ResNet-50 and ResNet-18 for small images: images/s, part of the card's peak and
  memory, beside the official layout and lightly's modules
- Sinkhorn, LARC and k-means beside the straightforward ways
- the input path with its pinned ring: images/s by the number of data workers, and what bounds it
- the quick start, end to end, with its kNN and the parts of a step

Contenders take turns in one process; a figure is the median of the rounds. The peak is that of a
large matrix product, measured here. What fails or finds no time is named at the end, and the rest
goes on. ``--device cpu --tiny`` tries it without a GPU.
"""

import ratios  # isort: skip (threads)

import argparse
import importlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import kmeans
import sinkhorn
import torch
import torch.nn.functional as F
import torchvision
from gpu_steps import (
    ROUNDS,
    Bench,
    large_steps,
    line,
    measure_peaks,
    platform_run,
    set_tf32,
    small_steps,
    table,
)
from larc import DECAY, EPS, LR, MOMENTUM, TRUST, LoopedLARC
from multicrop import photograph
from step import LARGE
from torch import nn

from ssl_platform.engine.run import Run
from ssl_platform.optim.larc import LARC

ROOT = Path(__file__).parents[1]
PHOTOGRAPHS = 32  # different ones; the folder holds links to them
LOADING_SECONDS = 4.0


def kernels(bench: Bench) -> None:
    """Sinkhorn, LARC and k-means, each beside the straightforward way."""
    set_tf32(False)
    torch.manual_seed(0)
    samples, num_prototypes, rows = (256, 100, 2000) if bench.tiny else (4096, 3000, 200_000)
    scores = (
        F.normalize(torch.randn(samples, 128), dim=1)
        @ F.normalize(torch.randn(num_prototypes, 128), dim=1).T
    ).to(bench.device)
    looped, ours = (device_parameters(bench.device) for _ in range(2))
    loop = LoopedLARC(looped)
    platform = LARC(ours, LR, MOMENTUM, DECAY, TRUST, EPS, clip=False)
    embeddings = F.normalize(torch.randn(rows, 128, device=bench.device), dim=1)
    start = embeddings[torch.randperm(rows)[:num_prototypes]]
    pairs = {
        f"Sinkhorn {samples} x {num_prototypes}, 3 iterations": (
            partial(sinkhorn.platform, scores),
            partial(sinkhorn.textbook, scores),
        ),
        "LARC on ResNet-50": (platform.step, loop.step),
        f"k-means, {rows} x 128, {num_prototypes} clusters, 2 iterations": (
            partial(kmeans.platform, embeddings, start),
            partial(kmeans.straightforward, embeddings, start),
        ),
    }
    table("work, against the straightforward way", "ms", "its ms", "ours is x as fast")
    for name, (own, other) in pairs.items():
        seconds = ratios.rounds_of(
            {"own": own, "other": other}, 1 if bench.tiny else ROUNDS, bench.clock
        )
        own_ms, other_ms = (1000 * statistics.median(seconds[key]) for key in ("own", "other"))
        gain = statistics.median(ratios.speedups(seconds["other"], seconds["own"]))
        line(name, f"{own_ms:.2f}", f"{other_ms:.2f}", f"{gain:.2f}")
    error = (sinkhorn.platform(scores) - sinkhorn.textbook(scores.double())).abs().max().item()
    line("Sinkhorn, error against float64", f"{error:.1e}", "", "")


def device_parameters(device: torch.device) -> list[nn.Parameter]:
    torch.manual_seed(0)
    params = list(torchvision.models.resnet50().to(device).parameters())
    for param in params:
        param.grad = torch.randn_like(param) * 0.01
    return params


def input_path(bench: Bench, images: Path) -> None:
    """Images/s of the loader alone, from JPEG files to normalised crops on the device."""
    cores = os.cpu_count() or 1
    batch_size = 16 if bench.tiny else 256
    shipped = LARGE | {"data.batch_size": batch_size}
    settings = {
        f"{workers} data workers": shipped | {"data.num_workers": workers}
        for workers in sorted({1, cores // 2, cores - 1})
        if workers
    }
    table(f"input path, batch {batch_size}, {cores} cores", "images/s", "of the bfloat16 step")
    for name, chosen in settings.items():
        rate = loading_rate(platform_run(images, chosen, bench), bench)
        share = f"{rate / bench.step_rate:.0%}" if bench.step_rate else "not measured"
        line(name, f"{rate:,.0f}", share)
    transfer(bench, 3 * batch_size * (2 * 224**2 + 6 * 96**2))


def loading_rate(run: Run, bench: Bench) -> float:
    """Of an epoch's batches after the first two, while the seconds last."""
    started, images = 0.0, 0
    for number, batch in enumerate(run.train_loader):
        if number == 1:
            started = bench.clock()
        elif number > 1:
            images += len(batch.index)
            if bench.clock() - started > (0.5 if bench.tiny else LOADING_SECONDS):
                break
    return images / (bench.clock() - started)


def transfer(bench: Bench, num_bytes: int) -> None:
    """A batch of uint8 crops from pinned and from pageable memory."""
    if bench.device.type != "cuda":
        return
    pageable = torch.zeros(num_bytes, dtype=torch.uint8)
    sources = {"pinned": pageable.pin_memory(), "pageable": pageable}
    copies = {
        name: partial(source.to, bench.device, non_blocking=True)
        for name, source in sources.items()
    }
    for name, seconds in ratios.rounds_of(copies, ROUNDS, bench.clock).items():
        rate = num_bytes / statistics.median(seconds) / 1e9
        line(f"a batch to the device from {name} memory", f"{rate:.1f} GB/s", "")


def quick_start(bench: Bench, folder: Path) -> None:
    """As a user starts it, with the parts of a step."""
    command = [
        sys.executable, "tools/run_distributed.py", "config=pretrain/swav/quickstart",
        f"device={bench.device.type}", "profile=true", f"output_dir={folder / 'quickstart'}",
        *(["num_epochs=1", "schedule.warmup_epochs=0"] if bench.tiny else []),
    ]  # fmt: skip
    threads = 1 if bench.tiny else min(4, os.cpu_count() or 1)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=150, env=environment
    )
    seconds = time.perf_counter() - started
    print(done.stdout)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr[-2000:]}")
    print(f"the quick start from command to verdict: {seconds:.0f} s")


def folder_of_photographs(folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(PHOTOGRAPHS):
        (folder / f"{number:05}.jpg").write_bytes(photograph(number))
    for number in range(PHOTOGRAPHS, count):
        (folder / f"{number:05}.jpg").hardlink_to(folder / f"{number % PHOTOGRAPHS:05}.jpg")
    return folder


def card(device: torch.device) -> str:
    versions = f"torch {torch.__version__}, Python {sys.version.split()[0]}"
    if device.type != "cuda":
        return f"{device.type}, {os.cpu_count()} cores, {versions}"
    properties = torch.cuda.get_device_properties(device)
    return (
        f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, {os.cpu_count()} cores, "
        f"{versions}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=4.8, help="leave out what takes longer")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="cut all sizes, to try the script")
    chosen = parser.parse_args()
    device = torch.device(chosen.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("device=cuda: torch finds no GPU here; --device cpu --tiny tries the script")
    bench = Bench(device, chosen.tiny, time.perf_counter() + 60 * chosen.minutes)
    try:
        importlib.import_module("lightly.loss")
    except ImportError as error:
        bench.has_lightly = False
        bench.left_out.append(f"lightly's modules: {error} (pip install lightly)")
    print(f"{card(device)}\n")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        images = folder_of_photographs(folder / "images", 64 if chosen.tiny else 8192)
        bench.part("matrix products", measure_peaks, needs=5)
        bench.part(
            "steps of ResNet-50", partial(large_steps, images=images, compiled=False), needs=30
        )
        bench.part("steps of ResNet-18", partial(small_steps, images=images), needs=20)
        bench.part("kernels", kernels, needs=15)
        bench.part("quick start", partial(quick_start, folder=folder), needs=60)
        bench.part("input path", partial(input_path, images=images), needs=50)
        bench.part(
            "steps of ResNet-50, compiled",
            partial(large_steps, images=images, compiled=True),
            needs=70,
        )
    for reason in bench.left_out:
        print(f"left out: {reason}")


if __name__ == "__main__":
    main()
