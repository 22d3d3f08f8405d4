"""The table of docs/start.md: what `start` makes of sets of images that differ.

    python benchmarks/start_sets.py OUT [--seeds 0 1 2] [--only ...] [--emoji FILE]
        [--photographs FOLDER] [--whole] [--seen N]

Each set is written as a folder once; `start` plans for it without a hint, except that so many
images are seen as the table says, and the training runs with one thread. A run that is there is
not trained again. ``--whole`` goes on to evaluations and clusters (`start --run`). Fashion-MNIST
needs ``make data``; emoji are the file of ``npm pack emoji-datasource-google@16.0.0``; photographs
are a folder, such as ``skimage/data`` of scikit-image's wheel.
"""

import argparse
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from itertools import product
from pathlib import Path
from statistics import mean

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from ssl_platform.data.dataset import ImageDataset  # noqa: E402
from ssl_platform.data.sets.fashion_mnist import Canvas, FashionMNIST  # noqa: E402
from ssl_platform.data.sets.shapes import Shapes  # noqa: E402

ROWS = ("trained", "random init", "raw pixels")
CANVAS = Canvas(size=32, scale=(0.55, 0.95), noise=0.08, seed=0)  # as in data=fashion_mnist
Picture = tuple[str, np.ndarray]  # a path below the folder, and pixels


def of_dataset(dataset: ImageDataset, number: int) -> Iterator[Picture]:
    """The first images of a labelled set, a folder for each class."""
    dataset.prepare()
    assert dataset.labels is not None
    for index in range(number):
        yield f"class{dataset.labels[index]}/{index:05d}.png", dataset.read(index)


def shapes(number: int) -> Iterator[Picture]:
    """The built-in images."""
    return of_dataset(Shapes(num_samples=number, size=32, seed=0), number)


def fashion(number: int) -> Iterator[Picture]:
    """Fashion-MNIST on canvases."""
    data = FashionMNIST(path=None, split="train", num_samples=number, canvas=CANVAS, download=False)
    return of_dataset(data, number)


def emoji(archive: Path) -> Iterator[Picture]:
    """Pictures of Google's emoji over white, by their category."""
    with tarfile.open(archive) as files:
        table = files.extractfile("package/emoji.json")
        assert table is not None
        kinds = {entry["image"]: entry["category"] for entry in json.load(table)}
        for member in files:
            name = Path(member.name).name
            if "/img/google/64/" not in member.name or name not in kinds:
                continue
            file = files.extractfile(member)
            assert file is not None
            with Image.open(BytesIO(file.read())) as image:
                ground = Image.new("RGBA", image.size, "white")
                ground.alpha_composite(image.convert("RGBA"))
            yield f"{kinds[name].replace(' ', '')}/{name}", np.asarray(ground.convert("RGB"))


def drawn(number: int) -> Iterator[Picture]:
    """Stripes, rings, checks and dots of any colour, place and size, 64 pixels."""
    y, x = np.mgrid[0:64, 0:64] / 64
    for index in range(number):
        rng = np.random.default_rng(index)
        kind, turn, size = index % 4, rng.uniform(0, np.pi), rng.uniform(4, 8)
        u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
        radius = np.hypot(x - rng.uniform(0.3, 0.7), y - rng.uniform(0.3, 0.7))
        fields = (
            np.sin(2 * np.pi * size * u),
            np.sin(2 * np.pi * size * radius),
            np.sin(2 * np.pi * size * u) * np.sin(2 * np.pi * size * v),
            np.minimum(np.cos(2 * np.pi * size * u), np.cos(2 * np.pi * size * v)),
        )
        first, second = rng.integers(0, 256, (2, 3))
        pixels = np.where((fields[kind] > 0)[..., None], first, second)
        pixels = pixels + rng.normal(0, 12, pixels.shape)
        name = ("stripes", "rings", "checks", "dots")[kind]
        yield f"{name}/{index:03d}.jpg", pixels.clip(0, 255).astype(np.uint8)


def photographs(folder: Path) -> Iterator[Picture]:
    """Forty parts of photographs, 256 pixels, without classes."""
    names = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg", "ihc.png")
    for name, number in product(names, range(8)):
        with Image.open(folder / name) as image:
            pixels = np.asarray(image.convert("RGB"))
        rng = np.random.default_rng(number)
        top, left = (int(rng.integers(0, side - 256)) for side in pixels.shape[:2])
        yield f"{Path(name).stem}_{number}.png", pixels[top : top + 256, left : left + 256]


def scans(number: int) -> Iterator[Picture]:
    """Grey scans of 12 bits in 16: one large spot, several small ones, or streaks, 64 pixels."""
    y, x = np.mgrid[0:64, 0:64] / 64
    for index in range(number):
        rng = np.random.default_rng(index)
        kind = index % 3
        values = rng.normal(300, 40, (64, 64)) + 200 * x * rng.uniform(0, 1)
        for _ in range((1, 6, 3)[kind]):
            cx, cy = rng.uniform(0.2, 0.8, 2)
            wide = (rng.uniform(0.12, 0.2), 0.04, 0.02)[kind]
            turn, long = rng.uniform(0, np.pi), (1, 1, 10)[kind]
            u = (x - cx) * np.cos(turn) + (y - cy) * np.sin(turn)
            v = (y - cy) * np.cos(turn) - (x - cx) * np.sin(turn)
            values += rng.uniform(1200, 2400) * np.exp(-((u / long) ** 2 + v**2) / wide**2)
        name = ("lesion", "nodules", "fibres")[kind]
        yield f"{name}/{index:03d}.png", values.clip(0, 4095).astype(np.uint16)


def sets(emoji_file: Path, photographs_folder: Path) -> dict[str, tuple[Callable, int]]:
    """By name, what gives the pictures, and how many images a training sees."""
    return {
        "shapes_10000": (partial(shapes, 10_000), 60_000),
        "fashion_10000": (partial(fashion, 10_000), 60_000),
        "shapes_300": (partial(shapes, 300), 60_000),
        "shapes_2000": (partial(shapes, 2000), 60_000),
        "fashion_1000": (partial(fashion, 1000), 60_000),
        "fashion_60000": (partial(fashion, 60_000), 60_000),
        "emoji": (partial(emoji, emoji_file), 120_000),
        "drawn_600": (partial(drawn, 600), 60_000),
        "photographs_40": (partial(photographs, photographs_folder), 8_000),
        "scans_600": (partial(scans, 600), 60_000),
    }


def write(folder: Path, pictures: Iterator[Picture]) -> int:
    """Write the pictures, where they are not there; returns their number."""
    done = folder.with_suffix(".done")
    if not done.exists():
        for path, pixels in pictures:
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
        done.touch()
    return sum(path.is_file() for path in folder.rglob("*"))


def train(name: str, seed: int, *, images: Path, seen: int, number: int, whole: bool) -> dict:
    """Plan and train; returns the summary."""
    out = images.parent.parent / "runs"
    out.mkdir(exist_ok=True)
    recipe = f"{name}_{seed}.yaml"
    summary = out / "runs" / f"{name}_{seed}" / "summary.json"
    if not summary.exists():
        epochs = max(1, round(seen / number))
        command = [
            sys.executable, str(ROOT / "tools/start.py"), str(images), "--output", recipe,
            "--hours", "0.1", f"num_epochs={epochs}", f"seed={seed}",
            "launch.threads=1", "data.num_workers=0", "hooks.knn.num_queries=null",
        ]  # fmt: skip
        steps = [[*command, "--run"]] if whole else []
        if not whole:
            steps += [] if (out / recipe).exists() else [command]
            steps += [[sys.executable, str(ROOT / "tools/run_distributed.py"), f"config={recipe}"]]
        with (out / f"{name}_{seed}.log").open("a") as log:
            for step in steps:
                subprocess.run(step, check=False, cwd=out, stdout=log, stderr=log)
    return json.loads(summary.read_text()) if summary.exists() else {}


def row(name: str, seed: int, summary: dict, seen: int) -> str:
    """A line of the table."""
    knn = summary.get("knn", {})
    figures = [f"{knn[r]['top1']:.1f}" if r in knn else "-" for r in ROWS]
    verdict = summary.get("verdict", {}).get("kind", "-")
    return f"| {name} | {seed} | {seen:,} | {' | '.join(figures)} | {verdict} |"


def main() -> None:
    """Run what is asked for; the table grows in OUT/table.md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--emoji", type=Path, default=Path("emoji-datasource-google-16.0.0.tgz"))
    parser.add_argument("--photographs", type=Path, default=Path("skimage/data"))
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--seen", type=int, help="images that a training sees, in all sets")
    options = parser.parse_args()
    known = sets(options.emoji.absolute(), options.photographs.absolute())
    scores: dict[str, list[float]] = {}
    for seed, name in product(options.seeds, options.only or known):
        pictures, seen = known[name]
        seen = options.seen or seen
        images = options.folder.absolute() / "sets" / name
        number = write(images, pictures())
        summary = train(name, seed, images=images, seen=seen, number=number, whole=options.whole)
        line = row(name, seed, summary, seen)
        print(line, flush=True)
        with (options.folder / "table.md").open("a") as table:
            table.write(line + "\n")
        if "knn" in summary:
            scores.setdefault(name, []).append(summary["knn"]["trained"]["top1"])
    for name, values in scores.items():
        print(f"| {name} | mean | {mean(values):.1f} |")


if __name__ == "__main__":
    main()
