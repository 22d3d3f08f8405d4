"""The measures that benchmarks/label_free.py compares, in and out of the product."""

from collections.abc import Callable, Mapping
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.ops.label_free import alpha_req, found_share, lidar, rankme

Features = Mapping[str, Tensor]  # random, pixels, {two,many}_{trunk,head}: (N, Q, D)
MEASURES: dict[str, Callable[[Features], float]] = {}
TENTH = 0.1


def _add(name: str, compute: Callable[[Tensor], float], of: str) -> None:
    MEASURES[f"{name} {of}"] = lambda features: compute(features[of])


def places(views: Tensor) -> Tensor:
    """Share of the other images whose crop is nearer than the other crop of the same image."""
    first, second = F.normalize(views.double(), dim=2).unbind(1)
    cosines = first @ second.T
    own = cosines.diagonal()
    nearer = [(cosines > own[:, None]).sum(1), (cosines > own).sum(0)]
    return torch.cat(nearer) / (len(views) - 1)


def centred(views: Tensor) -> Tensor:
    """Views minus their mean."""
    return views - views.mean(dim=(0, 1))


for _part in ("random", "pixels", "two_trunk", "two_head"):
    _change = centred if _part == "pixels" else (lambda views: views)
    _add("top1", lambda v, c=_change: 100 * (places(c(v)) == 0).double().mean().item(), _part)
    _add("tenth", lambda v, c=_change: 100 * found_share(*c(v).unbind(1)), _part)
    _add("nearer", lambda v, c=_change: 100 * (1 - places(c(v)).mean().item()), _part)
for _part in ("two_trunk", "two_head"):
    _add("rankme", lambda views: rankme(views.flatten(0, 1)), _part)
    _add("lidar", lidar, _part)
    _add("lidar", lidar, _part.replace("two", "many"))
    for _first, _last in ((1, 10000), (5, 50)):
        _alpha = partial(alpha_req, first=_first, last=_last)
        _add(f"alpha_{_first}", lambda views, a=_alpha: a(views.flatten(0, 1)), _part)
        _add(
            f"alpha_{_first}_off_1",
            lambda views, a=_alpha: -abs(a(views.flatten(0, 1)) - 1),
            _part,
        )
