"""The measures that benchmarks/label_free.py compares, in and out of the product."""

from collections.abc import Callable, Mapping

from torch import Tensor

from ssl_platform.ops.label_free import alpha_req, found_share, lidar, rankme

Features = Mapping[str, Tensor]  # trunk, head: (N, 2, D) of crops as the training draws them
MEASURES: dict[str, Callable[[Features], float]] = {}


def _add(name: str, compute: Callable[[Tensor], float]) -> None:
    for part in ("trunk", "head"):
        MEASURES[f"{name} {part}"] = lambda features, part=part: compute(features[part])


_add("own crops found", lambda views: 100 * found_share(*views.unbind(1)))
_add("rankme", lambda views: rankme(views.flatten(0, 1)))
_add("lidar", lidar)
_add("alpha", lambda views: alpha_req(views.flatten(0, 1), first=1, last=views.shape[2]))
_add("alpha 5-50", lambda views: alpha_req(views.flatten(0, 1), first=5, last=50))
