"""Whether a crop finds the other crop of its image: a measure of features that needs no labels."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Interval
from torch import Tensor, nn

from ssl_platform.data.crops.groups import CropGroup
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.data.crops.ranges import rising
from ssl_platform.data.decoding.pixels import COLOURS
from ssl_platform.engine.run import Events, Run
from ssl_platform.evaluation.baselines import RANDOM_INIT, RAW_PIXELS, Embed, pixels
from ssl_platform.evaluation.features import extract
from ssl_platform.ops.label_free import found_share
from ssl_platform.registry import HOOKS

NUM_VIEWS = 2
RATIO = (3 / 4, 4 / 3)  # of a crop's width to its height


@HOOKS.register()
class ViewMonitor(Events):
    """Two crops of each of some training images, in eval mode: is the one found by the other?

    The crops are small and their colours are changed, whatever the training's own crops are like,
    and the same in each measurement. So what matches crops that overlap a lot, or by a tint, does
    not help, and runs with other crops can be compared. Their size is that of the first crop of the
    training.

    ``found`` is the percentage of the crops that have the other crop of their image among the
    nearest tenth, by cosine, of one crop of each image: 10 by chance. The untrained trunk and raw
    pixels (minus their mean) are measured in the same way before the first step.

    Args:
        every_epochs: measure after every so many epochs; the last epoch is always measured.
        num_images: at most so many, drawn from the training images.
        scale: range of a crop's area, as a part of the image's.
        brightness, contrast, saturation, hue: of the crops' `ColorJitter`; the last two are for
            images of three channels.
        grayscale: probability that a crop of three channels is grey.
        seed: of the draw of images.
    """

    results = ("views.trained.found",)

    def __init__(
        self,
        *,
        every_epochs: Annotated[int, Ge(1)],
        num_images: Annotated[int, Ge(2)],
        scale: Annotated[tuple[float, float], rising(0, 1)],
        brightness: Annotated[float, Ge(0)],
        contrast: Annotated[float, Ge(0)],
        saturation: Annotated[float, Ge(0)],
        hue: Annotated[float, Interval(ge=0, le=0.5)],
        grayscale: Annotated[float, Interval(ge=0, le=1)],
        seed: Annotated[int, Ge(0)],
    ):
        self.every_epochs, self.num_images, self.seed = every_epochs, num_images, seed
        self.scale, self.grayscale = scale, grayscale
        self.grey_jitter = {"brightness": brightness, "contrast": contrast}
        self.colour_jitter = {"saturation": saturation, "hue": hue}
        self.latest: tuple[int, dict[str, float]] | None = None  # epoch, figures
        self.baselines: dict[str, dict[str, float]] = {}
        self.num_readable = 0  # of the latest measurement

    def state_dict(self) -> dict[str, Any]:
        return {
            "latest": self.latest,
            "baselines": self.baselines,
            "num_readable": self.num_readable,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.latest, self.baselines = state["latest"], state["baselines"]
        self.num_readable = state["num_readable"]

    def on_train_start(self, run: Run) -> None:
        size = len(run.train_data)
        rng = np.random.default_rng(self.seed)
        self.positions = np.sort(rng.choice(size, min(self.num_images, size), replace=False))
        self.transform = self._transform(run)
        if run.step == 0:
            views = self._views(run, _WithPixels(run.evaluated.trunk))
            width: Any = run.evaluated.trunk.out_dim
            features, raw = views[..., :width], views[..., width:]
            self.baselines[RANDOM_INIT] = _figures(features)
            self.baselines[RAW_PIXELS] = _figures(raw - raw.mean(dim=(0, 1)))
        run.results["views"] = {"images": len(self.positions), **self.baselines}

    def on_epoch_end(self, run: Run) -> None:
        if run.epoch % self.every_epochs == 0:
            self._measure(run)

    def on_train_end(self, run: Run) -> None:
        if self.latest is None or self.latest[0] != run.epoch:
            self._measure(run)
        assert self.latest is not None
        run.results["views"] |= {"images": self.num_readable, "trained": self.latest[1]}

    def _measure(self, run: Run) -> None:
        views = self._views(run, run.evaluated.trunk)
        self.num_readable = len(views)
        self.latest = run.epoch, _figures(views)
        run.report |= {f"views/{name}": value for name, value in self.latest[1].items()}

    def _views(self, run: Run, embed: Embed) -> Tensor:
        """(N, 2, D) features of two crops of each image that can be read."""
        images = run.train_data, self.positions
        loader = run.eval_loader(*images, transform=self.transform)
        rows, _ = extract(embed, loader, len(self.positions), num_crops=NUM_VIEWS)
        views = rows.unflatten(1, (NUM_VIEWS, -1))
        return views[views.flatten(1).isfinite().all(dim=1)]

    def _transform(self, run: Run) -> MultiCrop:
        size = run.train_loader.transform.crop_sizes[0]
        has_colours = run.train_data.channels == COLOURS
        jitter = self.grey_jitter | {
            name: strength * has_colours for name, strength in self.colour_jitter.items()
        }
        ops = {
            "flip": {"name": "HorizontalFlip", "probability": 0.5},
            "jitter": {"name": "ColorJitter", "probability": 1.0, **jitter},
            "grayscale": {"name": "Grayscale", "probability": self.grayscale * has_colours},
        }
        group = CropGroup(size=size, count=NUM_VIEWS, scale=self.scale)
        return MultiCrop(crops={"views": group}, ratio=RATIO, ops=ops)


class _WithPixels(nn.Module):
    """A trunk's features and raw pixels side by side, so that images are read once for both."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D + pixels)."""
        return torch.cat([self.trunk(images), pixels(images)], dim=1)


def _figures(views: Tensor) -> dict[str, float]:
    return {"found": 100 * found_share(*views.unbind(1))}
