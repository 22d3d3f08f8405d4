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
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import kmeans
import sinkhorn
import torch
import torch.nn.functional as F
import torchvision
from larc import DECAY, EPS, LR, MOMENTUM, TRUST, LoopedLARC
from multicrop import photograph
from step import LARGE, SMALL, Layout, swapped_loss
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_step
from ssl_platform.engine.run import Run
from ssl_platform.optim.larc import LARC

ROOT = Path(__file__).parents[1]
ROUNDS, STEPS = 5, 3  # steps of a contender in each round
PHOTOGRAPHS = 32  # different ones; the folder holds links to them
LOADING_SECONDS = 4.0

Step = Callable[[], object]


@dataclass
class Bench:
    device: torch.device
    tiny: bool
    deadline: float
    left_out: list[str] = field(default_factory=list)
    peaks: dict[str, float] = field(default_factory=dict)  # FLOP/s by precision
    has_lightly: bool = True
    step_rate: float = 0.0  # images/s of the fastest ResNet-50 step, for the input path

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def part(self, name: str, work: Callable[["Bench"], None], *, needs: float) -> None:
        """Do one part of the table; ``needs`` is about how many seconds it takes."""
        if time.perf_counter() + needs > self.deadline:
            self.left_out.append(f"{name}: no time left for its {needs:.0f} s")
            return
        started = time.perf_counter()
        try:
            work(self)
        except Exception as error:  # one part that fails hides no other
            traceback.print_exc()
            self.left_out.append(f"{name}: {type(error).__name__}: {error}")
        print(f"({name}: {time.perf_counter() - started:.0f} s)\n", flush=True)


def table(head: str, *columns: str) -> None:
    print("| " + " | ".join([head, *columns]) + " |\n|" + "---|" * (1 + len(columns)))


def line(*cells: str) -> None:
    print("| " + " | ".join(cells) + " |", flush=True)


def set_tf32(enabled: bool) -> None:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = enabled


def measure_peaks(bench: Bench) -> None:
    size = 512 if bench.tiny else 8192
    table(f"{size} x {size} matrix product", "TFLOP/s")
    for name, dtype, tf32 in (
        ("float32", torch.float32, False),
        ("TF32", torch.float32, True),
        ("bfloat16", torch.bfloat16, True),
    ):
        set_tf32(tf32)
        a, b = (torch.randn(size, size, device=bench.device, dtype=dtype) for _ in range(2))
        seconds = ratios.rounds_of({name: partial(torch.mm, a, b)}, 5, bench.clock)[name]
        bench.peaks[name] = 2 * size**3 / statistics.median(seconds)
        line(name, f"{bench.peaks[name] / 1e12:.0f}")


@dataclass
class Contender:
    """A way to take a step, and the precision in which its products are taken."""

    step: Step
    precision: str = "float32"

    def __call__(self) -> None:
        set_tf32(self.precision != "float32")
        for _ in range(STEPS):
            self.step()


def platform_run(images: Path, settings: Mapping[str, object], bench: Bench) -> Run:
    chosen = {
        "data": "folder",
        "data.train.path": images,
        "data.num_workers": 0,
        "launch.processes": 1,
        "num_epochs": 10_000,
        "device": bench.device.type,
        "precision": "float32",
    }
    overrides = [f"{key}={value}" for key, value in (chosen | dict(settings)).items()]
    run = Builder(options_of(compose(overrides))).run()
    run.hooks = {}
    run.train_sampler.set_epoch(0)
    run.model.train()
    return run


def platform_step(run: Run, batch: Any) -> Step:
    return lambda: train_step(run.model, batch, run)


def autocast(bench: Bench, precision: str) -> Any:
    if precision != "bfloat16":
        return nullcontext()
    return torch.autocast(bench.device.type, torch.bfloat16)


def official_step(
    trunk: nn.Module, head: tuple[int, int], crops: list[Tensor], bench: Bench, precision: str
) -> Step:
    """The official layout: crops of a size together, NCHW, LARC by a loop, Sinkhorn as printed."""
    model = Layout(trunk, *head, grouped=True).to(bench.device)
    optimizer = LoopedLARC(list(model.parameters()))
    crops = [crop.contiguous() for crop in crops]

    def step() -> None:
        with torch.no_grad():
            model.prototypes.weight.copy_(F.normalize(model.prototypes.weight))
        with autocast(bench, precision):
            scores = model(crops)
        loss = swapped_loss(scores.float(), len(crops))
        optimizer.sgd.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def lightly_step(
    trunk: nn.Module, head: tuple[int, int], crops: list[Tensor], bench: Bench, precision: str
) -> Step:
    """lightly's example: one crop after another, its head, prototypes and loss, Adam."""
    from lightly.loss import SwaVLoss
    from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

    width, trunk.fc = trunk.fc.in_features, nn.Identity()
    projection, prototypes = SwaVProjectionHead(width, head[0], 128), SwaVPrototypes(128, head[1])
    parts = nn.ModuleList([trunk, projection, prototypes]).to(bench.device)
    criterion, optimizer = SwaVLoss(), torch.optim.Adam(parts.parameters(), lr=0.001)
    crops = [crop.contiguous() for crop in crops]

    def step() -> None:
        prototypes.normalize()
        with autocast(bench, precision):
            scores = [
                prototypes(F.normalize(projection(trunk(crop).flatten(1)), dim=1, p=2))
                for crop in crops
            ]
        scores = [score.float() for score in scores]
        criterion(scores[:2], scores[2:]).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def small_resnet18() -> nn.Module:
    trunk = torchvision.models.resnet18()
    trunk.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    trunk.maxpool = nn.Identity()
    return trunk


def in_nchw(run: Run, batch: Any) -> Step:
    run.model.to(memory_format=torch.contiguous_format)
    batch = batch._replace(crops=[crop.contiguous() for crop in batch.crops])
    return platform_step(run, batch)


def steps(
    bench: Bench,
    images: Path,
    settings: dict[str, object],
    *,
    title: str,
    batch_size: int,
    trunk: Callable[[], nn.Module],
    head: tuple[int, int],
    compiled: bool,
) -> None:
    """Steps of one trunk by all contenders, as a table; or by those of `torch.compile`."""
    settings = settings | {"data.batch_size": batch_size}
    bf16 = settings | {"precision": "bfloat16"}
    plain = platform_run(images, bf16, bench)
    batch = next(iter(plain.train_loader))
    ours: dict[str, tuple[str, Step]] = {"bfloat16": ("bfloat16", platform_step(plain, batch))}
    if compiled:
        run = platform_run(images, bf16 | {"compile": "true"}, bench)
        ours["bfloat16, compiled"] = "bfloat16", platform_step(run, batch)
    else:
        for precision in ("float32", "TF32"):
            run = platform_run(images, settings, bench)
            ours[precision] = precision, platform_step(run, batch)
        ours["bfloat16, NCHW"] = "bfloat16", in_nchw(platform_run(images, bf16, bench), batch)
    contenders = {f"ours, {name}": Contender(step, p) for name, (p, step) in ours.items()}
    peers: dict[str, Callable[..., Step]] = {"official layout": official_step}
    if bench.has_lightly:
        peers["lightly's modules"] = lightly_step
    for name, peer in ({} if compiled else peers).items():
        for precision in ("TF32", "bfloat16"):
            step = peer(trunk(), head, batch.crops, bench, precision)
            contenders[f"{name}, {precision}"] = Contender(step, precision)
    with FlopCounterMode(display=False) as counter:
        contenders["ours, bfloat16"].step()
    seconds = ratios.rounds_of(contenders, 1 if bench.tiny else ROUNDS, bench.clock)
    table(title, "images/s", "rounds", "of the peak", "MiB of a step", "ours is x as fast")
    for name, contender in contenders.items():
        rates = [STEPS * batch_size / value for value in seconds[name]]
        rate = statistics.median(rates)
        share = rate / batch_size * counter.get_total_flops() / bench.peaks[contender.precision]
        own = seconds.get(f"ours, {contender.precision}", [])
        gain = statistics.median(ratios.speedups(seconds[name], own))
        line(
            name,
            f"{rate:,.0f}",
            f"{min(rates):,.0f} .. {max(rates):,.0f}",
            f"{share:.0%}",
            f"{step_mebibytes(contender.step, bench):,.0f}",
            f"{gain:.2f}",
        )
        bench.step_rate = max(bench.step_rate, rate if name == "ours, bfloat16" else 0)


def step_mebibytes(step: Step, bench: Bench) -> float:
    """The most that a step holds beside what lies there before it."""
    if bench.device.type != "cuda":
        return float("nan")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def large_steps(bench: Bench, images: Path, *, compiled: bool) -> None:
    batch_size = 4 if bench.tiny else 64
    steps(
        bench, images, LARGE, batch_size=batch_size, trunk=torchvision.models.resnet50,
        head=(2048, 3000), compiled=compiled,
        title=f"ResNet-50, 2 x 224 + 6 x 96, batch {batch_size}",
    )  # fmt: skip


def small_steps(bench: Bench, images: Path) -> None:
    batch_size, rate = 16 if bench.tiny else 512, bench.step_rate
    steps(
        bench, images, SMALL, batch_size=batch_size, trunk=small_resnet18,
        head=(512, 512), compiled=False,
        title=f"ResNet-18 for small images, 2 x 28 + 4 x 14, batch {batch_size}",
    )  # fmt: skip
    bench.step_rate = rate


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
