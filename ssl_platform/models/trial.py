"""Try a trunk and heads before a run, on images of the sizes that the run has.

A large module is tried on torch's meta device, where nothing is computed. A small one is tried on a
real batch, which takes less time than loading what torch needs for the meta device. A module that
fails on the meta device is tried on a real batch too, because the meta device may be the reason:
control flow that depends on values, for example. The result of a real batch counts.
"""

import re
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from numbers import Integral
from typing import Any

import torch
from torch import Tensor, nn

from ssl_platform.errors import blame, counted, kind_of
from ssl_platform.ops.image_size import ImageSize, height_and_width, in_words

SMALL = 30_000_000  # weights up to which a module is tried on a real batch: those of a ResNet-50
ROWS = 2  # images of the batch; batch norms refuse a single one
OTHER_SHAPES = {  # by number of dimensions: how to make features (N, D) of another output
    4: "average a map over its positions, e.g. .mean(dim=(2, 3))",
    3: "take one token or the mean of all, e.g. .mean(dim=1)",
}


class Trial:
    """A module that can be tried.

    Args:
        on_meta: the module on the meta device; its mode is the same afterwards.
        build: makes it anew, on the CPU.
        device: of the run; a module that fails on the CPU is tried there.
    """

    def __init__(self, on_meta: nn.Module, build: Callable[[], nn.Module], device: torch.device):
        self._on_meta, self._build, self._device = on_meta, build, device
        self._real: nn.Module | None = None

    def __call__(self, *shape: int, training: bool) -> Any:
        """The output of the module for a tensor of a shape; its exceptions are passed on."""
        is_small = sum(p.numel() for p in self._on_meta.parameters()) <= SMALL
        if not is_small or "torch._dynamo" in sys.modules:
            try:
                return _output(self._on_meta, torch.device("meta"), shape, training)
            except Exception:  # the real batch decides
                pass
        try:
            return self._for_real(torch.device("cpu"), shape, training)
        except Exception:
            if self._device.type == "cpu":
                raise
            return self._for_real(self._device, shape, training)

    def _for_real(self, device: torch.device, shape: Sequence[int], training: bool) -> Any:
        with torch.random.fork_rng(devices=[]), device:
            if self._real is None:
                self._real = self._build()
            module = self._real.to(memory_format=torch.channels_last).to(device)
            threads = torch.get_num_threads()
            torch.set_num_threads(1)  # faster: for so little work, more would wait
            try:
                return _output(module, device, shape, training)
            finally:
                torch.set_num_threads(threads)


def _output(module: nn.Module, device: torch.device, shape: Sequence[int], training: bool) -> Any:
    """The output of a module for a batch in the memory format of a run's batches."""
    batch = torch.rand(shape, device=device)
    if batch.ndim == 4:
        batch = batch.contiguous(memory_format=torch.channels_last)
    was_training = module.training
    try:
        with device, torch.set_grad_enabled(training):
            return module.train(training)(batch)
    finally:
        module.train(was_training)


def problem_of_trunk(
    trunk: nn.Module,
    trial: Trial,
    crop_sizes: Sequence[ImageSize],
    eval_sizes: Sequence[ImageSize],
    channels: int = 3,
) -> str | None:
    """One line when the trunk does not give features (N, ``out_dim``) for images of any size.

    Args:
        trunk: the module that is tried.
        trial: of it.
        crop_sizes: sides of the images that it is trained on, or height and width of each, pixels;
            tried in train mode.
        eval_sizes: those of images that are looked at in eval mode.
        channels: of all of them.
    """
    name = type(trunk).__name__
    failed: dict[ImageSize, str] = {}
    sizes = [*((size, True) for size in crop_sizes), *((size, False) for size in eval_sizes)]
    for size, training in dict.fromkeys(sizes):
        try:
            features = trial(ROWS, channels, *height_and_width(size), training=training)
        except Exception as error:
            failed.setdefault(size, blame(error))
            continue
        problem = _problem_of_features(features, getattr(trunk, "out_dim", None))
        if problem:
            images = f"images {(ROWS, channels, *height_and_width(size))}"
            return f"{name} gave {kind_of(features)} for {images}; {problem}"
    if not failed:
        return None
    first, *others = failed
    is_for_channels = channels != 3 or re.search(r"\d channels\b", failed[first])
    taken = _channels_taken(trial, sizes, but=channels) if is_for_channels else None
    if taken is not None:
        return (
            f"{name} takes images of {counted(taken, 'channel')}, these have {channels}; "
            f"give it an option in_channels, or set data.channels={taken}"
        )
    rest = f" (nor of {', '.join(map(_shortly, others))})" if others else ""
    made_for = getattr(trunk, "image_size", None)
    right = f"the size that it is made for, {made_for}" if made_for else "a size that it takes"
    takes_none = made_for is None and len(failed) == len({size for size, _ in sizes})
    doubt = "if that is for their size, " if takes_none else ""
    return (
        f"{name} cannot take images of {in_words(first)} pixels{rest}: {failed[first]}; {doubt}"
        f"give all of data.transform.crops and data.eval_transform {right}, or choose a trunk that "
        "takes any"
    )


def _channels_taken(trial: Trial, sizes: Sequence[tuple[ImageSize, bool]], but: int) -> int | None:
    """Another number of channels that a trunk takes images of; None where it is not for that."""
    size, training = sizes[0]
    for channels in (3, 1):
        if channels != but:
            with suppress(Exception):
                trial(ROWS, channels, *height_and_width(size), training=training)
                return channels
    return None


def _shortly(size: ImageSize) -> str:
    return str(size) if isinstance(size, int) else in_words(size)


def _problem_of_features(features: Any, out_dim: Any) -> str | None:
    """What is wrong with what a trunk gave for a batch of `ROWS` images."""
    wanted = f"it has to give features ({ROWS}, out_dim) float32, one row for each image"
    if not isinstance(features, Tensor):
        return f"{wanted}, and nothing else"
    if features.ndim != 2:
        cure = OTHER_SHAPES.get(features.ndim)
        return f"{wanted}: {cure}" if cure else wanted
    if len(features) != ROWS:
        return wanted
    if features.dtype != torch.get_default_dtype():
        return f"{wanted}: .float()"
    width = features.shape[1]
    if out_dim is None:
        return f"it has no out_dim, the number of its features: set self.out_dim = {width}"
    if not isinstance(out_dim, Integral) or isinstance(out_dim, bool) or out_dim != width:
        return f"its out_dim is {out_dim}: set self.out_dim = {width}"
    return None


def problem_of_head(head: nn.Module, trial: Trial, shape: int | tuple[int, ...]) -> str | None:
    """One line when a head cannot take what its layer gives.

    Args:
        head: the module that is tried.
        trial: of it.
        shape: of one row of its input: D, or (C, H, W).
    """
    sides = (shape,) if isinstance(shape, int) else shape
    name, given = type(head).__name__, f"a batch {(ROWS, *sides)}"
    try:
        output = trial(ROWS, *sides, training=True)
    except Exception as error:
        return f"{name} cannot take {given}: {blame(error)}"
    if output is None:
        return f"{name} gave None for {given}; forward() has to return what its loss reads"
    return None
