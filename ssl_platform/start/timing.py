"""What a training step takes here: decoding, crops, forward, backward and update."""

from collections.abc import Callable
from statistics import median
from time import perf_counter

import numpy as np
import torch
from omegaconf import DictConfig

from ssl_platform.config.options import TrainOptions, options_of
from ssl_platform.data.batch import Batch
from ssl_platform.data.contract import make_crops, prepare, read_image
from ssl_platform.data.dataset import UnreadableImage
from ssl_platform.engine.build import Builder
from ssl_platform.errors import ConfigError
from ssl_platform.ops.arithmetic import autocast_dtype
from ssl_platform.start.facts import Measured

PROBED = 8  # images of the first step, which says how long others would take
READ = 32  # images that are read
SECONDS = 4.0  # of steps of a candidate
FASTER = 0.9  # of the time with one thread, to be worth more of them


def measure(cfg: DictConfig) -> Measured:
    """Time a step of a checked config, for a few seconds.

    Raises:
        ConfigError: no image of the sample can be read.
    """
    options = options_of(cfg)
    assert isinstance(options, TrainOptions)
    torch.manual_seed(options.seed)
    builder = Builder(options, world_size=1)
    crops, read_seconds = _crops(builder)
    step = _Step(builder, crops)
    threads = torch.get_num_threads()
    seconds = {}
    try:
        for count in sorted({1, threads}) if builder.device.type == "cpu" else [threads]:
            torch.set_num_threads(count)
            seconds[count] = step.seconds(options.data.batch_size)
    finally:
        torch.set_num_threads(threads)
    fewest = min(seconds)
    best = min(seconds, key=lambda count: seconds[count])
    if seconds[best] > FASTER * seconds[fewest]:
        best = fewest
    return Measured(seconds[best], read_seconds, step.bytes_per_image(), best)


def _crops(builder: Builder) -> tuple[list[np.ndarray], float]:
    """Crops of `PROBED` images, one (N, C, H, W) for each crop, and the seconds of an image."""
    dataset, transform = builder.train_data, builder.transform
    prepare(dataset)
    order = np.random.default_rng(1).permutation(len(dataset))[:READ].tolist()
    rng, crops, start, unread = np.random.default_rng(0), [], perf_counter(), None
    for index in order:
        try:
            crops.append(make_crops(transform, read_image(dataset, index), rng))
        except UnreadableImage as error:
            unread = error
    if not crops:
        raise ConfigError([f"none of {len(order)} images can be read, first {unread}"])
    seconds = (perf_counter() - start) / len(crops)
    some = [crops[n % len(crops)] for n in range(PROBED)]
    stacked = [np.stack(same).transpose(0, 3, 1, 2) for same in zip(*some, strict=True)]
    return stacked, seconds


class _Step:
    """A step of a training, on the same few crops."""

    def __init__(self, builder: Builder, crops: list[np.ndarray]):
        self.builder = builder
        self.crops = [torch.from_numpy(c).to(builder.device) for c in crops]
        self.dtype = autocast_dtype(builder.options.precision, builder.device)

    def batch(self, size: int) -> Batch:
        """A batch of so many images."""
        repeats = -(-size // PROBED)
        crops = [
            c.repeat(repeats, 1, 1, 1)[:size]
            .to(memory_format=torch.channels_last, dtype=torch.float32)
            .div_(128)
            .sub_(1)
            for c in self.crops
        ]
        index = torch.arange(size, device=self.builder.device)
        return Batch(crops, torch.full_like(index, -1), index)

    def __call__(self, batch: Batch) -> None:
        """Forward, backward and update."""
        builder = self.builder
        builder.optimizer.zero_grad(set_to_none=True)
        self.loss(batch).backward()
        builder.optimizer.step()
        if builder.device.type == "cuda":
            torch.cuda.synchronize()

    def loss(self, batch: Batch) -> torch.Tensor:
        """The loss of a batch."""
        builder = self.builder
        device = builder.device.type
        with torch.autocast(device, dtype=self.dtype, enabled=self.dtype is not None):
            outputs = builder.replica(batch.crops)
        result: torch.Tensor = builder.loss(builder.model, outputs, batch)["loss"]
        return result

    def seconds(self, batch_size: int) -> float:
        """Of a step, divided by the images of its batch."""
        size = min(PROBED, batch_size)
        batch = self.batch(size)
        self(batch)  # memory is allocated, kernels are chosen
        each = _timed(lambda: self(batch)) / size
        if 3 * each * batch_size > SECONDS:
            return each
        try:
            batch = self.batch(batch_size)
            self(batch)
        except torch.OutOfMemoryError:  # of a GPU; the rules make the batch smaller
            return each
        times: list[float] = []
        end = perf_counter() + SECONDS / 2
        while perf_counter() < end or not times:
            times.append(_timed(lambda: self(batch)))
        return median(times) / batch_size

    def bytes_per_image(self) -> int:
        """Memory of what a forward pass keeps for the backward pass."""
        kept: dict[int, int] = {}

        def note(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = self.loss(self.batch(PROBED))  # which keeps the storages alive
        weights = sum(p.nbytes for p in self.builder.model.parameters())
        del loss
        return max(1, (sum(kept.values()) - weights) // PROBED)


def _timed(action: Callable[[], None]) -> float:
    start = perf_counter()
    action()
    return perf_counter() - start
