"""What is frozen stays as it is: weights, momentum and the statistics of batch norms."""

import pytest
import torch

from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder
from ssl_platform.engine.loop import train_epoch
from ssl_platform.engine.saver import Saver
from ssl_platform.engine.stopping import StopSignals
from ssl_platform.errors import ConfigError

DECAY = [
    "optimizer.weight_decay=0.1",
    "optimizer.momentum=0.9",
    "num_epochs=1",
    "schedule.warmup_epochs=0",
]


def an_epoch(tiny, tmp_path, *overrides):
    """State of the model before and after an epoch, and the optimizer's."""
    cfg = compose([*tiny, *DECAY, "~hooks.knn", "~hooks.log", f"output_dir={tmp_path}", *overrides])
    options = options_of(cfg)
    run = Builder(options).run()
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    run.fire("on_train_start")
    with StopSignals() as stop:
        train_epoch(run, Saver(run.output_dir, options.save), stop)
    return before, run


def moved(before, run):
    after = run.model.state_dict()
    return {name for name, value in before.items() if not torch.equal(value, after[name])}


def group(match, scale):
    return f'{{match: "{match}", lr_scale: {scale}, weight_decay: null}}'


@pytest.mark.parametrize(
    "frozen",
    [
        ["param_groups=[" + group("trunk.*", 0) + "]"],
        ["freeze_trunk=true"],
    ],
)
def test_nothing_of_a_frozen_trunk_moves(frozen, tiny, tmp_path):
    before, run = an_epoch(tiny, tmp_path, *frozen)
    names = moved(before, run)
    assert names
    assert all(name.startswith("heads.") for name in names)
    assert not any(weight in run.optimizer.state for weight in run.model.trunk.parameters())


def test_a_block_alone_can_be_frozen_and_the_first_rule_counts(tiny, tmp_path):
    rules = [group("trunk.layer1.0.bn1.*", 1), group("trunk.layer1.*", 0)]
    before, run = an_epoch(tiny, tmp_path, f"param_groups=[{','.join(rules)}]")
    names = moved(before, run)
    in_block = {name for name in names if name.startswith("trunk.layer1.")}
    assert in_block == {
        f"trunk.layer1.0.bn1.{name}"
        for name in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    }
    assert {"trunk.layer2.0.bn1.running_mean", "trunk.bn1.running_mean"} <= names


def test_a_rate_of_its_own_freezes_nothing(tiny, tmp_path):
    before, run = an_epoch(tiny, tmp_path, "param_groups=[" + group("trunk.*", 0.5) + "]")
    assert moved(before, run) == before.keys()


def test_a_training_of_nothing_is_refused(tiny):
    told = "param_groups: lr_scale=0 of all that freeze_trunk leaves: nothing is left to train"
    for overrides in (
        ["param_groups=[" + group("*", 0) + "]"],
        ["freeze_trunk=true", "param_groups=[" + group("heads.*", 0) + "]"],
    ):
        with pytest.raises(ConfigError) as caught:
            compose([*tiny, *overrides])
        assert caught.value.problems == [told]


def test_what_hooks_report_is_gone_with_its_epoch_though_nobody_writes_it(tiny, tmp_path):
    _, run = an_epoch(tiny, tmp_path)
    assert "log" not in run.hooks
    assert run.losses  # it has trained
    assert run.report == {}
