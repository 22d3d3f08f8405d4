"""A step of LARC on the parameters of a ResNet-50 against a loop over them, as apex has it.

python benchmarks/larc.py [--rounds 15]
"""

from ratios import Row, rounds_of, run_alone, speedups  # isort: skip (threads)

from collections.abc import Iterator

import torch
import torchvision
from torch import nn

from ssl_platform.optim.larc import LARC

LR, MOMENTUM, DECAY, TRUST, EPS = 0.6, 0.9, 1e-6, 0.001, 1e-8


class LoopedLARC:
    """Each parameter's gradient scaled by itself, then torch's SGD."""

    def __init__(self, params: list[nn.Parameter]):
        self.params = params
        self.sgd = torch.optim.SGD(params, lr=LR, momentum=MOMENTUM, foreach=False, fused=False)

    @torch.no_grad()
    def step(self) -> None:
        for param in self.params:
            assert param.grad is not None
            param_norm, grad_norm = param.norm(), param.grad.norm()
            if param_norm != 0 and grad_norm != 0:
                ratio = TRUST * param_norm / (grad_norm + DECAY * param_norm + EPS)
                param.grad += DECAY * param
                param.grad *= ratio
        self.sgd.step()


def parameters() -> list[nn.Parameter]:
    torch.manual_seed(0)
    params = list(torchvision.models.resnet50().parameters())
    for param in params:
        param.grad = torch.randn_like(param) * 0.01
    return params


def rows(rounds: int) -> Iterator[Row]:
    looped_params, params = parameters(), parameters()
    looped = LoopedLARC(looped_params)
    platform = LARC(params, LR, MOMENTUM, DECAY, TRUST, EPS, clip=False)
    looped.step()
    platform.step()
    difference = max(
        ((a - b).abs().max() / a.abs().max()).item()
        for a, b in zip(looped_params, params, strict=True)
    )
    seconds = rounds_of({"loop": looped.step, "platform": platform.step}, rounds)
    yield Row("LARC on ResNet-50, loop", speedups(seconds["loop"], seconds["platform"]), 1.5)
    yield Row("LARC, difference of a step, 1e-6", [difference * 1e6], 1, "")


if __name__ == "__main__":
    run_alone(__doc__, rows, 15)
