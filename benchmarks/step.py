"""A step of SwAV, from crops to updated weights, against the ways that others take it.

    python benchmarks/step.py [--rounds 5]

- ResNet-50, 2 x 224 + 6 x 96 pixels, batch 8, against the official layout (crops of a size
  together, NCHW, LARC by a loop over the parameters) and against one crop after another.
- ResNet-18 for small images, 2 x 28 + 4 x 14 pixels, batch 32, against lightly's example (one crop
  after another, its head, loss and Adam).

All have the same trunk's architecture, head's sizes and crops. Ours is the engine's `train_step`.
"""

from ratios import Row, rounds_of, run_alone, speedups  # isort: skip (threads)

import importlib.util
import tempfile
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path

import torch
import torch.nn.functional as F
import torchvision
from larc import LoopedLARC
from multicrop import photograph
from sinkhorn import textbook
from torch import Tensor, nn

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_step

TEMPERATURE = 0.1
LARGE = {"config": "pretrain/swav/rn50_200ep_bs256", "data.batch_size": 8, "loss.queue_length": 0}
SMALL = {
    "config": "pretrain/swav/lightly_rn18",
    "data.batch_size": 32,
    "data.transform.crops.large": "{size:28,count:2,scale:[0.14,1.0]}",
    "data.transform.crops.small": "{size:14,count:4,scale:[0.05,0.14]}",
    "trunk.stem_kernel": 3,
    "trunk.stem_stride": 1,
    "trunk.stem_pool": "false",
}

Step = Callable[[], object]


def platform_step(images: Path, settings: dict[str, object]) -> tuple[Step, list[Tensor]]:
    """The engine's step on one batch, and the batch's crops."""
    chosen = {
        "data": "folder",
        "data.train.path": images,
        "data.num_workers": 0,
        "launch.processes": 1,
        "device": "cpu",
        "precision": "float32",
    }
    overrides = [f"{key}={value}" for key, value in (settings | chosen).items()]
    run = Builder(options_of(compose(overrides))).run()
    run.hooks = {}
    run.train_sampler.set_epoch(0)
    batch = next(iter(run.train_loader))
    run.model.train()
    return lambda: train_step(batch, run), batch.crops


class Layout(nn.Module):
    """torchvision's trunk and SwAV's head, NCHW."""

    def __init__(self, trunk: nn.Module, hidden: int, num_prototypes: int, *, grouped: bool):
        super().__init__()
        width, trunk.fc = trunk.fc.in_features, nn.Identity()
        self.trunk, self.grouped = trunk, grouped
        self.head = nn.Sequential(
            nn.Linear(width, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, 128)
        )
        self.prototypes = nn.Linear(128, num_prototypes, bias=False)

    def forward(self, crops: list[Tensor]) -> Tensor:
        if not self.grouped:
            return torch.cat([self.scores(self.trunk(crop)) for crop in crops])
        groups = [torch.cat(list(group)) for _, group in groupby(crops, lambda c: c.shape[-1])]
        return self.scores(torch.cat([self.trunk(group) for group in groups]))

    def scores(self, features: Tensor) -> Tensor:
        return self.prototypes(F.normalize(self.head(features)))


def swapped_loss(scores: Tensor, num_crops: int) -> Tensor:
    """A log-softmax for each pair of crops."""
    scores_M = scores.chunk(num_crops)
    total = torch.zeros(())
    for target in (0, 1):
        codes = textbook(scores_M[target].detach())
        terms = [
            -(codes * F.log_softmax(scores_M[crop] / TEMPERATURE, dim=1)).sum(dim=1).mean()
            for crop in range(num_crops)
            if crop != target
        ]
        total = total + sum(terms) / len(terms)
    return total / 2


def layout_step(crops: list[Tensor], *, grouped: bool) -> Step:
    model = Layout(torchvision.models.resnet50(), 2048, 3000, grouped=grouped)
    optimizer = LoopedLARC(list(model.parameters()))
    crops = [crop.contiguous() for crop in crops]

    def step() -> None:
        with torch.no_grad():
            model.prototypes.weight.copy_(F.normalize(model.prototypes.weight))
        loss = swapped_loss(model(crops), len(crops))
        optimizer.sgd.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def lightly_step(crops: list[Tensor]) -> Step:
    from lightly.loss import SwaVLoss
    from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes

    trunk = torchvision.models.resnet18()
    trunk.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    trunk.maxpool, trunk.fc = nn.Identity(), nn.Identity()
    head, prototypes = SwaVProjectionHead(512, 512, 128), SwaVPrototypes(128, 512)
    parts = nn.ModuleList([trunk, head, prototypes])
    criterion, optimizer = SwaVLoss(), torch.optim.Adam(parts.parameters(), lr=0.001)
    crops = [crop.contiguous() for crop in crops]

    def step() -> None:
        prototypes.normalize()
        outputs = [
            prototypes(F.normalize(head(trunk(crop).flatten(1)), dim=1, p=2)) for crop in crops
        ]
        loss = criterion(outputs[:2], outputs[2:])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def rows(rounds: int) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for number in range(32):
            (Path(folder) / f"{number}.jpg").write_bytes(photograph(number % 4))
        platform, crops = platform_step(Path(folder), LARGE)
        small_platform, small_crops = platform_step(Path(folder), SMALL)
    seconds = rounds_of(
        {
            "platform": platform,
            "official": layout_step(crops, grouped=True),
            "crops": layout_step(crops, grouped=False),
        },
        rounds,
    )
    for peer, name, target in (
        ("official", "the official layout", 1.05),
        ("crops", "crop by crop", 1.15),
    ):
        yield Row(f"step, ResNet-50, {name}", speedups(seconds[peer], seconds["platform"]), target)
    if not importlib.util.find_spec("lightly"):
        print("lightly is not installed, left out (pip install lightly)")
        return
    seconds = rounds_of(
        {"platform": small_platform, "lightly": lightly_step(small_crops)}, 2 * rounds
    )
    yield Row(
        "step, ResNet-18 for small images, lightly",
        speedups(seconds["lightly"], seconds["platform"]),
        1.15,
    )


if __name__ == "__main__":
    run_alone(__doc__, rows, 5)
