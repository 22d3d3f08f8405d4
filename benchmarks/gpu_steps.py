"""Steps of SwAV on one GPU: ours, the official layout and lightly's modules. A part of `gpu.py`."""

import ratios  # isort: skip (threads)

import statistics
import time
import traceback
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from larc import LoopedLARC
from step import LARGE, SMALL, Layout, swapped_loss
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_step
from ssl_platform.engine.run import Run

ROUNDS, STEPS = 5, 3  # steps of a contender in each round

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
    return lambda: train_step(batch, run)


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
