"""Components from outside, options that are gone, and the model, in the check of a config."""

import pytest
from omegaconf import OmegaConf
from torch.nn.modules.batchnorm import _BatchNorm

from ssl_platform.config import compose
from ssl_platform.errors import ConfigError
from ssl_platform.hooks.finite import StopWhenNotFinite
from ssl_platform.job.check import checked
from ssl_platform.models.sync_batch_norm import AllReduceBatchNorm

QUICKSTART = "config=pretrain/swav/quickstart"


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        compose([QUICKSTART, *overrides])
    return caught.value.problems


PARTS = """\
import numpy as np
from torch import nn
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.losses.base import Loss
from ssl_platform.registry import DATASETS, HEADS, LOSSES, TRUNKS

@DATASETS.register()
class GreyImages(ImageDataset):
    labels = None
    def __len__(self): return 40
    def read(self, index): return np.zeros((32, 32), np.uint8)
    def describe(self, index): return f"{index}.png"

@TRUNKS.register()
class Flat(nn.Module):
    out_dim = 4
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3 * 24 * 24, 4)
    def forward(self, images): return self.linear(images.flatten(1))

@TRUNKS.register()
class Broken(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = {}["no such key"]

@HEADS.register()
class Plain(nn.Linear):
    def __init__(self, in_dim: int):
        super().__init__(in_dim, 4)

@HEADS.register()
class Silent(Plain):
    def forward(self, features): pass

@LOSSES.register()
class Mean(Loss):
    def __init__(self, model, data, *, head: str, temperature: float):
        super().__init__()
        self.head = head
    def forward(self, model, outputs, batch): return {"loss": outputs[self.head].mean()}
"""
MY_CONFIG = """\
# @package _global_
defaults: [override /trunk: resnet10_tiny, override /data: shapes, _self_]
plugins: [my_odd_parts]
num_epochs: 2
heads: {plain: {name: Plain}}
loss: {name: Mean, head: plain, temperature: 0.1}
schedule: {warmup_epochs: 0}
"""
HEALTH = {
    "name": "ClusteringHealth",
    "head": "plain",
    "temperature": 0.1,
    "uniform_margin": 0.01,
    "min_used": 0.1,
    "from_epoch": 2,
}
NO_PROTOTYPES = (
    "head=plain: has to be a PrototypeHead; the model's heads are ['plain']; a method without "
    "prototypes is watched by hooks=default"
)
MY_MISTAKES = {
    "data.train": (
        {"name": "GreyImages"},
        "data.train: GreyImages[0] ('0.png') gave uint8 (32, 32), read() has to give a numpy array "
        "(H, W, 3) uint8, RGB: np.stack([image] * 3, axis=-1)",
    ),
    "trunk": (
        {"name": "Flat"},
        "trunk: Flat cannot take images of 16 x 16 pixels (nor of 32): RuntimeError: mat1 and mat2",
    ),
    "trunk.name": ("Broken", "trunk: KeyError: 'no such key' ("),
    "heads.plain.name": ("Silent", "heads.plain: Silent gave None for a batch (2, "),
    "hooks.health": (HEALTH, f"hooks.health.{NO_PROTOTYPES}"),
    "hooks.assignments": (
        {"name": "AssignmentHealth", "head": "plain", "max_empty": 0.5, "max_share": 0.5},
        f"hooks.assignments.{NO_PROTOTYPES}",
    ),
}


@pytest.fixture(scope="module")
def my_config(tmp_path_factory):
    """The plain values of a config of parts from outside, which passes the check."""
    folder = tmp_path_factory.mktemp("outside")
    (folder / "my_odd_parts.py").write_text(PARTS)
    (folder / "mine.yaml").write_text(MY_CONFIG)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield OmegaConf.to_container(compose([f"config={folder / 'mine.yaml'}"]))


@pytest.mark.parametrize("mistake", MY_MISTAKES)
def test_a_part_from_outside_that_cannot_work_is_one_line_before_the_run(mistake, my_config):
    value, told = MY_MISTAKES[mistake]
    cfg = OmegaConf.create(my_config)
    if mistake == "trunk.name":
        cfg.trunk = {}
    OmegaConf.update(cfg, mistake, value, merge=False, force_add=True)
    with pytest.raises(ConfigError) as caught:
        checked(cfg)
    (line,) = caught.value.problems
    assert line.startswith(told)


def test_the_hooks_of_clustering_on_a_loss_without_a_head_say_so():
    with pytest.raises(ConfigError) as caught:
        compose(["config=benchmark/linear/folder", "data=shapes", "hooks=clustering"])
    assert caught.value.problems == [
        "hooks.health.head=${loss.head}: there is no such key in this config; set "
        "hooks.health.head=..., leave the hook out (~hooks.health), or choose others "
        "(hooks=default)"
    ]


TOP1 = "add '+metrics.top1={name: TopKAccuracy, k: 1}'"


@pytest.mark.parametrize("job", ["pretrain/swav/quickstart", "benchmark/knn/folder"])
@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            "metrics.top1.k=0 ~metrics.top5",
            "metrics.top1.k=0: at least 1",
        ),
        (
            "+metrics.more={name:TopAccuracy} metrics=top1",
            "metrics.more.name=TopAccuracy: no such metric; did you mean 'TopKAccuracy'?",
        ),
        (
            "+metrics.ap={name:PerClassAveragePrecision}",
            "metrics.ap: PerClassAveragePrecision is of images that may have several classes, and "
            "these have one each; leave it out with ~metrics.ap",
        ),
        ("metrics=top1 ~metrics.top1", f"metrics: there is none; {TOP1}"),
        (
            "metrics=full ~metrics.top1 ~metrics.top5 ~metrics.mean_class ~metrics.macro_f1",
            "metrics: per_class, confusion: of each class, and a figure of all is needed too; "
            + TOP1,
        ),
        (
            "metrics=top1_top5 ~metrics.top1 metrics.top5.k=10",
            f"metrics: top5: nothing to say of 10 classes; {TOP1}",
        ),
    ],
)
def test_metrics_that_do_not_fit_the_images_are_one_line(job, overrides, line, pretrained):
    has_top5 = job.startswith("benchmark") or "metrics=" in overrides
    given = [o for o in overrides.split() if has_top5 or o != "~metrics.top5"]
    weights = [f"checkpoint={pretrained}"] if job.startswith("benchmark") else []
    with pytest.raises(ConfigError) as caught:
        compose([f"config={job}", "data=shapes", *weights, *given])
    assert caught.value.problems == [line]


def test_a_job_without_figures_refuses_metrics_in_words(pretrained):
    with pytest.raises(ConfigError) as caught:
        compose(["config=analysis/clusters", f"checkpoint={pretrained}", "+metrics={a: {k: 5}}"])
    assert "metrics: a training has this key, this job has not; leave it out with ~metrics" in (
        caught.value.problems
    )


def test_options_that_are_gone_may_ask_for_what_is_always_done():
    gone = {"data.normalize_on": "device", "data.transform.augment_on": "workers"}
    cfg = compose([QUICKSTART, *(f"+{key}={value}" for key, value in gone.items())])
    assert cfg == compose([QUICKSTART])
    assert problems("+data.normalize_on=workers") == [
        "data.normalize_on=workers: this option is gone, leave it out; it is always device"
    ]


def test_the_check_builds_the_model_of_the_run_with_its_processes(monkeypatch):
    models = []
    monkeypatch.setattr(
        StopWhenNotFinite,
        "probe_model",
        lambda self, model, loss: models.append(model),
        raising=False,
    )
    compose([QUICKSTART, "launch.processes=2", "sync_batch_norm.enabled=true", "device=cpu"])
    (model,) = models
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm)]
    assert norms and all(isinstance(norm, AllReduceBatchNorm) for norm in norms)
    assert all(weights.is_meta for weights in model.parameters())
