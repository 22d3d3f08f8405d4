"""The blocks of docs/python.md, run one after another on small settings."""

import re
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import ssl_platform
from ssl_platform import api

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
SMALL = {
    "data.train.num_samples": 256,
    "data.val.num_samples": 64,
    "trunk.width": 8,
    "schedule.warmup_epochs": 0,
    "loss": {"queue_length": 0},
    "heads.prototypes.num_prototypes": [12],
    "hooks.knn": {"num_labels": 100},
    "launch.threads": 1,
}


def small_network() -> nn.Module:
    layers = [nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 512)]
    return nn.Sequential(*layers, nn.Identity())


def test_every_block_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("one.png", "two.png"):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(name)
    monkeypatch.setattr(ssl_platform, "pretrain", partial(ssl_platform.pretrain, **SMALL))
    monkeypatch.setattr(api, "images", partial(api.images, num_samples=256))
    monkeypatch.setattr("torchvision.models.resnet18", small_network)
    torch.manual_seed(0)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(blocks) > 4
    names = {"__name__": "__main__"}
    for block in blocks:
        small = block.replace("epochs=6", "epochs=1").replace(
            '"data=shapes"',
            '"data=shapes", "data.train.num_samples=128", "data.val=null", "launch.threads=1"',
        )
        exec(small, names)
    assert names["features"].shape[0] == len(names["clusters"]) == 2
    assert names["loss"].isfinite() and names["results"].figures
