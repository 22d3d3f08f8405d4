"""Is a collapse named within 60 steps, and a healthy run left alone? For docs/monitoring.md.

    python benchmarks/doctor.py OUT [--jobs 2] [--only collapses | healthy]

Each case is a training of one thread, some minutes at most; one that is there is not run again. It
settles at the first step from which on any 15 steps in a row show the sign, until the run ends or
the sign is taken back; steps are counted from the first that the doctor judges. Healthy cases are
the recipes with fewer images, also with other seeds and other numbers of prototypes.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import reduce
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ssl_platform.data.sets.shapes import Shapes
from ssl_platform.engine.run import Events, Run
from ssl_platform.hooks.health import FIRST_STEPS, EmbeddingHealth
from ssl_platform.hooks.signs import LABEL_SIGNS, signs_of
from ssl_platform.ops.sums import Sums, added
from ssl_platform.registry import HOOKS

EVERY = 15  # steps between two looks, as configs/hooks has it
TOOL = Path(__file__).parents[1] / "tools" / "run_distributed.py"
SWAV = ["config=pretrain/swav/quickstart"]
SMALL = ["trunk.width=12", "data.train.num_samples=9600"]  # 300 steps of 32 images
ALONE = ["loss.queue_length=0", "loss.freeze_prototypes_epochs=0"]
NO_LARC = ["~optimizer.trust_coefficient"]
CONSTANT = [
    "schedule=constant",
    *(f"~schedule.{k}" for k in ("warmup_epochs", "start_lr", "final_lr")),
]
# of lightly's example: Adam at a rate that never falls, 512 prototypes, a hidden layer, no queue
EXAMPLE = [
    *SWAV, *SMALL, *ALONE, *CONSTANT, *NO_LARC, "optimizer=adam", "optimizer.lr=0.001",
    "heads.prototypes.hidden_dim=512", "heads.prototypes.out_dim=128",
    "heads.prototypes.num_prototypes=[512]", "loss.epsilon=0.05",
]  # fmt: skip
# and its crops, of which there is little to see in 32 pixels
ITS_CROPS = [
    "data.transform.crops.large.scale=[0.14,1.0]", "data.transform.crops.small.scale=[0.05,0.14]",
    "data.transform.ops.grayscale.probability=0.2", "data.transform.ops.blur.probability=0.5",
    "data.transform.ops.jitter={probability:0.8,brightness:0.8,contrast:0.8,saturation:0.8,hue:0.2}",
]  # fmt: skip
OF_FOLDER = [
    *SWAV, "trunk.width=12", "data=folder", "data.batch_size=32", "data.eval_transform.resize=32",
    "data.eval_transform.size=32", "data.transform.crops.large.size=24",
    "data.transform.crops.small.size=16", "data.transform.crops.small.count=2",
    "data.transform.crops.large.scale=[0.5,1.0]", "data.transform.crops.small.scale=[0.25,0.6]",
    "data.transform.ops.blur=null", "num_epochs=3", "schedule.warmup_epochs=0.5",
]  # fmt: skip
JITTER = "data.transform.ops.jitter"
OFF_CENTRE = ["loss.center_momentum=1.0"]
NO_WARM_UP = ["schedule.warmup_epochs=0"]
LIGHT = "probability:1.0,brightness:0.3,contrast:0.3,saturation:0.0,hue:0.0"
TINTED, PNGS = "data.train.path=OUT/tinted", "data.train.path=OUT/pngs"
ONE_EPOCH, TWO_EPOCHS = ["num_epochs=1"], ["num_epochs=2", "loss.queue_start_epoch=1"]

LABELS = ["trunk.width=12", "data.train.num_samples=3200", "num_epochs=4"]
PLUG_INS = {"dino", "simclr", "byol"}  # cut out of docs/extending.md

COLLAPSES: dict[str, tuple[str, list[str]]] = {
    "settings of lightly's example": ("uniform", [*EXAMPLE, *ITS_CROPS, *ONE_EPOCH]),
    "the same, batch 64": (
        "uniform",
        [*EXAMPLE, *ITS_CROPS, *ONE_EPOCH, "data.batch_size=64", "data.train.num_samples=19200"],
    ),
    "the same, crops of the quick start": ("line", [*EXAMPLE, *ONE_EPOCH]),
    "SGD at a rate of 20": (
        "line",
        [*SWAV, *SMALL, *ONE_EPOCH, *NO_LARC, "optimizer=sgd", "optimizer.lr=20", *NO_WARM_UP],
    ),
    "a batch of 4, no queue": (
        "line",
        [*SWAV, *SMALL, *ONE_EPOCH, *ALONE, "data.batch_size=4", "data.train.num_samples=1200"],
    ),
    "DINO without centring": (
        "unused",
        ["config=pretrain/dino/quickstart", "hooks=clustering", *SMALL, *ONE_EPOCH, *OFF_CENTRE],
    ),
    "the same, without a look at prototypes": (
        "point",
        ["config=pretrain/dino/quickstart", *SMALL, *ONE_EPOCH, *OFF_CENTRE],
    ),
    "tinted pictures, colours unchanged": (
        "colour",
        [*OF_FOLDER, TINTED, "data.transform.ops.grayscale=null", f"{JITTER}={{{LIGHT}}}"],
    ),
    "crops of nearly a whole image, unchanged": (
        "brightness",
        [
            *SWAV, *SMALL, *ONE_EPOCH, "data.transform.ops.grayscale=null", f"{JITTER}=null",
            "data.transform.crops.large.scale=[0.8,1.0]",
            "data.transform.crops.small.scale=[0.6,0.9]",
        ],
    ),
    "swav/folder, its crops of PNGs of 32 pixels": (
        "uniform",
        [
        "config=pretrain/swav/folder", PNGS, "trunk=resnet10_tiny", "data.batch_size=32",
        "data.transform.crops.large.size=32", "data.transform.crops.small.size=20",
        "data.transform.crops.small.count=2", "num_epochs=6",
        "heads.prototypes.num_prototypes=[30]", "trunk.width=12",
    ],
    ),
    "DeepCluster-v2 at a rate of 50": (
        "random labels",
        ["config=pretrain/deepcluster_v2/quickstart", *LABELS, *NO_WARM_UP, "optimizer.lr=50"],
    ),
}  # fmt: skip
HEALTHY: dict[str, list[str]] = {
    "swav/quickstart, seed 0": [*SWAV, *SMALL, *TWO_EPOCHS],
    "swav/quickstart, seed 1, 200 prototypes": [
        *SWAV, *SMALL, *TWO_EPOCHS, "seed=1", "heads.prototypes.num_prototypes=[200]",
    ],
    "swav/quickstart, seed 2, 20 prototypes": [
        *SWAV, *SMALL, *ONE_EPOCH, *ALONE, "seed=2", "heads.prototypes.num_prototypes=[20]",
    ],
    "deepcluster_v2/quickstart": ["config=pretrain/deepcluster_v2/quickstart", *LABELS],
    "sela_v2/quickstart": ["config=pretrain/sela_v2/quickstart", *LABELS],
    "swav/fashion_mnist": [
        "config=pretrain/swav/fashion_mnist", "trunk.width=12", "data.train.num_samples=19200",
    ],
    "deepcluster_v2/fashion_mnist": [
        "config=pretrain/deepcluster_v2/fashion_mnist", *LABELS, "data.batch_size=32",
    ],
    "tinted pictures, colours changed": [
        *OF_FOLDER, TINTED,
        f"{JITTER}={{probability:1.0,brightness:0.4,contrast:0.4,saturation:0.4,hue:0.3}}",
    ],
    "SimCLR": ["config=pretrain/simclr/quickstart", *SMALL, *ONE_EPOCH],
    "BYOL": ["config=pretrain/byol/quickstart", *SMALL, *ONE_EPOCH],
    "DINO": ["config=pretrain/dino/quickstart", "hooks=clustering", *SMALL, *ONE_EPOCH],
}  # fmt: skip


@HOOKS.register()
class SlidingSigns(Events):
    """What the doctor would find after any step, from the same number of steps; and what it told.

    Args:
        path: of the JSON file that is written at the end.
    """

    comes_last = True

    def __init__(self, *, path: str):
        self.path = path
        self.found: dict[int, list[str]] = {}  # by step
        self.told: dict[int, list[str]] = {}

    def on_train_start(self, run: Run) -> None:
        hooks = run.hooks.values()
        self.doctor = next(hook for hook in hooks if isinstance(hook, EmbeddingHealth))
        self.recent: deque[Sums] = deque(maxlen=self.doctor.every_steps)

    @torch.no_grad()
    def on_step_end(self, run: Run) -> None:
        self.recent.append(self.doctor.sums(run))
        told = [entry["sign"] for entry in run.results["doctor"]]
        self.told[run.step] = told
        if run.step > FIRST_STEPS + self.doctor.every_steps - 1:
            figures = self.doctor.measured(run, reduce(added, self.recent))
            self.found[run.step] = [sign.name for sign in signs_of(figures)]
        self.found.setdefault(run.step, [])
        self.found[run.step] += [sign for sign in told if sign in LABEL_SIGNS]

    def on_train_end(self, run: Run) -> None:
        Path(self.path).write_text(json.dumps({"found": self.found, "told": self.told}))


def settled(found: dict[int, list[str]], sign: str, told: int, window: int) -> int:
    """The first of the steps that show a sign without a gap until it is told."""
    last = told
    while sign in found.get(last - 1, []):
        last -= 1
    return last if sign in LABEL_SIGNS else max(FIRST_STEPS, last - window) + 1


def train(name: str, options: list[str], *, out: Path) -> dict[str, dict[str, list[str]]]:
    """Run a case unless it is there; its signs by step, those found and those told."""
    key = "".join(c if c.isalnum() else "_" for c in name)
    path, here = out / f"{key}.json", Path(__file__).parent
    if not path.exists():
        command = [
            sys.executable, str(TOOL), "--config-dir", str(out / "plug_ins" / "configs"),
            *(option.replace("OUT", str(out)) for option in options), "launch.threads=1",
            "data.num_workers=0", "~hooks.knn", "~hooks.views", "~hooks.report",
            "save.every_epochs=null", "loggers.tensorboard=null",
            f"output_dir={out / key}", f"+hooks.signs={{name: SlidingSigns, path: {path}}}",
        ]  # fmt: skip
        kind = options[0].split("/")[1]
        command.append(f"plugins=[doctor{',' + kind if kind in PLUG_INS else ''}]")
        paths = os.pathsep.join(
            [str(here), str(out / "plug_ins"), os.environ.get("PYTHONPATH", "")]
        )
        with (out / f"{key}.log").open("w") as log:
            environment = {**os.environ, "PYTHONPATH": paths}
            subprocess.run(command, check=True, stdout=log, stderr=log, env=environment)
    return json.loads(path.read_text())


def row(name: str, sign: str | None, trace: dict[str, dict[str, list[str]]]) -> str:
    """A line of the table: sign, when it settled, when it was told, what else was."""
    told, found = (
        {int(step): signs for step, signs in trace[key].items()} for key in ("told", "found")
    )
    first = {
        s: min(k for k, v in told.items() if s in v) for s in {s for v in told.values() for s in v}
    }
    others = ", ".join(
        f"{s} ({step})" for s, step in sorted(first.items(), key=lambda x: x[1]) if s != sign
    )
    if sign is None:
        return f"| {name} | {max(told)} | {others or 'none'} |"
    if sign not in first:
        return f"| {name} | {sign} | - | not named | {others} |"
    since = settled(found, sign, first[sign], EVERY)
    return f"| {name} | {sign} | {since} | {first[sign]} | {others} |"


def make_images(out: Path) -> None:
    """PNGs of figures: as they are, and each under a light of another colour."""
    shapes, rng = Shapes(num_samples=3200, size=32, seed=6), np.random.default_rng(0)
    for index in range(len(shapes)):
        image, light = shapes.read(index), rng.uniform(0.25, 1, 3)
        tinted = (255 * (0.15 + 0.85 * image / 255) * light).astype(np.uint8)
        for folder, pixels in (("pngs", image), ("tinted", tinted)):
            path = out / folder / f"class{shapes.labels[index]}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)


def cut_out_plug_ins(out: Path) -> None:
    """The methods that docs/extending.md shows, as files."""
    page = (Path(__file__).parents[1] / "docs" / "extending.md").read_text()
    for file, body in re.findall(r"<!-- file: (\S+) -->\n```\w+\n(.*?)```", page, re.DOTALL):
        path = out / "plug_ins" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(body)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument(
        "--only", nargs="+", choices=["collapses", "healthy"], default=["collapses", "healthy"]
    )
    options = parser.parse_args()
    out = options.folder.absolute()
    make_images(out)
    cut_out_plug_ins(out)
    collapses = COLLAPSES if "collapses" in options.only else {}
    healthy = HEALTHY if "healthy" in options.only else {}
    cases = {name: (sign, case) for name, (sign, case) in collapses.items()}
    cases |= {name: (None, case) for name, case in healthy.items()}

    def one(item: tuple[str, tuple[str | None, list[str]]]) -> str:
        name, (sign, case) = item
        line = row(name, sign, train(name, case, out=out))
        print(line, flush=True)
        return line

    with ThreadPoolExecutor(options.jobs) as pool:
        lines = list(pool.map(one, cases.items()))
    print("\n| collapse | sign | settled at step | named at | other signs |\n|---|---|---|---|---|")
    print("\n".join(lines[: len(collapses)]))
    print("\n| healthy training | steps | signs |\n|---|---|---|")
    print("\n".join(lines[len(collapses) :]))


if __name__ == "__main__":
    main()
