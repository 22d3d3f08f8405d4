"""torch's own optimizers, with every option that changes a result spelled out."""

from collections.abc import Iterable
from typing import Any

import torch

from ssl_platform.registry import OPTIMIZERS


@OPTIMIZERS.register()
class SGD(torch.optim.SGD):
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        momentum: float,
        weight_decay: float,
        nesterov: bool,
    ):
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            fused=True,
        )


@OPTIMIZERS.register()
class Adam(torch.optim.Adam):
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ):
        super().__init__(
            params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay, fused=True
        )


@OPTIMIZERS.register()
class AdamW(torch.optim.AdamW):
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
    ):
        super().__init__(
            params, lr=lr, betas=tuple(betas), eps=eps, weight_decay=weight_decay, fused=True
        )
