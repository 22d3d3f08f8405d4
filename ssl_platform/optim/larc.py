"""LARC around SGD: layer-wise learning rates (You et al., arXiv:1708.03888)."""

from collections.abc import Iterable
from typing import Annotated, Any

import torch
from annotated_types import Gt
from torch import Tensor
from torch.optim.sgd import sgd

from ssl_platform.optim.torch_optimizers import (
    FusedOptimizer,
    Momentum,
    NotNegative,
    start_momentum,
)
from ssl_platform.registry import OPTIMIZERS


@OPTIMIZERS.register()
class LARC(FusedOptimizer, torch.optim.SGD):
    """SGD whose gradients are first scaled to a fixed fraction of each parameter's norm.

    For a parameter p with gradient g, both of non-zero norm, the gradient becomes
    ``(g + weight_decay * p) * trust_coefficient * |p| / (|g| + weight_decay * |p| + eps)``;
    otherwise it is used as it is, without decay. It applies to every parameter, biases and batch
    norm included, as the SwAV recipes do. The state is plain SGD's. A GradScaler has to have
    unscaled the gradients before.

    Args:
        params: parameters or parameter groups.
        lr: learning rate, multiplied onto the scaled gradient.
        momentum: SGD momentum, neither dampened nor Nesterov.
        weight_decay: inside the scaling, see above.
        trust_coefficient: the fraction; 0.001 in the SwAV recipes.
        eps: keeps the denominator positive; 1e-8 in the SwAV recipes.
        clip: limit the scale so that the effective rate never exceeds ``lr``: min(ratio / lr, 1).
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: NotNegative,
        momentum: Momentum,
        weight_decay: NotNegative,
        trust_coefficient: Annotated[float, Gt(0), "e.g. 0.001"],
        eps: NotNegative,
        clip: bool,
    ):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
        self.trust_coefficient, self.eps, self.clip = trust_coefficient, eps, clip

    def update(self) -> None:
        """See `FusedOptimizer.update`."""
        start_momentum(self)
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            if params:
                ratios = self._ratios(params, group)
                update = self._one_by_one if params[0].device.type == "cpu" else self._at_once
                update(params, ratios, group)

    def _ratios(self, params: list[Tensor], group: dict[str, Any]) -> Tensor:
        """What each parameter's gradient and decay are multiplied by, ``(len(params),)``."""
        norms = torch.stack(torch._foreach_norm([*params, *gradients(params)]))
        param_norms, grad_norms = norms.chunk(2)
        ratios = self.trust_coefficient * param_norms
        ratios = ratios / (grad_norms + group["weight_decay"] * param_norms + self.eps)
        if self.clip:
            ratios = (ratios / group["lr"]).clamp_max(1)
        # A parameter of zeros is moved by its gradient as it is; decay adds nothing to it. A
        # gradient of zeros moves nothing, whatever decay adds.
        return ratios.masked_fill_(grad_norms == 0, 0.0).masked_fill_(param_norms == 0, 1.0)

    def _one_by_one(self, params: list[Tensor], ratios: Tensor, group: dict[str, Any]) -> None:
        """On a CPU: a call for each parameter, so that its memory is read once."""
        lr, momentum, decay = group["lr"], group["momentum"], group["weight_decay"]
        for param, ratio in zip(params, ratios.tolist(), strict=True):
            if momentum == 0:  # SGD then has no dampening
                self._sgd([param], lr=lr * ratio, momentum=0.0, weight_decay=decay)
            else:  # 1 - dampening is SGD's factor of a gradient with its decay
                self._sgd(
                    [param], lr=lr, momentum=momentum, weight_decay=decay, dampening=1 - ratio
                )

    def _at_once(self, params: list[Tensor], ratios: Tensor, group: dict[str, Any]) -> None:
        """On a GPU: a call for all parameters, and no ratio that the host has to wait for."""
        grads = gradients(params)
        if group["weight_decay"] != 0:
            torch._foreach_add_(grads, params, alpha=group["weight_decay"])
        torch._foreach_mul_(grads, list(ratios.unbind()))
        self._sgd(params, lr=group["lr"], momentum=group["momentum"], weight_decay=0.0)

    def _sgd(
        self,
        params: list[Tensor],
        lr: float,
        momentum: float,
        weight_decay: float,
        dampening: float = 0.0,
    ) -> None:
        sgd(
            params,
            gradients(params),
            [self.state[param].get("momentum_buffer") for param in params],
            fused=True,
            found_inf=getattr(self, "found_inf", None),  # set by a GradScaler
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            dampening=dampening,
            nesterov=False,
            maximize=False,
        )


def gradients(params: list[Tensor]) -> list[Tensor]:
    """Those of the parameters that have one."""
    return [param.grad for param in params if param.grad is not None]
