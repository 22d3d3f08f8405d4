"""Options that follow a schedule: their values, what they do, and what is refused."""

import math

import pytest
import torch
from conftest import TINY
from tiny_runs import (
    assert_equal,
    lines,
    losses,
    refused,
    run_tool,
    saved,
    stopped_at,
    train,
    without,
)

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.scheduled import numbers_of, slot_of, slot_of_part
from ssl_platform.errors import ConfigError
from ssl_platform.losses.base import Loss
from ssl_platform.registry import HOOKS, LOSSES

STEPS, EPOCHS = 4, 3
DECAY = "+schedules.optimizer.weight_decay={name: Cosine, end: 0.4}"
WARM = "+schedules.loss.temperature={name: Warmup, start: 0.04, epochs: 1.5}"
HEAD = '{name: head, match: "heads.*", lr_scale: 2, weight_decay: null}'
PLAIN = '{match: "*bn*", lr_scale: 1, weight_decay: 0}'
SGD = ["optimizer.name=SGD", "optimizer.lr=0.1", "optimizer.weight_decay=0.04"]
SGD += [
    "~optimizer.trust_coefficient",
    "~optimizer.eps",
    "~optimizer.clip",
    "+optimizer.nesterov=false",
]


@pytest.fixture
def small(stoppable) -> list[str]:
    return [*stoppable, "~hooks.crops"]


def cosine(base: float, end: float, step: int) -> float:
    return end + (base - end) * (1 + math.cos(math.pi * step / (STEPS * EPOCHS))) / 2


def test_a_training_equals_a_loop_by_hand(small, tmp_path):
    """Weight decay of all but the batch norms, temperature, and a head whose rate is constant."""
    groups = f"param_groups=[{PLAIN},{HEAD}]"
    constant = "+schedules.param_groups.head.lr={name: Constant}"
    options = [*small, *SGD, groups, DECAY, WARM, constant, f"output_dir={tmp_path}"]
    run = Builder(options_of(compose(options))).run()
    rest, plain, head = run.optimizer.param_groups
    run.model.train()
    for epoch in range(EPOCHS):
        run.train_sampler.set_epoch(epoch, 0)
        for number, batch in enumerate(run.train_loader):
            step = epoch * STEPS + number
            rest["lr"] = plain["lr"] = run.schedule(step)
            head["lr"] = 0.2
            rest["weight_decay"] = head["weight_decay"] = cosine(0.04, 0.4, step)
            run.loss.temperature = 0.04 + (0.1 - 0.04) * min(1, step / 5)
            run.optimizer.zero_grad()
            run.loss(run.model, run.model(batch.crops), batch)["loss"].backward()
            run.optimizer.step()
    train(options, tmp_path)
    assert_equal(saved(tmp_path, EPOCHS)["model"], run.model.state_dict())
    logged = [line for line in lines(tmp_path) if "loss" in line]
    decays = [line["optimizer.weight_decay"] for line in logged]
    assert decays == pytest.approx([cosine(0.04, 0.4, step) for step in range(STEPS * EPOCHS)])
    assert [line["loss.temperature"] for line in logged][-1] == 0.1
    assert {line["param_groups.head.lr"] for line in logged} == {0.2}


SELA = [
    *without(TINY, "config", "loss.", "heads.", "hooks.knn"),
    "config=pretrain/sela_v2/quickstart",
    "~hooks.knn",
    "plugins=[kill_hook]",
    "+schedules.loss.epsilon={name: Linear, end: 0.2, epochs: 2}",
    "+schedules.loss.temperature={name: Cosine, end: 0.2}",
]


@pytest.mark.parametrize(("method", "stop"), [("swav", 6), ("sela", 4)])
def test_a_resumed_run_equals_an_unbroken_one(method, stop, small, tmp_path):
    """Also where labels are assigned at the start of an epoch, with an epsilon that moves."""
    options = [*small, DECAY, WARM] if method == "swav" else SELA
    train(options, tmp_path / "whole")
    stopped_at(stop, options, tmp_path / "run")
    train(options, tmp_path / "run")
    assert lines(tmp_path / "run") == lines(tmp_path / "whole")
    for part in ("model", "loss", "optimizer"):
        ours, whole = (saved(tmp_path / name, EPOCHS)[part] for name in ("run", "whole"))
        assert_equal(ours, whole)


def test_one_process_and_two_train_alike(small, tmp_path):
    double = ["plugins=[double_trunks]", "trunk.name=DoubleResNet", "loss.epsilon=0.05"]
    alike = [*without(small, "plugins"), *double, DECAY, WARM, "num_epochs=2"]
    for processes in (1, 2):
        run_tool([*alike, f"launch.processes={processes}", f"output_dir={tmp_path}/{processes}"])
    assert losses(tmp_path / "2") == pytest.approx(losses(tmp_path / "1"), rel=1e-9)


def test_another_batch_goes_on_by_epochs_and_another_schedule_is_named(small, tmp_path, caplog):
    stopped_at(6, [*small, DECAY], tmp_path)
    assert refused([*small, DECAY.replace("0.4", "0.3")], tmp_path)[1:] == [
        "schedules.optimizer.weight_decay.end: 0.4 there, 0.3 here"
    ]
    caplog.set_level("INFO")
    more = ["data.batch_size=64", "resume.allow_changes=[output_dir,data.batch_size]"]
    train([*small, DECAY], tmp_path, *more)
    decays = [line["optimizer.weight_decay"] for line in lines(tmp_path) if "loss" in line]
    of_two = [cosine(1e-6, 0.4, 2 * position) for position in range(2 * EPOCHS)]
    assert decays[6:] == pytest.approx(of_two[3:])
    (message,) = [m for m in caplog.messages if m.startswith("schedules.")]
    assert message == (
        f"schedules.optimizer.weight_decay is another: {decays[5]:.3g} at the step before, "
        f"{decays[6]:.3g} at the next"
    )


LOSS = "schedules.loss.temperature"
REFUSED = [
    (f"{LOSS}={{name: Cosine, end: 0.2}}", f"{LOSS}={{name: Cosine, end: 0.2}}: there is no such "
     f"entry yet; write '+{LOSS}={{name: Cosine, end: 0.2}}'"),
    ("schedules={loss: {temperature: {name: Constant}}}", "schedules={loss: {temperature: {name: "
     "Constant}}}: add an entry by its path, '+schedules.PART.OPTION={name: ..., ...}'"),
    ("+schedules.loss.temprature={name: Cosine, end: 0.2}", "schedules.loss.temprature: "
     "loss.temprature is no number of SwAVLoss that a schedule can set; did you mean "
     "'temperature'?"),
    ("+schedules.loss.queue_length={name: Cosine, end: 0.2}", "schedules.loss.queue_length: "
     "loss.queue_length is no number of SwAVLoss that a schedule can set; choose from epsilon, "
     "temperature"),
    ("+schedules.los.temperature={name: Cosine, end: 0.2}", "schedules.los.temperature: "
     "no part los has schedules; did you mean 'loss'?"),
    (f"+{LOSS}=0.2", f"{LOSS}=0.2: PART.OPTION: {{name: ...}}, as in optimizer.weight_decay: "
     "{name: Cosine, end: 0.4}"),
    (f"+{LOSS}={{name: Cosin, end: 0.2}}", f"{LOSS}.name=Cosin: no such schedule; did you mean "
     "'Cosine'?"),
    (f"+{LOSS}={{name: Piecewise, milestones: [2], values: [-0.1]}}", f"{LOSS}: at epoch 2 it sets "
     "temperature=-0.1: at least 1e-06, e.g. 0.1; below, the rounding of scores would decide"),
    (f"+{LOSS}={{name: Warmup, start: 0.2, epochs: 7}}", f"{LOSS}.epochs=7.0: the training has "
     "num_epochs=6; the warm-up must not be longer"),
    ("+schedules.teacher.momentum={name: Cosine, end: 1.0}", "schedules.teacher.momentum: this "
     "config has no teacher"),
    ("+schedules.optimizer.lr={name: Constant}", "schedules.optimizer.lr: the schedule of the "
     "learning rate is the key schedule"),
    ("+schedules.optimizer.betas={name: Constant}", "schedules.optimizer.betas: optimizer.betas is "
     "no number of LARC that a schedule can set; did you mean 'eps'?"),
    ("+schedules.param_groups.head.lr={name: Constant}", "schedules.param_groups.head.lr: no entry "
     "of param_groups has the name head; param_groups=[{name: head, match: ...}]"),
]  # fmt: skip


@pytest.mark.parametrize(("override", "line"), REFUSED)
def test_what_cannot_be_scheduled_is_one_line(override, line):
    with pytest.raises(ConfigError) as caught:
        compose(["config=pretrain/swav/quickstart", override])
    assert caught.value.problems == [line]


@pytest.mark.parametrize(
    ("group", "key", "line"),
    [
        (HEAD, "param_groups.heads.lr", "no entry of param_groups has the name heads; did you mean "
         "'head'?"),
        (HEAD, "param_groups.head.lr_scale", "the learning rate of a group is its lr: "
         "schedules.param_groups.head.lr"),
        (HEAD.replace("2", "0"), "param_groups.head.lr", "lr_scale=0 freezes this group, so it "
         "would change nothing"),
        (f"{HEAD},{HEAD}", "param_groups.head.lr", None),
        ('{match: "*", lr_scale: 1, weight_decay: 0}', "optimizer.weight_decay", "every entry of "
         "param_groups sets its own, so it would change nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_scheduled_in_a_group_is_one_line(group, key, line):
    schedule = f"+schedules.{key}={{name: Constant}}"
    with pytest.raises(ConfigError) as caught:
        compose(["config=pretrain/swav/quickstart", f"param_groups=[{group}]", schedule])
    twice = ["param_groups: name=head: two groups have it; each needs its own"]
    assert caught.value.problems == ([f"schedules.{key}: {line}"] if line else twice)


def test_a_value_that_only_the_constructor_refuses_is_found_by_the_check():
    nesterov = [option.replace("=false", "=true") for option in SGD]
    stop = "+schedules.optimizer.momentum={name: Piecewise, milestones: [3], values: [0.0]}"
    with pytest.raises(ConfigError) as caught:
        compose(["config=pretrain/swav/quickstart", *nesterov, stop])
    assert caught.value.problems == [
        "schedules.optimizer.momentum: at epoch 3 it sets nesterov=true: needs momentum above 0, "
        "e.g. 0.9"
    ]


class Deaf(Loss):
    def __init__(self, model, data, *, scale: float, sharpness: float, margin: float):
        super().__init__()
        self.inverse, self.sharpness = 1 / scale, 2 * sharpness
        self._margin = margin

    @property
    def margin(self) -> float:
        return self._margin


def test_a_part_that_would_not_notice_is_refused():
    numbers = {"scale": 0.5, "sharpness": 0.5, "margin": 0.5}
    for option in numbers:
        with pytest.raises(ValueError, match=f"^Deaf does not keep {option} as it is in an "):
            slot_of_part("loss", option, Deaf(None, None, **numbers), numbers)


def test_a_teacher_is_whatever_has_the_name_and_keeps_its_option(tiny):
    class Teacher(torch.nn.Module):
        def __init__(self, *, momentum: float):
            super().__init__()
            self.momentum = momentum

    registry = type(HOOKS)("teacher")
    registry.register(Teacher)
    teacher, nodes = Teacher(momentum=0.996), {"name": "Teacher", "momentum": 0.996}
    options = options_of(compose([*tiny, "~hooks.knn"]))
    slot = slot_of("teacher.momentum", teacher, {"teacher": (registry, nodes)}, options)
    slot.put(1.0)
    assert (slot.value, teacher.momentum) == (0.996, 1.0)


def test_whole_numbers_are_no_numbers_that_move(tiny):
    node = options_of(compose([*tiny, "~hooks.knn"])).loss
    assert numbers_of(LOSSES, node) == {"temperature": 0.1, "epsilon": 0.03}
