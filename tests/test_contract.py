"""Components from outside: one line when they are not what the platform takes them for."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from ssl_platform.distributed import outputs_of
from ssl_platform.engine.contract import check_component, check_schedule
from ssl_platform.engine.loop import check_losses
from ssl_platform.engine.run import Events
from ssl_platform.errors import ConfigError
from ssl_platform.hooks import log, summary
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


WRONG = {
    "a moment without the run": (
        "hooks.mine",
        MyHook,
        "MyHook.on_epoch_end() is called with the run: def on_epoch_end(self, run)",
    ),
    "no such moment": (
        "hooks.mine",
        Misspelt,
        "Misspelt.on_epoch_ends is called at no moment; did you mean 'on_epoch_end'? (a helper "
        "needs a name that does not begin with on_)",
    ),
    "no hook": (
        "hooks.mine",
        object,
        "object has to be a subclass of ssl_platform.events.Events",
    ),
    "no loss": (
        "loss",
        lambda: nn.Linear(1, 1),
        "Linear has to be a subclass of ssl_platform.losses.base.Loss",
    ),
    "a loss that takes no batch": (
        "loss",
        MyLoss,
        "MyLoss.forward(model, outputs) is called with the model, its outputs and the batch",
    ),
    "a closure": (
        "optimizer",
        lambda: Lbfgs(weights()),
        "Lbfgs.step(closure) is called without a closure: an optimizer that needs one computes the "
        "loss several times a step, which a training does not",
    ),
    "no rate": (
        "optimizer",
        lambda: NoRate(weights()),
        "NoRate has no learning rate lr among its defaults, for a schedule to set",
    ),
    "a loss without its base": (
        "loss",
        HalfLoss,
        "the constructor of HalfLoss has to call super().__init__() first",
    ),
    "an optimizer without its base": (
        "optimizer",
        HalfOptimizer,
        "the constructor of HalfOptimizer has to call super().__init__(params, defaults) first",
    ),
    "a metric without labels": (
        "metrics.mine",
        NoLabels,
        "NoLabels(scores) is called with the scores and the labels",
    ),
    "no metric": ("metrics.mine", object, "object has to have __call__"),
    "no schedule": ("schedule", object, "object has to have __call__"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_component_that_cannot_be_used_is_one_line(kind):
    where, build, told = WRONG[kind]
    with pytest.raises(ValueError, match=r".") as caught:
        check_component(where, build())
    assert str(caught.value) == told


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
LOSSES = {
    "tensor": (torch.ones(1), f"loss: Some gave a Tensor, float32 (1,); {WANTED}"),
    "other": ({"total": 1}, f"loss: Some gave ['total']; {WANTED}"),
    "float": ({"loss": 1.0}, f"loss: Some gave a float as loss; {WANTED}"),
    "rows": ({"loss": torch.ones(3)}, f"loss: Some gave a Tensor, float32 (3,) as loss; {WANTED}"),
    "int": ({"loss": torch.tensor(1)}, f"loss: Some gave a Tensor, int64 () as loss; {WANTED}"),
    "constant": (
        {"loss": torch.ones(())},
        f"loss: Some gave a loss without a gradient, of no trained weight; {WANTED}",
    ),
    "none": (None, f"loss: Some gave None; {WANTED}"),
    "text": (
        {"loss": torch.ones((), requires_grad=True), "more": "x"},
        "loss: Some gave a str as more; one number each",
    ),
    "more rows": (
        {"loss": torch.ones((), requires_grad=True), "more": torch.ones(2)},
        "loss: Some gave a Tensor, float32 (2,) as more; one number each",
    ),
}


@pytest.mark.parametrize("kind", LOSSES)
def test_what_cannot_be_minimised_is_one_line(kind):
    given, told = LOSSES[kind]
    with pytest.raises(ConfigError) as caught:
        check_losses(Some(), given)
    assert caught.value.problems == [told]


def test_a_loss_with_a_gradient_will_do_and_more_numbers_of_any_kind():
    loss = torch.ones(1, requires_grad=True) * 2
    checked = check_losses(Some(), {"loss": loss, "more": 1, "of_numpy": np.float32(0.5)})
    assert {name: value.item() for name, value in checked.items()} == {
        "loss": 2,
        "more": 1,
        "of_numpy": 0.5,
    }
    assert all(value.shape == () for value in checked.values())
    assert checked["loss"].requires_grad


@pytest.mark.parametrize("given", [3, 3.0, np.float32(3), torch.tensor(3.0), torch.ones(1) * 3])
def test_a_metric_may_give_a_number_of_any_kind(given):
    found = measured({"mine": lambda scores, labels: given}, torch.ones(2, 2), torch.ones(2))
    assert found == {"mine": 3}
    assert type(found["mine"]) is float
    assert float(log._number("mine", given)) == 3
    assert json.loads(json.dumps({"mine": given}, default=summary._plain)) in (
        {"mine": 3},
        {"mine": [3]},
    )


def fails(scores, labels):
    raise KeyError("class")


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        (lambda scores, labels: "x", "metrics.mine: <lambda> gave a str, it has to give one "),
        (lambda scores, labels: scores, "metrics.mine: <lambda> gave a Tensor, float32 (2, 2), "),
        (lambda scores, labels: None, "metrics.mine: <lambda> gave None, it has to give one num"),
        (fails, "metrics.mine: fails raised KeyError: 'class' ("),
    ],
)
def test_a_metric_that_gives_no_number_is_one_line(metric, told):
    with pytest.raises(ConfigError) as caught:
        measured({"mine": metric}, torch.ones(2, 2), torch.ones(2))
    (line,) = caught.value.problems
    assert line.startswith(told)


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
