"""LARC around SGD: layer-wise learning rates (You et al., arXiv:1708.03888)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from ssl_platform.optim.torch_optimizers import start_momentum
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
        for group in self.param_groups:
            params = [param for param in group["params"] if param.grad is not None]
            grads = [param.grad for param in params]
            if not params:
                continue
            ratios = self._ratios(group, params, grads)
            torch._foreach_mul_(grads, list(ratios.unbind()))
            decays = group["weight_decay"] * ratios
            if params[0].device.type == "cpu":  # each with its own decay: one pass less over all
                for param, grad, decay in zip(params, grads, decays.tolist(), strict=True):
                    self._move([param], [grad], group, decay)
            else:  # where to know the decays would be to wait for the device
                torch._foreach_add_(grads, torch._foreach_mul(params, list(decays.unbind())))
                self._move(params, grads, group, 0.0)
        return loss

    def _ratios(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor]) -> Tensor:
        """What each gradient and the decay of its parameter are multiplied by."""
        param_norms = torch.stack(torch._foreach_norm(params))
        grad_norms = torch.stack(torch._foreach_norm(grads))
        ratios = self.trust_coefficient * param_norms
        ratios = ratios / (grad_norms + group["weight_decay"] * param_norms + self.eps)
        if self.clip:
            ratios = (ratios / group["lr"]).clamp_max(1)
        # a parameter of zeros takes its gradient as it is, to which decay adds nothing; a gradient
        # of zeros stays one, whatever decay would add
        return torch.where(param_norms == 0, 1.0, torch.where(grad_norms == 0, 0.0, ratios))

    def _move(
        self, params: list[Tensor], grads: list[Tensor], group: dict[str, Any], decay: float
    ) -> None:
        buffers = [self.state[param].get("momentum_buffer") for param in params]
        sgd(
            params,
            grads,
            buffers,
            fused=True,
            grad_scale=getattr(self, "grad_scale", None),
            found_inf=getattr(self, "found_inf", None),
            weight_decay=decay,
            momentum=group["momentum"],
            lr=group["lr"],
            dampening=0,
            nesterov=False,
            maximize=False,
        )
