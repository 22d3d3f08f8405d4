"""LARC around SGD: layer-wise learning rates (You et al., arXiv:1708.03888)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ssl_platform.optim.torch_optimizers import own_step, start_momentum
from ssl_platform.registry import OPTIMIZERS


@OPTIMIZERS.register()
class LARC(torch.optim.SGD):
    """SGD whose gradients are first scaled to a fixed fraction of each parameter's norm.

    For a parameter p with gradient g, both of non-zero norm, the gradient becomes
    ``(g + weight_decay * p) * trust_coefficient * |p| / (|g| + weight_decay * |p| + eps)``;
    otherwise it is used as it is, without decay. It applies to every parameter, biases and batch
    norm included, as the SwAV recipes do. The state is plain SGD's.

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
        lr: float,
        momentum: float,
        weight_decay: float,
        trust_coefficient: float,
        eps: float,
        clip: bool,
    ):
        super().__init__(params, lr=lr, momentum=momentum, weight_decay=weight_decay, fused=True)
        self.trust_coefficient, self.eps, self.clip = trust_coefficient, eps, clip

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        loss = None
        if closure is not None:  # the gradients to be scaled are those that it computes
            with torch.enable_grad():
                loss = closure()
        start_momentum(self)
        decays = [group["weight_decay"] for group in self.param_groups]
        for group in self.param_groups:
            self._scale_gradients(group)
            group["weight_decay"] = 0.0
        try:
            own_step(torch.optim.SGD, self)
            return loss
        finally:
            for group, decay in zip(self.param_groups, decays, strict=True):
                group["weight_decay"] = decay

    def _scale_gradients(self, group: dict[str, Any]) -> None:
        params: list[Tensor] = [p for p in group["params"] if p.grad is not None]
        if not params:
            return
        grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
        param_norms = torch.stack(torch._foreach_norm(params))
        grad_norms = torch.stack(torch._foreach_norm(grads))
        decay = group["weight_decay"]
        ratios = self.trust_coefficient * param_norms
        ratios = ratios / (grad_norms + decay * param_norms + self.eps)
        if self.clip:
            ratios = (ratios / group["lr"]).clamp_max(1)
        # a parameter of zeros takes its gradient as it is, to which decay adds nothing; a gradient
        # of zeros stays one, whatever decay has added
        ratios = torch.where(param_norms == 0, 1.0, torch.where(grad_norms == 0, 0.0, ratios))
        if decay != 0:
            torch._foreach_add_(grads, params, alpha=decay)
        torch._foreach_mul_(grads, list(ratios.unbind()))
