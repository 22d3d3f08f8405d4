"""Parts of a config, constructed where tensors have no values."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from ssl_platform.job.tried_parts import TriedParts, without_values
from ssl_platform.models.layers import layer_shapes
from ssl_platform.registry import TRUNKS


class Rates(nn.Linear):
    """Begins as many transformers do."""

    def __init__(self):
        super().__init__(4, 4)
        self.rates = [rate.item() for rate in torch.linspace(0, 0.1, 3)]


class Matrix(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
        self.total = float(torch.eye(3).numpy().sum())


class Coin(nn.Linear):
    def __init__(self):
        super().__init__(4, 4 if torch.rand(1) < 2 else 5)


class Wrong(nn.Linear):
    def __init__(self):
        super().__init__(4, 4)
        [rate.item() for rate in torch.linspace(0, 0.1, 3)]
        raise KeyError("depth")


class Registry:
    """Builds one class."""

    def __init__(self, kind):
        self.kind = kind

    def build(self, node):
        return self.kind()


def tried():
    parts = TriedParts()
    parts.options = SimpleNamespace(launch=SimpleNamespace(slurm=None, launcher=None), device="cpu")
    return parts


def parts_with(kind):
    parts = tried()
    parts.nodes["trunk"] = Registry(kind), {}
    return parts


@pytest.mark.parametrize("kind", [Rates, Matrix, Coin])
def test_a_constructor_that_needs_values_gets_them(kind):
    parts, before = parts_with(kind), torch.get_rng_state()
    with without_values():
        built = parts.build("trunk")
    assert parts.problems == []
    assert all(p.is_meta for p in built.parameters())
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_wrong_with_such_a_constructor_is_told_and_not_the_values():
    parts = parts_with(Wrong)
    with without_values():
        assert parts.tried(parts.build, "trunk") is None
    (line,) = parts.problems
    assert line.startswith("trunk: KeyError: 'depth' (")


def test_numbers_that_are_drawn_for_a_trial_are_few_and_as_they_should_be():
    with without_values(), torch.device("cpu"):
        weights = nn.Linear(300, 200).weight
        nn.init.normal_(weights, std=0.5)
    assert len(weights.unique()) <= 4096
    assert weights.std().item() == pytest.approx(0.5, rel=0.1)


def test_a_width_may_be_a_number_of_numpy():
    trunk = Rates()
    trunk.out_dim = np.int64(4)
    assert type(layer_shapes(trunk, ["pooled"], 8)["pooled"]) is int


@pytest.fixture
def lazy_trunk():
    @TRUNKS.register()
    class LazyTrunk(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out_dim = nn.LazyConv2d(4, 3), 4

    yield {"name": "LazyTrunk"}
    TRUNKS._obj_map.pop("LazyTrunk")


def test_a_lazy_module_is_told_to_say_its_width(lazy_trunk):
    parts = tried()
    parts.add({"trunk": lazy_trunk})
    with without_values():
        assert parts.tried(parts.build, "trunk") is None
    assert parts.problems == [
        "trunk: LazyTrunk has weights whose shape is not known yet (a Lazy module of torch); say "
        "the width of its input"
    ]
