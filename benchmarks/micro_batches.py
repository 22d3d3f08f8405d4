"""What `data.micro_batch` costs: a step of SwAV by micro-batches against the whole batch at once.

    python benchmarks/micro_batches.py [--rounds 3]

ResNet-18 for small images, 2 x 32 + 2 x 16 pixels, batch 64.
"""

from ratios import Row, extra_mebibytes, rounds_of, run_alone  # isort: skip (threads)

from collections.abc import Callable, Iterator

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_step

SETTINGS = {
    "config": "pretrain/swav/quickstart",
    "trunk": "resnet18_small",
    "device": "cpu",
    "data.batch_size": 64,
    "data.train.num_samples": 64,
    "data.transform.crops.large.size": 32,
    "loss.queue_length": 0,
}
SIZES = [32, 16, 8]
SLOWEST = 1.6  # a third pass, where there were a forward and a backward pass


def step_by(micro_batch: int | str) -> Callable[[], object]:
    overrides = [f"{key}={value}" for key, value in SETTINGS.items()]
    run = Builder(options_of(compose([*overrides, f"data.micro_batch={micro_batch}"]))).run()
    run.hooks = {}
    run.train_sampler.set_epoch(0)
    batch = next(iter(run.train_loader))
    run.model.train()
    return lambda: train_step(batch, run)


def rows(rounds: int) -> Iterator[Row]:
    steps = {size: step_by(size) for size in ("null", *SIZES)}
    seconds = rounds_of({str(size): step for size, step in steps.items()}, rounds)
    memory = {size: extra_mebibytes(step) for size, step in steps.items()}
    for size in SIZES:
        ratios = [a / b for a, b in zip(seconds[str(size)], seconds["null"], strict=True)]
        yield Row(f"micro_batch={size}, time of a step", ratios, SLOWEST, "")
        yield Row(f"micro_batch={size}, memory", [memory[size] / memory["null"]], 1.0, "")


if __name__ == "__main__":
    run_alone(__doc__, rows, rounds=3)
