"""The model is wrapped for the ranks before anything takes its parameters."""

import pytest
from torch import nn

from ssl_platform import distributed
from ssl_platform.config import compose
from ssl_platform.config.options import options_of
from ssl_platform.engine.build import Builder


def options_for(tiny, tmp_path, *more):
    return options_of(compose([*tiny, "~hooks.knn", f"output_dir={tmp_path}", *more]))


def test_alone_the_model_is_trained_as_it_is(tiny, tmp_path):
    run = Builder(options_for(tiny, tmp_path)).run()
    assert run.replica is run.model


@pytest.mark.parametrize("more", [[], ["freeze_trunk=true"]])
def test_the_optimizer_gets_the_parameters_that_wrapping_leaves(more, tiny, tmp_path, monkeypatch):
    """FSDP2 puts parameters of another kind in place of the model's; what is frozen stays so."""

    def replicate(model, example):
        assert [crop.shape for crop in example] == [(1, 3, 24, 24)]
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                module.register_parameter(name, nn.Parameter(weight, weight.requires_grad))
        return model

    monkeypatch.setattr(distributed, "replicate", replicate)
    run = Builder(options_for(tiny, tmp_path, *more)).run()
    taken = {id(weight) for group in run.optimizer.param_groups for weight in group["params"]}
    assert taken == set(map(id, run.model.parameters()))


def test_weights_are_frozen_before_the_model_is_wrapped(tiny, tmp_path, monkeypatch):
    """DDP waits for the gradients of those that were trained when it was made."""
    trained = []

    def replicate(model, _):
        trained.extend(name for name, weight in model.named_parameters() if weight.requires_grad)
        return model

    monkeypatch.setattr(distributed, "replicate", replicate)
    frozen = 'param_groups=[{match: "trunk.*", lr_scale: 0, weight_decay: null}]'
    method = [*tiny, "config=pretrain/deepcluster_v2/quickstart"]
    method = [o for o in method if "swav" not in o and not o.startswith("loss.")]
    Builder(options_for(method, tmp_path, frozen)).run()
    assert trained
    assert not any(
        name.startswith("trunk.") or ".prototypes.prototypes." in name for name in trained
    )
