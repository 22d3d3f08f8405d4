"""Gradients of several ranks: a first step adds them as all that follow do."""

import copy

import torch
from ranks import run_on_ranks
from torch import Tensor, nn

from ssl_platform import distributed

WIDTH = 700  # more than the first bucket of DDP holds


class Branches(nn.Module):
    """Its layers are used in another order than they are registered in, one in training only."""

    def __init__(self):
        super().__init__()
        self.last, self.unused = nn.Linear(WIDTH, 3), nn.Linear(3, 3)
        self.first, self.norm = nn.Linear(5, WIDTH), nn.BatchNorm1d(WIDTH)
        self.middle, self.drop = nn.Linear(WIDTH, WIDTH), nn.Dropout()

    def forward(self, inputs: Tensor) -> dict[str, list[Tensor]]:
        with torch.no_grad():
            self.middle.weight.mul_(0.5)  # as heads that normalise their weights as they go
        hidden = self.drop(self.middle(self.norm(self.first(inputs)).relu()))
        outputs = self.last(hidden)
        return {"head": [self.unused(outputs) if self.training else outputs, inputs]}


def gradients() -> tuple[list[str], bool, list[bytes]]:
    """Traces that replicating has left, whether it trains, and the gradients of two like steps."""
    torch.manual_seed(distributed.rank())
    module = Branches()
    before, random = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    replica = distributed.replicate(module, torch.zeros(1, 5))
    if distributed.rank() != 0:  # whose weights all have now
        before = module.state_dict()
    traces = [name for name, value in module.state_dict().items() if not value.equal(before[name])]
    traces += ["random state"] * (not torch.get_rng_state().equal(random))
    traces += [name for name, weight in module.named_parameters() if weight.grad is not None]
    is_training = replica.training and module.training
    start, inputs = copy.deepcopy(module.state_dict()), torch.randn(4, 5)
    found = []
    for _ in range(2):
        module.load_state_dict(start)
        module.zero_grad(set_to_none=True)
        torch.manual_seed(9 + distributed.rank())
        replica(inputs)["head"][0].square().sum().backward()
        found.append(b"".join(p.grad.numpy().tobytes() for p in module.parameters()))
    return traces, is_training, found


def test_three_ranks_add_in_the_first_step_as_in_the_second():
    ranks = run_on_ranks(gradients, 3)
    for traces, is_training, (first, second) in ranks:
        assert not traces and is_training
        assert first == second == ranks[0][2][0]


def test_alone_a_module_is_its_own_replica():
    module = Branches()
    assert distributed.replicate(module, torch.zeros(1, 5)) is module
