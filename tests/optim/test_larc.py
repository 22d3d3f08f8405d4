import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from ssl_platform.optim.larc import LARC

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "larc.json").read_text())
SWAV = {
    "momentum": 0.9,
    "weight_decay": 1e-6,
    "trust_coefficient": 0.001,
    "eps": 1e-8,
    "clip": False,
}


class AtOnce(LARC):
    """Steps on a CPU as it would on a GPU."""

    _one_by_one = LARC._at_once


both_ways = pytest.mark.parametrize("larc", [LARC, AtOnce])


def set_gradients(params: list[nn.Parameter], grads: list[Tensor | None]) -> None:
    for param, grad in zip(params, grads, strict=True):
        param.grad = None if grad is None else grad.clone()


def random_tensors(seed: int, sizes: list[int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(size, dtype=torch.float64, generator=generator) for size in sizes]


def textbook_step(
    param: Tensor,
    grad: Tensor,
    velocity: Tensor | None,
    *,
    lr: float,
    momentum: float,
    weight_decay: float,
    trust_coefficient: float,
    eps: float,
    clip: bool,
) -> tuple[Tensor, Tensor]:
    """One parameter after one step, and its momentum."""
    param_norm, grad_norm = param.square().sum().sqrt(), grad.square().sum().sqrt()
    if param_norm > 0 and grad_norm > 0:
        ratio = trust_coefficient * param_norm / (grad_norm + weight_decay * param_norm + eps)
        if clip:
            ratio = min(ratio / lr, torch.tensor(1.0))
        grad = (grad + weight_decay * param) * ratio
    velocity = grad if velocity is None else momentum * velocity + grad
    return param - lr * velocity, velocity


@both_ways
@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: case["name"])
def test_three_steps_equal_those_of_the_reference(case, larc):
    params = [nn.Parameter(torch.tensor(p, dtype=torch.float64)) for p in case["params0"]]
    optimizer = larc(
        params,
        lr=0.0,
        **{name: case[name] for name in SWAV},
    )
    steps = zip(case["lr_per_step"], case["grads_per_step"], case["steps"], strict=True)
    for lr, grads, expected in steps:
        optimizer.param_groups[0]["lr"] = lr
        set_gradients(
            params, [None if g is None else torch.tensor(g, dtype=torch.float64) for g in grads]
        )
        optimizer.step()
        for param, value, momentum in zip(
            params, expected["params"], expected["momentum"], strict=True
        ):
            wanted = torch.tensor(value, dtype=torch.float64)
            torch.testing.assert_close(param.detach(), wanted, rtol=VECTORS["rtol"], atol=0)
            if momentum is None:
                assert param not in optimizer.state
                continue
            wanted = torch.tensor(momentum, dtype=torch.float64)
            buffer = optimizer.state[param]["momentum_buffer"]
            torch.testing.assert_close(buffer, wanted, rtol=VECTORS["rtol"], atol=0)
        assert optimizer.param_groups[0]["weight_decay"] == expected["group_weight_decay_after"]


@both_ways
@settings(max_examples=40, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    frozen=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=5),
    zero=st.integers(0, 3),
    momentum=st.sampled_from([0.0, 0.9]),
    weight_decay=st.sampled_from([0.0, 1e-6, 0.1]),
    trust_coefficient=st.sampled_from([0.001, 0.02, 1.0]),
    clip=st.booleans(),
)
def test_every_parameter_moves_as_in_the_textbook(
    larc, sizes, frozen, zero, momentum, weight_decay, trust_coefficient, clip
):
    options = {
        "momentum": momentum,
        "weight_decay": weight_decay,
        "trust_coefficient": trust_coefficient,
        "eps": 1e-8,
        "clip": clip,
    }
    values = [p * (i != zero) for i, p in enumerate(random_tensors(0, sizes))]
    velocities: list[Tensor | None] = [None] * len(sizes)
    params = [nn.Parameter(value.clone()) for value in values]
    optimizer = larc(params, lr=0.3, **options)
    for step in range(3):
        grads = [
            None if (step, i) in frozen else grad
            for i, grad in enumerate(random_tensors(step + 1, sizes))
        ]
        set_gradients(params, grads)
        optimizer.step()
        for i, grad in enumerate(grads):
            if grad is not None:
                values[i], velocities[i] = textbook_step(
                    values[i], grad, velocities[i], lr=0.3, **options
                )
            torch.testing.assert_close(params[i].detach(), values[i], rtol=1e-10, atol=1e-14)


def test_every_group_is_stepped_with_its_own_options():
    groups = [{"lr": 0.5, "weight_decay": 0.1}, {"lr": 0.2, "weight_decay": 0.0, "momentum": 0.5}]
    values, velocities = random_tensors(0, [4, 3]), [None, None]
    params = [nn.Parameter(value.clone()) for value in values]
    nodes = [{"params": [param], **own} for param, own in zip(params, groups, strict=True)]
    optimizer = LARC(nodes, lr=0.1, **SWAV)
    for step in range(3):
        grads = random_tensors(step + 1, [4, 3])
        set_gradients(params, grads)
        optimizer.step()
        for i, own in enumerate(groups):
            values[i], velocities[i] = textbook_step(
                values[i], grads[i], velocities[i], **(SWAV | own)
            )
            torch.testing.assert_close(params[i].detach(), values[i], rtol=1e-10, atol=1e-14)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.1, 0.0]


@both_ways
def test_a_gradient_of_zeros_moves_nothing_in_spite_of_decay(larc):
    (value,) = random_tensors(0, [3])
    param = nn.Parameter(value.clone())
    set_gradients([param], [torch.zeros_like(value)])
    larc([param], lr=0.3, **(SWAV | {"weight_decay": 0.1})).step()
    assert param.detach().equal(value)


@both_ways
def test_a_step_with_gradients_that_overflowed_is_left_out(larc):
    param = nn.Parameter(torch.ones(3))
    optimizer = larc([param], lr=0.3, **SWAV)
    scaler = torch.amp.GradScaler("cpu")
    losses = [param.sum() * torch.inf, param.sum()]
    seen = []
    for loss in losses:
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward(retain_graph=True)
        scaler.unscale_(optimizer)
        scaler.step(optimizer)
        scaler.update()
        seen.append(param.detach().clone())
    assert seen[0].equal(torch.ones(3))
    expected, _ = textbook_step(torch.ones(3), torch.ones(3), None, lr=0.3, **SWAV)
    torch.testing.assert_close(seen[1], expected)
