"""The tables of docs/results.md: trainings of every method and seed, several at a time.

    python benchmarks/results.py OUT [--jobs 2] [--seeds 0 1 2] [--device cpu] [--only ...]

Each training computes with one thread. Those on Fashion-MNIST need ``make data``. A run that is
there is not trained again.
"""

import argparse
import json
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from pathlib import Path
from statistics import mean

TOOL = Path(__file__).parents[1] / "tools" / "run_distributed.py"
METHODS = ("swav", "deepcluster_v2", "sela_v2")
IMAGES = ("quickstart", "fashion_mnist")
ROWS = ("trained", "random init", "raw pixels")


def train(config: str, seed: int, *, folder: Path, device: str) -> dict[str, float]:
    """kNN accuracies of a training, its baselines' beside them, in percent."""
    output = folder / config / str(seed)
    summary = output / "summary.json"
    if not summary.exists():
        command = [
            sys.executable, str(TOOL), f"config=pretrain/{config}", f"seed={seed}",
            f"output_dir={output}", f"device={device}", "launch.threads=1",
            "hooks.knn.num_queries=null",
        ]  # fmt: skip
        output.mkdir(parents=True, exist_ok=True)
        with (folder / f"{config.replace('/', '_')}_{seed}.log").open("w") as log:
            subprocess.run(command, check=True, stdout=log, stderr=log)
    knn = json.loads(summary.read_text())["knn"]
    print(config, seed, {row: round(knn[row]["top1"], 1) for row in ROWS}, flush=True)
    return {row: knn[row]["top1"] for row in ROWS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--device", default="cpu")
    names = [f"{method}/{images}" for images, method in product(IMAGES, METHODS)]
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    options = parser.parse_args()

    run = partial(train, folder=options.folder.absolute(), device=options.device)
    wanted = list(product(options.only, options.seeds))
    with ThreadPoolExecutor(options.jobs) as pool:
        scores = dict(zip(wanted, pool.map(lambda pair: run(*pair), wanted), strict=True))
    print("| training | seed | trained | random init | raw pixels |\n|---|---|---|---|---|")
    for config in options.only:
        of_config = [scores[config, seed] for seed in options.seeds]
        for seed, row in zip(options.seeds, of_config, strict=True):
            print(f"| {config} | {seed} |", *(f"{row[name]:.1f} |" for name in ROWS))
        means = [mean(row[name] for row in of_config) for name in ROWS]
        print(f"| {config} | mean |", *(f"{value:.1f} |" for value in means))


if __name__ == "__main__":
    main()
