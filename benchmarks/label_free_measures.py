"""The measures that benchmarks/label_free.py compares, in and out of the product."""

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor

from ssl_platform.ops.label_free import alpha_req, lidar, rankme

Features = Mapping[str, Tensor]  # {two,many}_{trunk,head}: (N, Q, D)
MEASURES: dict[str, Callable[[Features], float]] = {}


def _add(name: str, compute: Callable[[Tensor], float], of: str) -> None:
    MEASURES[f"{name} {of}"] = lambda features: compute(features[of])


for _part in ("trunk", "head"):
    _add("rankme", lambda views: rankme(views.flatten(0, 1)), f"two_{_part}")
    _add("lidar", lidar, f"two_{_part}")
    _add("lidar", lidar, f"many_{_part}")
    for _first, _last in ((1, 10000), (5, 50)):
        _alpha = partial(alpha_req, first=_first, last=_last)
        _add(f"alpha_{_first}", lambda views, a=_alpha: a(views.flatten(0, 1)), f"two_{_part}")
        _add(
            f"alpha_{_first}_off_1",
            lambda views, a=_alpha: -abs(a(views.flatten(0, 1)) - 1),
            f"two_{_part}",
        )
