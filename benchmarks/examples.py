"""The examples against lightly's own modules: kNN accuracy on the shapes at equal images seen.

    python benchmarks/examples.py [--seeds 0 1 2] [--images 4000] [--epochs 10]

All rows have the same trunk (``trunk=resnet10_tiny trunk.width=16``), crops and batches of 64.
"lightly" is its example with its settings: a hidden layer in the head, 512 prototypes, Adam at a
constant rate, a queue of 3,840 rows that is used from epoch 2 on.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from runpy import run_path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from ssl_platform.api import center_crop, images, multi_crop
from ssl_platform.metrics.accuracy import TopKAccuracy
from ssl_platform.ops.knn import knn_votes
from ssl_platform.registry import TRUNKS, load_components

EXAMPLES = Path(__file__).parents[1] / "examples" / "pytorch"
DIM, BATCH, LABELLED, QUERIES, NEIGHBOURS = 128, 64, 1000, 2000, 20
TRUNK = {
    "name": "ResNet",
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "width": DIM // 8,
    "stem_kernel": 3,
    "stem_stride": 2,
    "stem_pool": False,
}
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


class Lightly(nn.Module):
    """A trunk with lightly's projection, prototypes and memory banks."""

    def __init__(self, trunk: nn.Module, num_prototypes: int, frozen_epochs: int, queue: int):
        from lightly.models.modules import SwaVProjectionHead, SwaVPrototypes
        from lightly.models.modules.memory_bank import MemoryBankModule

        super().__init__()
        self.trunk = trunk
        self.projection = SwaVProjectionHead(DIM, 512, 128)
        self.prototypes = SwaVPrototypes(128, num_prototypes, frozen_epochs)
        self.banks = nn.ModuleList(MemoryBankModule((queue, 128)) for _ in range(2 * bool(queue)))

    def forward(self, crops: list[Tensor], epoch: int) -> list[list[Tensor] | None]:
        self.prototypes.normalize()
        rows = [nn.functional.normalize(self.projection(self.trunk(crop))) for crop in crops]
        scores = [self.prototypes(row, epoch) for row in rows]
        with torch.no_grad():
            kept = [bank(row, update=True)[1] for bank, row in zip(self.banks, rows, strict=False)]
            queued = [self.prototypes(bank.T, epoch) for bank in kept if epoch >= 2]
        return [scores[:2], scores[2:], queued or None]


def train_lightly(trunk: nn.Module, *, queue: int, epochs: int, num: int) -> None:
    from lightly.loss import SwaVLoss

    model = Lightly(trunk, 512, int(queue > 0), queue).to(DEVICE)
    dataset = images("shapes", multi_crop("shapes"), num_samples=num)
    loader = DataLoader(dataset, BATCH, shuffle=True, drop_last=True, num_workers=2)
    optimizer, criterion = torch.optim.Adam(model.parameters(), lr=1e-3), SwaVLoss()
    for epoch in range(epochs):
        for crops, _, _ in loader:
            loss = criterion(*model([crop.to(DEVICE) for crop in crops], epoch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        print(f"epoch {epoch}: loss {loss.item():.4f}")


@torch.no_grad()
def knn(trunk: nn.Module) -> float:
    """Percent of the validation shapes whose class their nearest training shapes agree on."""
    sides = []
    for split, count in (("train", LABELLED), ("val", QUERIES)):
        dataset = images("shapes", center_crop("shapes"), split=split, num_samples=count)
        crops, labels, _ = next(iter(DataLoader(dataset, count)))
        sides += [trunk.eval()(crops.to(DEVICE)).cpu(), labels]
    bank, known, queries, labels = sides
    votes = knn_votes(queries, bank, known, k=NEIGHBOURS, temperature=0.07, num_classes=10)
    return TopKAccuracy(k=1)(votes, labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--rows", nargs="+", help="names of rows; by default all of them")
    options = parser.parse_args()
    load_components()
    epochs, num = options.epochs, options.images
    ours = {name: run_path(str(EXAMPLES / f"{name}.py"))["main"] for name in ("swav", "swav_queue")}
    same = {"data": "shapes", "dim": DIM, "batch_size": BATCH, "epochs": epochs, "num_samples": num}
    works: dict[str, Callable[[nn.Module], object]] = {
        "untrained": lambda trunk: trunk.to(DEVICE),
        "SwAV, ours": lambda trunk: ours["swav"](trunk=trunk, **same),
        "SwAV, lightly": lambda trunk: train_lightly(trunk, queue=0, epochs=epochs, num=num),
        "SwAV queue, ours": lambda trunk: ours["swav_queue"](trunk=trunk, **same),
        "SwAV queue, lightly": lambda trunk: train_lightly(
            trunk, queue=3840, epochs=epochs, num=num
        ),
    }
    works = {name: works[name] for name in options.rows or works}
    table: dict[str, list[float]] = {name: [] for name in works}
    for seed in options.seeds:
        for name, train in works.items():
            torch.manual_seed(seed)
            trunk = TRUNKS.build(TRUNK)
            with tempfile.TemporaryDirectory() as folder, chdir(folder):
                train(trunk)
            table[name].append(knn(trunk))
            print(f"{name}, seed {seed}: {table[name][-1]:.1f}", flush=True)
    print(f"kNN top-1 on the shapes after {epochs} epochs of {num} images, {os.uname().machine}")
    for name, values in table.items():
        shown = ", ".join(f"{value:.1f}" for value in values)
        print(f"{name:<28} {statistics.mean(values):5.1f}  ({shown})")


if __name__ == "__main__":
    main()
