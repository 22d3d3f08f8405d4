"""Whether a crop finds the other crop of its image: a measure of features that needs no labels."""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor, nn

from ssl_platform.engine.run import Events, Run
from ssl_platform.evaluation.baselines import RANDOM_INIT, RAW_PIXELS, Embed, pixels
from ssl_platform.evaluation.features import extract
from ssl_platform.ops.label_free import found_share, rankme
from ssl_platform.registry import HOOKS

NUM_VIEWS = 2


@HOOKS.register()
class ViewMonitor(Events):
    """Two crops of each of some training images, in eval mode: is the one found by the other?

    The crops are as large as the first crop of the training and are drawn as its crops are, the
    same ones in each measurement. ``found`` is the percentage of the crops that have the other crop
    of their image among the nearest tenth, by cosine, of one crop of each image: 10 by chance. The
    untrained trunk and raw pixels (minus their mean) are measured in the same way before the first
    step. ``rankme`` is RankMe of the features.

    Args:
        every_epochs: measure after every so many epochs; the last epoch is always measured.
        num_images: at most so many, drawn from the training images.
        seed: of that draw.
    """

    results = ("views.trained.found", "views.trained.rankme")

    def __init__(
        self,
        *,
        every_epochs: Annotated[int, Ge(1)],
        num_images: Annotated[int, Ge(2)],
        seed: Annotated[int, Ge(0)],
    ):
        self.every_epochs, self.num_images, self.seed = every_epochs, num_images, seed
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
        if run.step == 0:
            views = self._views(run, _WithPixels(run.evaluated.trunk))
            width: Any = run.evaluated.trunk.out_dim
            features, raw = views[..., :width], views[..., width:]
            self.baselines[RANDOM_INIT] = _figures(features)
            centred = raw - raw.mean(dim=(0, 1))
            self.baselines[RAW_PIXELS] = {"found": 100 * found_share(*centred.unbind(1))}
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
        sizes = run.train_loader.transform.crop_sizes
        per_draw = min(NUM_VIEWS, sizes.count(sizes[0]))
        parts = []
        for draw in range(NUM_VIEWS // per_draw):
            loader = run.view_loader(self.positions, draw)
            rows, _ = extract(embed, loader, len(self.positions), num_crops=per_draw)
            parts.append(rows.unflatten(1, (per_draw, -1)))
        views = torch.cat(parts, dim=1)
        return views[views.flatten(1).isfinite().all(dim=1)]


class _WithPixels(nn.Module):
    """A trunk's features and raw pixels side by side, so that images are read once for both."""

    def __init__(self, trunk: nn.Module):
        super().__init__()
        self.trunk = trunk

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) to (B, D + pixels)."""
        return torch.cat([self.trunk(images), pixels(images)], dim=1)


def _figures(views: Tensor) -> dict[str, float]:
    return {"found": 100 * found_share(*views.unbind(1)), "rankme": rankme(views.flatten(0, 1))}
