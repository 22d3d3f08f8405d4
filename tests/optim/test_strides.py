"""Steps where parameter, gradient and state lie in memory each in its own way."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ssl_platform.errors import ConfigError
from ssl_platform.optim.larc import LARC
from ssl_platform.optim.strides import is_dense, overlaps
from ssl_platform.optim.torch_optimizers import SGD, Adam, AdamW

LARC_OPTIONS = {"trust_coefficient": 0.1, "eps": 1e-8, "clip": False}
SGD_OPTIONS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}
ADAM_OPTIONS = {"lr": 0.1, "betas": (0.9, 0.99), "eps": 1e-8, "weight_decay": 0.01}


class AtOnce(LARC):
    """Steps on a CPU as it would on a GPU."""

    _one_by_one = LARC._at_once


class PlainLARC(torch.optim.SGD):
    """The formula, then torch's unfused step."""

    @torch.no_grad()
    def step(self) -> None:
        for param in self.param_groups[0]["params"]:
            decay, norm, grad = 0.01, param.norm(), param.grad
            param.grad = (grad + decay * param) * 0.1 * norm / (grad.norm() + decay * norm + 1e-8)
        super().step()


def unfused_larc(params: list[nn.Parameter]) -> Optimizer:
    return PlainLARC(params, **(SGD_OPTIONS | {"weight_decay": 0}), foreach=False)


OPTIMIZERS: dict[str, tuple[Callable[..., Optimizer], Callable[..., Optimizer]]] = {
    "SGD": (
        lambda params: SGD(params, **SGD_OPTIONS, nesterov=True),
        lambda params: torch.optim.SGD(params, **SGD_OPTIONS, nesterov=True, foreach=False),
    ),
    "LARC": (lambda params: LARC(params, **SGD_OPTIONS, **LARC_OPTIONS), unfused_larc),
    "LARC at once": (lambda params: AtOnce(params, **SGD_OPTIONS, **LARC_OPTIONS), unfused_larc),
    "Adam": (
        lambda params: Adam(params, **ADAM_OPTIONS),
        lambda params: torch.optim.Adam(params, **ADAM_OPTIONS, foreach=False),
    ),
    "AdamW": (
        lambda params: AdamW(params, **ADAM_OPTIONS),
        lambda params: torch.optim.AdamW(params, **ADAM_OPTIONS, foreach=False),
    ),
}
SHAPE = (4, 6, 3, 2)
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": torch.Tensor.contiguous,
    "channels_last": lambda t: t.contiguous(memory_format=torch.channels_last),
    "transposed": lambda t: t.transpose(0, 1).contiguous().transpose(0, 1),
    "with gaps": lambda t: torch.stack([t, t], dim=-1)[..., 0],
    "cut out": lambda t: nn.functional.pad(t, (1, 1))[..., 1:-1],
    "turned": lambda t: t.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0),
}
every_optimizer = pytest.mark.parametrize("name", OPTIMIZERS)


def numbers(seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(SHAPE, dtype=torch.float64, generator=generator)


def steps_like_the_formula(
    name: str, value: Tensor, gradients: list[Tensor], between: Callable = lambda optimizer: None
) -> None:
    """Step a parameter as it lies in memory, and a contiguous one by the formula."""
    own, plain = OPTIMIZERS[name]
    param, expected = nn.Parameter(value), nn.Parameter(value.contiguous().clone())
    optimizer, textbook = own([param]), plain([expected])
    for grad in gradients:
        param.grad, expected.grad = grad, grad.contiguous().clone()
        optimizer.step()
        textbook.step()
        between(optimizer)
    assert param.data_ptr() == value.data_ptr() or not is_dense(value)
    torch.testing.assert_close(param, expected, rtol=1e-10, atol=1e-14)


@every_optimizer
@pytest.mark.parametrize("of_gradient", LAYOUTS)
@pytest.mark.parametrize("of_parameter", LAYOUTS)
def test_a_step_does_not_depend_on_how_gradients_and_parameters_lie_in_memory(
    name, of_parameter, of_gradient
):
    gradients = [LAYOUTS[of_gradient](numbers(seed)) for seed in (1, 2, 3)]
    steps_like_the_formula(name, LAYOUTS[of_parameter](numbers(0)), gradients)


@every_optimizer
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (1, 6, 1, 2), (4, 1, 1, 1)])
def test_an_expanded_gradient_is_one_of_equal_numbers(name, shape):
    gradients = [numbers(seed)[: shape[0], : shape[1], : shape[2], : shape[3]] for seed in (1, 2)]
    steps_like_the_formula(name, numbers(0), [grad.expand(SHAPE) for grad in gradients])


@every_optimizer
def test_gradients_whose_layout_changes_from_step_to_step_meet_one_state(name):
    gradients = [lay(numbers(seed)) for seed, lay in enumerate(LAYOUTS.values(), start=1)]
    steps_like_the_formula(name, numbers(0), gradients)


@every_optimizer
def test_a_state_that_was_saved_of_a_parameter_of_other_strides_goes_on(name):
    def save_and_load(optimizer: Optimizer) -> None:
        state = deepcopy(optimizer.state_dict())
        for name, value in state["state"][0].items():
            if value is not None and value.ndim == 4:
                state["state"][0][name] = LAYOUTS["channels_last"](value)
        optimizer.load_state_dict(state)

    steps_like_the_formula(name, numbers(0), [numbers(1), numbers(2)], between=save_and_load)


@every_optimizer
def test_gradients_that_lie_as_their_parameters_are_not_copied(name):
    param = nn.Parameter(LAYOUTS["channels_last"](numbers(0)))
    grad = param.grad = LAYOUTS["channels_last"](numbers(1))
    OPTIMIZERS[name][0]([param]).step()
    assert param.grad is grad


@every_optimizer
def test_a_sparse_gradient_is_refused_in_one_line(name):
    layer = nn.Embedding(4, 3, sparse=True)
    layer(torch.tensor([1])).sum().backward()
    before = layer.weight.detach().clone()
    with pytest.raises(ConfigError) as error:
        OPTIMIZERS[name][0](layer.parameters()).step()
    assert str(error.value) == (
        "optimizer: the gradient of a parameter of shape (4, 3) is sparse, which no optimizer here "
        "can step by; make its layer with sparse=False"
    )
    assert layer.weight.equal(before)


@every_optimizer
def test_a_parameter_whose_elements_share_memory_is_refused_at_the_start(name):
    for value in (torch.ones(3, 1).expand(3, 4), torch.ones(9).as_strided((3, 3), (2, 1))):
        with pytest.raises(ValueError) as error:
            OPTIMIZERS[name][0]([nn.Parameter(value)])
        assert str(error.value) == (
            f"a parameter of shape {tuple(value.shape)} has strides {value.stride()}: several of "
            "its elements are one place in memory; make it of a .clone()"
        )


def test_density_and_overlap_are_told_from_strides():
    dense = {"contiguous", "channels_last", "transposed", "turned"}
    assert {name for name, lay in LAYOUTS.items() if is_dense(lay(numbers(0)))} == dense
    assert not any(overlaps(lay(numbers(0))) for lay in LAYOUTS.values())
    assert overlaps(torch.ones(1).expand(2)) and not overlaps(torch.ones(1, 1).expand(1, 1))
    assert not overlaps(torch.empty(0, 1).expand(0, 4)) and is_dense(torch.ones(()))
