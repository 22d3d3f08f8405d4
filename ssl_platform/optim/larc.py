"""LARC around SGD: layer-wise learning rates (You et al., arXiv:1708.03888)."""

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.optim.sgd import sgd

from ssl_platform.optim.torch_optimizers import QuickToStart, start_momentum
from ssl_platform.registry import OPTIMIZERS

PORTION_BYTES = 2**21


@OPTIMIZERS.register()
class LARC(QuickToStart, torch.optim.SGD):
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
            for params in portions([p for p in group["params"] if p.grad is not None]):
                self._update(params, group)
        return loss

    def _update(self, params: list[Tensor], group: dict[str, Any]) -> None:
        grads: list[Tensor] = [p.grad for p in params if p.grad is not None]
        self._scale(grads, params, group)
        sgd(
            params,
            grads,
            [self.state[param].get("momentum_buffer") for param in params],
            fused=True,
            grad_scale=getattr(self, "grad_scale", None),  # these two are set by a GradScaler
            found_inf=getattr(self, "found_inf", None),
            lr=group["lr"],
            momentum=group["momentum"],
            weight_decay=0.0,  # it is in the gradients
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    def _scale(self, grads: list[Tensor], params: list[Tensor], group: dict[str, Any]) -> None:
        norms = torch.stack(torch._foreach_norm([*params, *grads]))
        param_norms, grad_norms = norms.chunk(2)
        decay = group["weight_decay"]
        ratios = self.trust_coefficient * param_norms
        ratios = ratios / (grad_norms + decay * param_norms + self.eps)
        if self.clip:
            ratios = (ratios / group["lr"]).clamp_max(1)
        # a parameter of zeros takes its gradient as it is, to which decay adds nothing; a gradient
        # of zeros stays one, whatever decay has added
        ratios.masked_fill_(grad_norms == 0, 0.0).masked_fill_(param_norms == 0, 1.0)
        if decay != 0:
            torch._foreach_add_(grads, params, alpha=decay)
        torch._foreach_mul_(grads, list(ratios.unbind()))


def portions(params: list[Tensor]) -> Iterator[list[Tensor]]:
    """Runs of parameters that stay in a CPU's cache from one operation to the next.

    A GPU gets all at once: there it is launches that count.
    """
    portion: list[Tensor] = []
    num_bytes = 0
    for param in params:
        portion.append(param)
        num_bytes += param.nbytes
        if num_bytes >= PORTION_BYTES and param.device.type == "cpu":
            yield portion
            portion, num_bytes = [], 0
    if portion:
        yield portion
