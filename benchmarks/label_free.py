"""How well do measures without labels tell which training is better? See docs/monitoring.md.

    nice python benchmarks/label_free.py OUT [--only shapes fashion] [--table]

Trains many tiny networks, good and bad ones, and compares each measure with the kNN accuracy by
Spearman's rank correlation. Fashion-MNIST needs ``make data``. A run that is there is not trained
again; ``--table`` only makes the tables of those that are there.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from label_free_measures import MEASURES
from scipy.stats import spearmanr

import ssl_platform
from ssl_platform.config import compose
from ssl_platform.engine.run import Events, Run
from ssl_platform.evaluation.features import extract
from ssl_platform.registry import HOOKS

NUM_IMAGES = 1000
SHAPES = [
    "config=pretrain/swav/quickstart", "data.train.num_samples=1000", "data.val.num_samples=1000",
    "num_epochs=6", "schedule.warmup_epochs=0.6", "loss.queue_start_epoch=3",
    "loss.freeze_prototypes_epochs=3",
]  # fmt: skip
FASHION = [
    "config=pretrain/swav/fashion_mnist", "data.train.num_samples=1000",
    "data.val.num_samples=1000", "num_epochs=6", "schedule.warmup_epochs=0.6",
    "data.batch_size=32", "heads.prototypes.num_prototypes=[100]",
]  # fmt: skip
COMMON = [
    "device=cpu", "launch.threads=1", "data.num_workers=0", "hooks.knn.every_epochs=100",
    "~hooks.crops", "~hooks.report", "loggers.tensorboard.enabled=false", "save.every_epochs=null",
]  # fmt: skip
WIDE = ["data.transform.crops.large.scale=[0.9,1.0]", "data.transform.crops.small.scale=[0.7,0.9]"]
TIGHT = [
    "data.transform.crops.large.scale=[0.1,0.3]",
    "data.transform.crops.small.scale=[0.05,0.15]",
]
PLAIN = ["data.transform.ops.grayscale=null", "data.transform.ops.jitter=null"]
NO_CARE = [
    "loss.queue_length=0", "loss.queue_start_epoch=0", "loss.freeze_prototypes_epochs=0",
    "loss.freeze_prototypes_steps=0",
]  # fmt: skip


def rate(factor: float, base: float) -> list[str]:
    """The learning rate, relative to the recipe's."""
    return [f"optimizer.lr={factor * base}"]


def epochs(number: int) -> list[str]:
    """Another length."""
    return [f"num_epochs={number}", "schedule.warmup_epochs=0.5", *NO_CARE]


def variants(base: float, other: list[str], drop: list[str]) -> dict[str, list[str]]:
    """What the runs of one data set do otherwise than its recipe, by name.

    Args:
        base: the recipe's learning rate.
        other: another optimizer.
        drop: options of the recipe's optimizer that others do not have.
    """
    short = epochs(4)
    adam = ["optimizer=adam", "optimizer.lr=0.001", *drop]
    return {
        "recipe": [],
        "example": ["heads.prototypes.num_prototypes=[512]", "loss.epsilon=0.05", *NO_CARE, *adam],
        "wide_plain_crops": [*WIDE, *PLAIN],
        "rate_10": rate(10, base),
        "epochs_12": epochs(12),
        "rate_0.1": rate(0.1, base),
        "epsilon_1": ["loss.epsilon=1.0", *short],
        "epochs_1": epochs(1),
        "tight_crops": [*TIGHT, *short],
        "decay": ["optimizer=sgd", "optimizer.lr=0.1", "optimizer.weight_decay=0.1", *drop, *short],
        "other_optimizer": [*other, *drop, *short],
        "seed": ["seed=1", *short],
        "epochs_3": epochs(3),
        "rate_3": [*rate(3, base), *short],
        "epsilon_0.1": ["loss.epsilon=0.1", *short],
        "prototypes_10": ["heads.prototypes.num_prototypes=[10]", *short],
        "prototypes_512": ["heads.prototypes.num_prototypes=[512]", *short],
        "temperature_0.5": ["loss.temperature=0.5", *short],
        "wide_crops": [*WIDE, *short],
        "plain_crops": [*PLAIN, *short],
        "deep_head": ["heads.prototypes.hidden_dim=256", "loss.epsilon=0.05", *short],
    }


def runs() -> dict[str, dict[str, list[str]]]:
    """Overrides of each run, by data set and name."""
    adamw = ["optimizer=adamw", "optimizer.lr=0.002", "optimizer.weight_decay=0.0001", *NO_CARE]
    larc = ["optimizer=larc", "optimizer.lr=0.12", "optimizer.trust_coefficient=0.02"]
    drop = ["~optimizer.trust_coefficient"]
    return {
        "shapes": {n: [*SHAPES, *more] for n, more in variants(0.12, adamw, drop).items()},
        "fashion": {n: [*FASHION, *more] for n, more in variants(0.002, larc, []).items()},
    }


@HOOKS.register()
class KeepViews(Events):
    """At the end, keep features of two crops of each image, as the training draws them."""

    def on_train_end(self, run: Run) -> None:
        transform = run.train_loader.transform
        images = run.train_data, np.arange(NUM_IMAGES)
        loader = run.eval_loader(*images, transform=transform)
        rows, _ = extract(_Both(run.model), loader, NUM_IMAGES, num_crops=2)
        views = rows.unflatten(1, (2, -1)).numpy()
        trunk, head = np.split(views, [run.model.trunk.out_dim], axis=2)
        np.savez(run.output_dir / "views.npz", trunk=trunk, head=head)


class _Both(torch.nn.Module):
    """Features of trunk and head, side by side."""

    def __init__(self, model: Any):
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = self.model.trunk(images)
        return torch.cat([features, self.model.heads["prototypes"](features).embeddings], dim=1)


def train(folder: Path, overrides: list[str]) -> None:
    """One run; what it found is in its ``summary.json``."""
    plugin = "+hooks.keep={name: KeepViews}"
    ssl_platform.run(compose([*overrides, *COMMON, plugin, f"output_dir={folder}"]))


def row(folder: Path) -> dict[str, float]:
    """The kNN accuracy of a run, what it is compared with, and every measure."""
    results = json.loads((folder / "summary.json").read_text())
    knn, views = results["knn"], results["views"]
    names = ("trained", "random init", "raw pixels")
    figures = {f"knn {name}": knn[name]["top1"] for name in names}
    figures |= {f"found {name}": views[name]["found"] for name in names}
    with np.load(folder / "views.npz") as kept:
        features = {key: torch.from_numpy(kept[key]) for key in kept}
    for measure, compute in MEASURES.items():
        figures[measure] = compute(features)
    return figures


def correlations(table: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Spearman's rho of each measure with the kNN accuracy."""
    rows = list(table.values())
    truth = [figures["knn trained"] for figures in rows]
    return {
        name: spearmanr([figures[name] for figures in rows], truth).statistic
        for name in rows[0]
        if not name.startswith("knn")
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=list(runs()), choices=list(runs()))
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()

    torch.set_num_threads(1)
    tables: dict[str, dict[str, dict[str, float]]] = {}
    wanted = [(name, images) for name in variants(1.0, [], []) for images in options.only]
    for name, images in wanted:
        folder = options.folder / images / name
        if not options.table and not (folder / "summary.json").exists():
            train(folder, runs()[images][name])
        if (folder / "summary.json").exists():
            tables.setdefault(images, {})[name] = row(folder)
    (options.folder / "table.json").write_text(json.dumps(tables, indent=1))
    for images, table in tables.items():
        print(images, *(f"{name}" for name in next(iter(table.values()))), sep=" | ")
        for name, figures in table.items():
            print(name, *(f"{value:.2f}" for value in figures.values()), sep=" | ")
    of_set = {images: correlations(table) for images, table in tables.items()}
    both = {f"{i} {n}": figures for i, table in tables.items() for n, figures in table.items()}
    print(f"measure | {' | '.join(of_set)} | all {len(both)}")
    for name, rho in correlations(both).items():
        print(name, *(f"{part[name]:+.2f}" for part in of_set.values()), f"{rho:+.2f}", sep=" | ")


if __name__ == "__main__":
    main()
