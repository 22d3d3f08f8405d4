"""The published recipes hold the published numbers."""

import math
from functools import cache
from typing import Any, NamedTuple

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_platform.config.source import Source
from ssl_platform.registry import SCHEDULES, load_components

load_components()

IMAGENET_SIZE = 1_281_167


@cache
def composed(name: str) -> DictConfig:
    cfg, problems = Source.of([f"config=pretrain/{name}"]).read()
    assert problems == []
    OmegaConf.set_readonly(cfg, True)  # several tests look at it
    return cfg


class Recipe(NamedTuple):
    """One row of the table of published models."""

    epochs: int
    batch: int
    steps_per_epoch: int
    crops: list[tuple[int, int, float, float]]  # count, size, least and largest scale
    base_lr: float
    final_lr: float
    warmup_epochs: int
    start_lr: float  # of the warm-up; without one, the base
    queue: tuple[int, int] | None  # length, first epoch
    frozen_steps: int | None  # None: the prototypes are never learned
    width: int
    hidden_dim: int
    head_batch_norm: bool
    batch_norm_group: int  # processes; 0 for all


LARGE, SMALL = (2, 224, 0.14, 1.0), (6, 96, 0.05, 0.14)
FOUR_SMALL = (4, 96, 0.05, 0.14)
BIG = Recipe(800, 4096, 312, [LARGE, SMALL], 4.8, 0.0048, 10, 0.3, (0, 0), 313, 64, 2048, True, 8)
BATCH_256 = Recipe(
    200, 256, 5004, [LARGE, SMALL], 0.6, 0.0006, 0, 0.6, (3840, 15), 5005, 64, 2048, True, 0
)
OFFLINE = BIG._replace(queue=None, frozen_steps=None)
MEDIUM = [(2, 160, 0.08, 1.0), (4, 96, 0.05, 0.14)]
RECIPES = {
    "swav/rn50_800ep": BIG,
    "swav/rn50_400ep": BIG._replace(epochs=400),
    "swav/rn50_200ep": BIG._replace(epochs=200),
    "swav/rn50_100ep": BIG._replace(epochs=100),
    "swav/rn50_200ep_bs256": BATCH_256,
    "swav/rn50_400ep_bs256": BATCH_256._replace(epochs=400),
    "swav/rn50_400ep_2x224": BIG._replace(epochs=400, crops=[(2, 224, 0.08, 1.0)]),
    "swav/rn50w2_400ep": Recipe(
        400, 4096, 312, [LARGE, FOUR_SMALL], 4.8, 0.0048, 10, 0.3, (0, 0), 313, 128, 8192, True, 8
    ),
    "swav/rn50w4_400ep": Recipe(
        400, 2560, 500, [(2, 224, 0.08, 1.0), (4, 96, 0.08, 0.14)],
        4.8, 0.0048, 10, 0.3, (2560, 0), 313, 256, 8192, True, 8,
    ),
    "swav/rn50w5_400ep": Recipe(
        400, 1536, 834, [LARGE, FOUR_SMALL],
        4.8, 0.0, 10, 0.1875, (1536, 0), 313, 320, 10240, False, 8,
    ),
    "deepcluster_v2/rn50_800ep": OFFLINE,
    "deepcluster_v2/rn50_400ep": OFFLINE._replace(epochs=400, crops=MEDIUM),
    "deepcluster_v2/rn50_400ep_2x224": OFFLINE._replace(epochs=400, crops=[(2, 224, 0.08, 1.0)]),
    "sela_v2/rn50_400ep": OFFLINE._replace(epochs=400, crops=MEDIUM, frozen_steps=313),
    "sela_v2/rn50_400ep_2x224": OFFLINE._replace(
        epochs=400, crops=[(2, 224, 0.08, 1.0)], frozen_steps=313
    ),
}  # fmt: skip
PRESETS = {  # keep a recipe's numbers on other machines: processes, recipe, its processes
    "swav/rn50_800ep_8gpu": (8, "swav/rn50_800ep", 64),
    "swav/rn50_400ep_bs256_8gpu": (8, "swav/rn50_400ep_bs256", 4),
    "swav/rn50_200ep_bs256_1gpu": (1, "swav/rn50_200ep_bs256", 4),
    "deepcluster_v2/rn50_400ep_8gpu": (8, "deepcluster_v2/rn50_400ep", 64),
    "sela_v2/rn50_400ep_8gpu": (8, "sela_v2/rn50_400ep", 64),
}


def recipe_of(cfg: DictConfig) -> Recipe:
    """The row of the table that a config amounts to."""
    steps_per_epoch = IMAGENET_SIZE // cfg.data.batch_size
    schedule = SCHEDULES.build(
        OmegaConf.to_container(cfg.schedule), cfg.optimizer.lr, cfg.num_epochs, steps_per_epoch
    )
    crops = [(c.count, c.size, *c.scale) for c in cfg.data.transform.crops.values() if c.count]
    head, is_online = cfg.heads.prototypes, "queue_length" in cfg.loss
    return Recipe(
        epochs=cfg.num_epochs,
        batch=cfg.data.batch_size,
        steps_per_epoch=steps_per_epoch,
        crops=crops,
        base_lr=cfg.optimizer.lr,
        final_lr=cfg.schedule.final_lr,
        warmup_epochs=cfg.schedule.warmup_epochs,
        start_lr=schedule(0),
        queue=(cfg.loss.queue_length, cfg.loss.queue_start_epoch) if is_online else None,
        frozen_steps=cfg.loss.get("freeze_prototypes_steps"),
        width=cfg.trunk.width,
        hidden_dim=head.hidden_dim,
        head_batch_norm=head.batch_norm,
        batch_norm_group=cfg.sync_batch_norm.group_size,
    )


class Method(NamedTuple):
    """What all published runs of a method share."""

    loss: dict[str, Any]
    num_prototypes: list[int]
    precision: str


METHODS = {
    "swav": Method(
        {
            "name": "SwAVLoss", "epsilon": 0.05, "sinkhorn_iters": 3,
            "freeze_prototypes_epochs": 0,
        },
        [3000], "auto",
    ),
    "deepcluster_v2": Method(
        {"name": "DeepClusterV2Loss", "kmeans_iters": 10}, [3000] * 3, "float32"
    ),
    "sela_v2": Method(
        {
            "name": "SeLaV2Loss", "epsilon": 0.05, "tolerance": 0.1, "check_every": 10,
            "max_iters": 200, "freeze_prototypes_epochs": 0,
        },
        [3000] * 3, "float32",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_has_the_numbers_of_the_published_run(name):
    assert recipe_of(composed(name)) == RECIPES[name]


@pytest.mark.parametrize("name", [*RECIPES, *PRESETS])
def test_a_recipe_has_what_all_published_runs_share(name):
    cfg = composed(name)
    loss, ops = cfg.loss, cfg.data.transform.ops
    method = METHODS[name.partition("/")[0]]
    assert {key: loss[key] for key in method.loss} == method.loss
    assert (loss.temperature, list(loss.assign_crops)) == (0.1, [0, 1])
    assert (cfg.trunk.block, list(cfg.trunk.layers)) == ("bottleneck", [3, 4, 6, 3])
    head = cfg.heads.prototypes
    assert (head.out_dim, list(head.num_prototypes)) == (128, method.num_prototypes)
    assert cfg.optimizer == {
        "name": "LARC", "lr": cfg.optimizer.lr, "momentum": 0.9, "weight_decay": 1e-6,
        "trust_coefficient": 0.001, "eps": 1e-8, "clip": False,
    }  # fmt: skip
    assert list(ops) == ["flip", "jitter", "grayscale", "blur"]  # in this order
    assert not any(
        "ops" in group or "ratio" in group for group in cfg.data.transform.crops.values()
    )
    assert ops.flip == {"name": "HorizontalFlip", "probability": 0.5}
    assert ops.jitter == {
        "name": "ColorJitter", "probability": 0.8,
        "brightness": 0.8, "contrast": 0.8, "saturation": 0.8, "hue": 0.2,
    }  # fmt: skip
    assert ops.grayscale == {"name": "Grayscale", "probability": 0.2}
    assert ops.blur == {
        "name": "GaussianBlur", "probability": 0.5, "sigma": [0.1, 2.0], "kind": "gaussian23",
    }  # fmt: skip
    assert list(cfg.data.normalize.mean) == [0.485, 0.456, 0.406]
    assert list(cfg.data.normalize.std) == [0.228, 0.224, 0.225]
    assert (cfg.seed, cfg.precision) == (31, method.precision)


@pytest.mark.parametrize("name", RECIPES)
def test_the_rate_runs_from_the_warm_up_to_just_above_the_final_one(name):
    cfg, row = composed(name), RECIPES[name]
    rate = SCHEDULES.build(
        OmegaConf.to_container(cfg.schedule), row.base_lr, row.epochs, row.steps_per_epoch
    )
    warmup = row.warmup_epochs * row.steps_per_epoch
    cosine = (row.epochs - row.warmup_epochs) * row.steps_per_epoch
    last = row.final_lr + (row.base_lr - row.final_lr) * (
        1 + math.cos(math.pi * (cosine - 1) / cosine)
    ) / 2  # fmt: skip
    assert rate(0) == row.start_lr
    assert rate(max(0, warmup - 1)) == pytest.approx(row.base_lr)
    assert rate(warmup) == row.base_lr
    assert rate(warmup + cosine - 1) == pytest.approx(last, rel=1e-12, abs=1e-15)


def test_the_whole_batch_on_one_gpu_changes_nothing_but_the_batch_norms():
    one, recipe = composed("swav/rn50_800ep_1gpu"), composed("swav/rn50_800ep")
    assert recipe_of(one) == BIG._replace(batch_norm_group=0)
    assert (one.launch.processes, one.data.micro_batch) == (1, 256)
    assert one.data.batch_size % one.data.micro_batch == 0
    configs = [OmegaConf.to_container(cfg) for cfg in (one, recipe)]
    for cfg in configs:
        for key in ("name", "recipe", "launch", "sync_batch_norm"):
            del cfg[key]
        for key in ("micro_batch", "num_workers"):
            del cfg["data"][key]
    assert configs[0] == configs[1]


def images_of_a_batch_norm(cfg: DictConfig, world_size: int) -> int:
    sync = cfg.sync_batch_norm
    group = (sync.group_size or world_size) if sync.enabled else 1
    return group * cfg.data.batch_size // world_size


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_changes_nothing_but_the_machine(name):
    world_size, original, its_world_size = PRESETS[name]
    preset, recipe = composed(name), composed(original)
    images = images_of_a_batch_norm(preset, world_size)
    assert images == images_of_a_batch_norm(recipe, its_world_size)
    assert images == (256 if "bs256" in name else 512)
    assert preset.launch.processes == world_size
    configs = [OmegaConf.to_container(cfg) for cfg in (preset, recipe)]
    for cfg in configs:
        for key in ("name", "recipe", "launch", "sync_batch_norm"):
            del cfg[key]
        del cfg["data"]["num_workers"]
    assert configs[0] == configs[1]


@pytest.mark.parametrize(
    ("name", "queue_length", "queue_start_epoch", "frozen_epochs"),
    [("lightly_rn18", 0, 0, 0), ("lightly_rn18_queue", 3840, 2, 1)],
)
def test_lightlys_settings(name, queue_length, queue_start_epoch, frozen_epochs):
    cfg = composed(f"swav/{name}")
    assert (cfg.num_epochs, cfg.data.batch_size, cfg.precision) == (10, 128, "float32")
    assert (cfg.trunk.block, list(cfg.trunk.layers)) == ("basic", [2, 2, 2, 2])
    head = cfg.heads.prototypes
    assert (head.hidden_dim, head.out_dim, list(head.num_prototypes)) == (512, 128, [512])
    assert (cfg.optimizer.name, cfg.optimizer.lr, cfg.optimizer.weight_decay) == ("Adam", 1e-3, 0)
    assert cfg.schedule.name == "Constant"
    crops = [(c.count, c.size, *c.scale) for c in cfg.data.transform.crops.values()]
    assert crops == [LARGE, SMALL]
    assert cfg.data.transform.ops.blur.kind == "pil"
    assert list(cfg.data.normalize.std) == [0.229, 0.224, 0.225]
    assert (cfg.loss.queue_length, cfg.loss.queue_start_epoch) == (queue_length, queue_start_epoch)
    assert (cfg.loss.freeze_prototypes_steps, cfg.loss.freeze_prototypes_epochs) == (
        0, frozen_epochs,
    )  # fmt: skip
