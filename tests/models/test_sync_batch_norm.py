from copy import deepcopy
from typing import Any

import pytest
import torch
from ranks import run_on_ranks
from torch import Tensor, nn

from ssl_platform import distributed
from ssl_platform.models.sync_batch_norm import AllReduceBatchNorm, synchronize_batch_norm

CHANNELS, ROWS, STEPS = 3, 12, 2
CPU = torch.device("cpu")
SHAPES = {"1d": (ROWS, CHANNELS), "2d": (ROWS, CHANNELS, 4, 5)}


class ActivatedBatchNorm(nn.BatchNorm2d):
    """A batch norm that does more than normalise, as some libraries have."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input).relu()


def synchronized(norm: nn.Module, group_size: int = 0) -> nn.Module:
    """The only part of a model, after the model was converted."""
    model = synchronize_batch_norm(
        nn.Sequential(norm), group_size=group_size, world_size=distributed.world_size(), device=CPU
    )
    (norm,) = model.children()
    return norm


def random_rows(seed: int, kind: str) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 5 + 2 * torch.randn(SHAPES[kind], dtype=torch.float64, generator=generator)


def a_norm(kind: str) -> nn.Module:
    norm = nn.BatchNorm1d(CHANNELS) if kind == "1d" else nn.BatchNorm2d(CHANNELS)
    norm = norm.double()
    norm.weight.data = torch.tensor([0.5, 1.0, -2.0], dtype=torch.float64)
    norm.bias.data = torch.tensor([0.1, 0.0, 3.0], dtype=torch.float64)
    return norm


def trained(norm: nn.Module, kind: str, part: int, num_parts: int) -> dict[str, Any]:
    """Outputs, gradients and statistics of some steps on one part of the rows."""
    outputs, input_gradients = [], []
    for step in range(STEPS):
        rows = random_rows(step, kind).chunk(num_parts)[part].requires_grad_()
        coefficients = random_rows(100 + step, kind).chunk(num_parts)[part]
        output = norm(rows)
        (output * coefficients).sum().backward()
        outputs.append(output.detach())
        input_gradients.append(rows.grad)
    return {
        "outputs": torch.stack(outputs),
        "input_gradients": torch.stack(input_gradients),
        "weight_gradient": norm.weight.grad,
        "bias_gradient": norm.bias.grad,
        "state": norm.state_dict(),
    }


def trained_on_this_rank(kind: str, group_size: int) -> dict[str, Any]:
    norm = synchronized(a_norm(kind), group_size)
    result = trained(norm, kind, distributed.rank(), distributed.world_size())
    norm.eval()
    unsynchronised = a_norm(kind)
    unsynchronised.load_state_dict(norm.state_dict())
    rows = random_rows(1000 + distributed.rank(), kind)
    result["evaluation"] = norm(rows).detach(), unsynchronised.eval()(rows).detach()
    return result


@pytest.mark.parametrize("kind", SHAPES)
@pytest.mark.parametrize(("num_ranks", "group_size"), [(2, 0), (2, 2), (4, 0), (4, 2), (4, 4)])
def test_a_group_computes_what_one_process_does_with_its_rows(kind, num_ranks, group_size):
    on_ranks = run_on_ranks(trained_on_this_rank, num_ranks, kind, group_size)
    size = group_size or num_ranks
    for group in range(num_ranks // size):
        members = on_ranks[group * size : (group + 1) * size]
        whole = trained(a_norm(kind), kind, group, num_ranks // size)
        close = {"rtol": 1e-6, "atol": 1e-9}
        for name in ("outputs", "input_gradients"):
            together = torch.cat([member[name] for member in members], dim=1)
            torch.testing.assert_close(together, whole[name], **close)
        for name in ("weight_gradient", "bias_gradient"):
            total = sum(member[name] for member in members)
            torch.testing.assert_close(total, whole[name], **close)
        for member in members:
            torch.testing.assert_close(dict(member["state"]), dict(whole["state"]), **close)
            torch.testing.assert_close(*member["evaluation"], rtol=0, atol=0)


def half_precision_on_this_rank() -> tuple[Tensor, Tensor]:
    rank, world_size = distributed.rank(), distributed.world_size()
    rows = half_precision_rows().chunk(world_size)[rank]
    norm = synchronized(nn.BatchNorm1d(CHANNELS))
    return norm(rows).detach(), norm.running_mean


def half_precision_rows() -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return (5 + torch.randn(2 * 259, CHANNELS, generator=generator)).bfloat16()


def test_statistics_of_half_precision_rows_are_kept_in_float32():
    on_ranks = run_on_ranks(half_precision_on_this_rank, 2)
    whole = nn.BatchNorm1d(CHANNELS)
    expected = whole(half_precision_rows()).detach()
    outputs = torch.cat([output for output, _ in on_ranks])
    assert outputs.dtype == expected.dtype
    torch.testing.assert_close(outputs, expected, rtol=0.01, atol=0.02)
    for _, running_mean in on_ranks:
        torch.testing.assert_close(running_mean, whole.running_mean, rtol=1e-4, atol=1e-5)


def activated_on_this_rank() -> tuple[Tensor, Tensor]:
    rows = random_rows(0, "2d").float() - 5
    converted = synchronized(ActivatedBatchNorm(CHANNELS))
    # all ranks have the same rows, so their statistics are those of each
    return converted(rows).detach(), ActivatedBatchNorm(CHANNELS)(rows).detach()


def test_a_batch_norm_that_does_more_than_normalise_keeps_doing_it():
    for converted, expected in run_on_ranks(activated_on_this_rank, 2):
        torch.testing.assert_close(converted, expected)


def converted_on_this_rank(group_size: int) -> tuple[list[type], list[type]]:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Sequential(nn.BatchNorm2d(3)))
    before = [type(module) for module in model.modules()]
    model = synchronize_batch_norm(
        model, group_size=group_size, world_size=distributed.world_size(), device=CPU
    )
    return before, [type(module) for module in model.modules()]


def test_a_group_of_one_rank_changes_nothing():
    for before, after in run_on_ranks(converted_on_this_rank, 2, 1):
        assert after == before


def test_every_batch_norm_of_a_model_is_converted_and_nothing_else():
    for before, after in run_on_ranks(converted_on_this_rank, 2, 0):
        norms = (nn.BatchNorm1d, nn.BatchNorm2d)
        assert after == [AllReduceBatchNorm if kind in norms else kind for kind in before]


@pytest.mark.parametrize("group_size", [0, 1])
def test_a_single_process_keeps_its_batch_norms(group_size):
    norm = a_norm("1d")
    state = deepcopy(norm.state_dict())
    assert (
        synchronize_batch_norm(
            norm, group_size=group_size, world_size=distributed.world_size(), device=CPU
        )
        is norm
    )
    assert type(norm) is nn.BatchNorm1d
    torch.testing.assert_close(dict(norm.state_dict()), dict(state), rtol=0, atol=0)
