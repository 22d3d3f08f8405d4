"""torch's own optimizers, with every option that changes a result spelled out."""

import inspect
from abc import abstractmethod
from collections.abc import Iterable
from typing import Annotated, Any

import torch
from annotated_types import Ge, Interval
from torch.optim import Optimizer

from ssl_platform.optim.strides import align, is_dense, overlaps
from ssl_platform.registry import OPTIMIZERS

NotNegative = Annotated[float, Ge(0)]
Momentum = Annotated[float, Interval(ge=0, lt=1), "e.g. 0.9"]


class FusedOptimizer(Optimizer):
    """A step of torch's fused kernels, which ignore strides.

    The decorators of ``Optimizer`` import torch's compiler, 1.4 s of every process, to tell it what
    not to compile. Nothing here compiles an optimizer, so the methods are used without them.
    """

    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """As torch's; a parameter with gaps in memory is made dense, as the kernels need it.

        Raises:
            ValueError: elements of a parameter share memory.
        """
        inspect.unwrap(Optimizer.add_param_group)(self, param_group)
        for param in self.param_groups[-1]["params"]:
            if overlaps(param):
                raise ValueError(
                    f"a parameter of shape {tuple(param.shape)} has strides {param.stride()}: "
                    "several of its elements are one place in memory; make it of a .clone()"
                )
            if not is_dense(param):
                param.data = param.data.contiguous()

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Step by the gradients that the parameters have."""
        assert closure is None  # no training computes its loss in a step
        align(self)
        self.update()

    @abstractmethod
    def update(self) -> None:
        """Step by gradients that lie in memory as their parameters do."""


@OPTIMIZERS.register()
class SGD(FusedOptimizer, torch.optim.SGD):
    """torch.optim.SGD without dampening."""

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NotNegative,
        momentum: Momentum,
        weight_decay: NotNegative,
        nesterov: bool,
    ):
        if nesterov and momentum == 0:
            raise ValueError("nesterov=true: needs momentum above 0, e.g. 0.9")
        super().__init__(
            params,
            lr=lr,
            momentum=momentum,
            weight_decay=weight_decay,
            nesterov=nesterov,
            fused=True,
        )

    def update(self) -> None:
        start_momentum(self)
        self._step()

    _step = inspect.unwrap(torch.optim.SGD.step)


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


class _AdamOptions(FusedOptimizer):
    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: NotNegative,
        betas: tuple[Momentum, Momentum],
        eps: NotNegative,
        weight_decay: NotNegative,
    ):
        options = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, **options, fused=True)  # type: ignore[arg-type, call-arg]


@OPTIMIZERS.register()
class Adam(_AdamOptions, torch.optim.Adam):
    """torch.optim.Adam: ``weight_decay`` is added to the gradient."""

    update = inspect.unwrap(torch.optim.Adam.step)


@OPTIMIZERS.register()
class AdamW(_AdamOptions, torch.optim.AdamW):
    """torch.optim.AdamW: ``weight_decay`` shrinks the weights themselves."""

    update = inspect.unwrap(torch.optim.AdamW.step)
