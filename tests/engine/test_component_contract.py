"""Components from outside: one line when they are not what the platform takes them for."""

import json
import re

import numpy as np
import pytest
import torch
from torch import nn

from ssl_platform.distributed import outputs_of
from ssl_platform.engine.contract import check_component, check_schedule
from ssl_platform.engine.gradients import check_losses
from ssl_platform.engine.run import Events
from ssl_platform.errors import ConfigError
from ssl_platform.hooks import log
from ssl_platform.loggers import group
from ssl_platform.losses.base import Loss
from ssl_platform.metrics import measured


class MyHook(Events):
    def on_epoch_end(self):
        pass


class Misspelt(Events):
    def on_epoch_ends(self, run):
        pass


class Free(Events):
    def on_epoch_end(self, *args):
        pass

    def on_step_end(self, run, verbose=False):
        pass


class MyLoss(Loss):
    def forward(self, model, outputs):
        return {}


class Lbfgs(torch.optim.LBFGS):
    pass


class HalfLoss(Loss):
    def __init__(self):
        pass

    def forward(self, model, outputs, batch):
        return {}


class HalfOptimizer(torch.optim.Optimizer):
    def __init__(self):
        self.defaults, self.param_groups = {"lr": 1.0}, [{"lr": 1.0}]

    def step(self):
        pass


class NoLabels:
    def __call__(self, scores):
        return 0.0


class NoRate(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {})

    def step(self, closure=None):
        pass


def weights():
    return [nn.Parameter(torch.ones(1))]


MOMENT = "MyHook.on_epoch_end() is called with the run: def on_epoch_end(self, run)"
NO_MOMENT = (
    "Misspelt.on_epoch_ends is called at no moment; did you mean 'on_epoch_end'? (a helper needs a "
    "name that does not begin with on_)"
)
CLOSURE = (
    "Lbfgs.step(closure) is called without a closure: an optimizer that needs one computes the "
    "loss several times a step, which a training does not"
)
FORWARD = "MyLoss.forward(model, outputs) is called with the model, its outputs and the batch"
BASE = "the constructor of {} has to call super().__init__({}) first"
RATE = "NoRate has no learning rate lr among its defaults, for a schedule to set"


@pytest.mark.parametrize(
    ("where", "build", "message"),
    [
        ("hooks.mine", MyHook, MOMENT),
        ("hooks.mine", Misspelt, NO_MOMENT),
        ("hooks.mine", object, "object has to be a subclass of ssl_platform.events.Events"),
        ("loss", nn.Identity, "Identity has to be a subclass of ssl_platform.losses.base.Loss"),
        ("loss", MyLoss, FORWARD),
        ("loss", HalfLoss, BASE.format("HalfLoss", "")),
        ("optimizer", lambda: Lbfgs(weights()), CLOSURE),
        ("optimizer", lambda: NoRate(weights()), RATE),
        ("optimizer", HalfOptimizer, BASE.format("HalfOptimizer", "params, defaults")),
        ("metrics.mine", NoLabels, "NoLabels(scores) is called with the scores and the labels"),
        ("metrics.mine", object, "object has to have __call__"),
        ("schedule", object, "object has to have __call__"),
    ],
)
def test_a_component_that_cannot_be_used_is_one_line(where, build, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        check_component(where, build())


def test_any_signature_that_takes_the_run_will_do():
    check_component("hooks.mine", Free())


@pytest.mark.parametrize(
    ("rate", "shown"),
    [(float("nan"), "nan"), (-0.1, "-0.1"), (float("inf"), "inf"), (None, "None"), ("1", "a str")],
)
def test_a_schedule_that_gives_no_rate_at_some_step_is_told_with_the_step(rate, shown):
    def schedule(step):
        return rate if step == 99 else 1.0

    with pytest.raises(ValueError, match=f"^function gives {shown} as the .* of step 99 of 100"):
        check_schedule(schedule, 100)
    check_schedule(lambda step: 0, 100)


class Some(Loss):
    def forward(self, model, outputs, batch):
        raise NotImplementedError


WANTED = 'forward() has to give {"loss": a tensor with one number and a gradient, ...}'
GRADIENT = torch.ones((), requires_grad=True)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (torch.ones(1), f"a Tensor, float32 (1,); {WANTED}"),
        (None, f"None; {WANTED}"),
        ({"total": 1}, f"['total']; {WANTED}"),
        ({"loss": 1.0}, f"a float as loss; {WANTED}"),
        ({"loss": torch.ones(3)}, f"a Tensor, float32 (3,) as loss; {WANTED}"),
        ({"loss": torch.tensor(1)}, f"a Tensor, int64 () as loss; {WANTED}"),
        ({"loss": torch.ones(())}, f"a loss without a gradient, of no trained weight; {WANTED}"),
        ({"loss": GRADIENT, "more": "x"}, "a str as more; one number each"),
        (
            {"loss": GRADIENT, "more": torch.ones(2)},
            "a Tensor, float32 (2,) as more; one number each",
        ),
    ],
)
def test_what_cannot_be_minimised_is_one_line(given, message):
    with pytest.raises(ConfigError) as caught:
        check_losses(Some(), given)
    assert caught.value.problems == [f"loss: Some gave {message}"]


def test_a_loss_with_a_gradient_will_do_and_more_numbers_of_any_kind():
    loss = torch.ones(1, requires_grad=True) * 2
    checked = check_losses(Some(), {"loss": loss, "more": 1, "of_numpy": np.float32(0.5)})
    numbers = {name: value.item() for name, value in checked.items()}
    assert numbers == {"loss": 2, "more": 1, "of_numpy": 0.5}
    assert all(value.shape == () for value in checked.values())
    assert checked["loss"].requires_grad


@pytest.mark.parametrize("given", [3, 3.0, np.float32(3), torch.tensor(3.0), torch.ones(1) * 3])
def test_a_metric_may_give_a_number_of_any_kind(given):
    one = torch.ones(2, dtype=torch.int64)
    figures, tables = measured({"mine": lambda scores, labels: given}, torch.ones(2, 2), one)
    assert figures == {"mine": 3} and not tables
    assert type(figures["mine"]) is float
    assert float(log._number("mine", given)) == 3
    assert json.loads(json.dumps(given, default=group._plain)) in (3, [3])


def fails(scores, labels):
    raise KeyError("class")


@pytest.mark.parametrize(
    ("metric", "start"),
    [
        (lambda scores, labels: "x", "metrics.mine: <lambda> gave a str, it has to give one "),
        (lambda scores, labels: scores, "metrics.mine: <lambda> gave a Tensor, float32 (3, 2), "),
        (lambda scores, labels: None, "metrics.mine: <lambda> gave None, it has to give one num"),
        (fails, "metrics.mine: fails raised KeyError: 'class' ("),
    ],
)
def test_a_metric_that_gives_no_number_is_one_line(metric, start):
    with pytest.raises(ConfigError) as caught:
        measured({"mine": metric}, torch.ones(3, 2), torch.ones(3, dtype=torch.int64))
    (line,) = caught.value.problems
    assert line.startswith(start)


@pytest.mark.parametrize("value", ["x", None, np.ones(3), object()])
def test_what_a_hook_reports_and_is_no_number_is_one_line(value):
    with pytest.raises(ConfigError, match=r"^hooks: run.report\['mine'\] is .*one number$"):
        log._number("mine", value)


def test_a_weight_without_a_gradient_is_named_where_several_processes_wait_for_it():
    model = nn.ModuleDict({"used": nn.Linear(1, 1, bias=False), "fc": nn.Linear(1, 1)})

    def replica(crops):
        raise RuntimeError(
            "Expected to have finished reduction in the prior iteration\n"
            "Parameter indices which did not receive grad for rank 1: 1 2\n In addition"
        )

    with pytest.raises(ConfigError) as caught:
        outputs_of(replica, [], model)
    (line,) = caught.value.problems
    assert line.startswith("launch.processes: the loss gave no gradient to fc.weight, fc.bias, and")
