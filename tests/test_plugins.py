"""A method from outside: one Python file, one YAML file, nothing else."""

import json

from forked import tool

SIMCLR_PY = """
import torch
import torch.nn.functional as F
from torch import nn

from ssl_platform.losses.base import Loss
from ssl_platform.registry import HEADS, LOSSES


@HEADS.register()
class ProjectionHead(nn.Sequential):
    def __init__(self, in_dim: int, *, hidden_dim: int, out_dim: int):
        super().__init__(nn.Linear(in_dim, hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, out_dim))


@LOSSES.register()
class SimCLRLoss(Loss):
    def __init__(self, model, data, *, head: str, temperature: float):
        super().__init__()
        self.head, self.temperature = head, temperature

    def forward(self, model, outputs, batch):
        first, second = F.normalize(outputs[self.head], dim=1).chunk(2)
        logits = torch.cat([first, second]) @ torch.cat([first, second]).T / self.temperature
        logits.fill_diagonal_(float("-inf"))
        batch_size = len(first)
        partner = torch.arange(2 * batch_size).roll(batch_size)
        return {"loss": F.cross_entropy(logits, partner)}
"""
SIMCLR_YAML = """\
# @package _global_
defaults:
  - override /trunk: resnet10_tiny
  - override /data: shapes
  - _self_
plugins: [simclr]
num_epochs: 4
heads:
  projection: {name: ProjectionHead, hidden_dim: 32, out_dim: 16}
loss: {name: SimCLRLoss, head: projection, temperature: 0.5}
optimizer: {lr: 0.05}
schedule: {warmup_epochs: 0, start_lr: 0, final_lr: 0}
data:
  train: {num_samples: 256}
  val: {num_samples: 64}
  transform:
    crops: {small: {count: 0}}
  batch_size: 64
  num_workers: 0
hooks:
  log: {every_steps: 1, tensorboard: false}
  knn: {num_labels: 40}
launch: {threads: 1}
"""


def test_a_new_method_is_one_python_file_and_one_yaml_file(tmp_path):
    (tmp_path / "simclr.py").write_text(SIMCLR_PY)
    (tmp_path / "simclr_tiny.yaml").write_text(SIMCLR_YAML)
    done = tool("config=simclr_tiny.yaml", "name=simclr", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = (tmp_path / "runs" / "simclr" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
    assert len(losses) == 16
    assert sum(losses[-4:]) < sum(losses[:4])


TRUNK_PY = """
from torch import nn

from ssl_platform.registry import TRUNKS


@TRUNKS.register()
class Convs(nn.Sequential):
    def __init__(self, *, out_dim: int):
        pooled = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        super().__init__(nn.Conv2d(3, out_dim, 3, stride=2), nn.BatchNorm2d(out_dim), *pooled)
        self.out_dim = out_dim
"""


def test_a_trunk_from_outside_is_imported_where_the_command_says_so(tmp_path):
    (tmp_path / "my_trunk.py").write_text(TRUNK_PY)
    (tmp_path / "configs" / "trunk").mkdir(parents=True)
    (tmp_path / "configs" / "trunk" / "convs.yaml").write_text("name: Convs\nout_dim: 8\n")

    def run(*arguments: str, code: int = 0) -> str:
        small = ["data.num_workers=0", "launch.threads=1"]
        done = tool(*arguments, *small, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        return done.stderr

    run(
        "config=pretrain/swav/quickstart",
        "name=mine",
        "plugins=[my_trunk]",
        "--config-dir=configs",
        "trunk=convs",
        "data.train.num_samples=64",
        "data.val.num_samples=32",
        "num_epochs=1",
        "loss.queue_length=0",
        "~hooks.knn",
    )
    evaluation = ["config=benchmark/linear/folder", "checkpoint=runs/mine", "data=shapes"]
    images = ["data.train.num_samples=64", "data.val.num_samples=32", "data.batch_size=32"]
    once = ["num_epochs=1", "baselines=false", "launch.processes=2", "name=linear"]
    assert run(*evaluation, *images, *once, code=2) == (
        "error: checkpoint=runs/mine: there is no trunk Convs; the run was trained with "
        "plugins=[my_trunk], code that is imported only where your own command says so: where you "
        "trust it, add plugins=[my_trunk]\n"
    )
    run(*evaluation, *images, *once, "plugins=[my_trunk]")
    run("config=runs/linear/config.yaml", "name=again")
