"""torch's own optimizers, with every option that changes a result spelled out."""

import inspect
from collections.abc import Iterable
from typing import Any

import torch

from ssl_platform.registry import OPTIMIZERS

# Torch loads its compiler, a second of CPU time in each process, when a method of an optimizer is
# first called: only to keep that method out of what is compiled. Nobody here calls one from
# compiled code.


def spare_the_compiler() -> None:
    for name in ("add_param_group", "load_state_dict", "state_dict", "zero_grad"):
        method = getattr(getattr(torch.optim.Optimizer, name), "__wrapped__", None)
        if method is not None:  # else this release of torch does not load it
            method.__dynamo_disable = method  # where torch looks for the method as it is kept out


def own_step(kind: type[torch.optim.Optimizer], optimizer: Any, closure: Any = None) -> Any:
    """``kind.step`` without the decorator that loads the compiler."""
    with torch.no_grad():
        return inspect.unwrap(kind.step)(optimizer, closure)


spare_the_compiler()


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

    def step(self, closure: Any = None) -> Any:
        start_momentum(self)
        return own_step(torch.optim.SGD, self, closure)


def start_momentum(optimizer: torch.optim.SGD) -> None:
    """Give every parameter that is about to move its momentum buffer.

    Fused SGD cannot start the momentum of some parameters while others have theirs, which is what
    unfreezing the prototypes does. Starting at zero, the first step is the gradient, as in torch.
    """
    for group in optimizer.param_groups:
        for param in group["params"]:
            if param.grad is not None and group["momentum"] != 0:
                state = optimizer.state[param]
                if state.get("momentum_buffer") is None:
                    state["momentum_buffer"] = torch.zeros_like(param)


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
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)

    def step(self, closure: Any = None) -> Any:
        return own_step(torch.optim.Adam, self, closure)


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
        super().__init__(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, fused=True)

    def step(self, closure: Any = None) -> Any:
        return own_step(torch.optim.AdamW, self, closure)
