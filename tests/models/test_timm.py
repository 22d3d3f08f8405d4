import importlib.util

import pytest
import torch

from ssl_platform.config import compose
from ssl_platform.models.timm import TimmTrunk


def test_any_model_of_timm_is_a_trunk():
    trunk = TimmTrunk(model="test_vit", options={"dynamic_img_size": True})
    for side in (160, 96):
        assert trunk(torch.zeros(2, 3, side, side)).shape == (2, trunk.out_dim)


def test_a_misspelt_model_is_named():
    with pytest.raises(ValueError, match=r"^model=resnet18x: timm has no such model"):
        TimmTrunk(model="resnet18x", options={})


def test_options_that_the_model_does_not_take_are_named():
    with pytest.raises(ValueError, match=r"^options=.*resnet18 does not take them"):
        TimmTrunk(model="resnet18", options={"no_such_option": 1})


def test_a_config_with_a_timm_trunk_passes_the_check():
    cfg = compose(["config=pretrain/swav/quickstart", "trunk=timm", "trunk.model=resnet18"])
    assert cfg.trunk.model == "resnet18"


def test_without_timm_the_command_to_install_it_is_told(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "timm" else find_spec(name)
    )
    with pytest.raises(ValueError, match="timm is not installed; pip install timm"):
        TimmTrunk(model="resnet18", options={})
