"""Every file under configs/ is whole: runnable files pass the check, parts list all options."""

import re
import warnings

import pytest
from omegaconf import DictConfig, OmegaConf

from ssl_platform.config import compose
from ssl_platform.config.options import components
from ssl_platform.config.shipped import CONFIG_DIR, groups, runnable
from ssl_platform.config.source import Source
from ssl_platform.job.check import check
from ssl_platform.registry import load_components

load_components()

# more prototypes than samples, as lightly has it and as Fashion-MNIST is better with
WITH_A_WARNING = {
    "pretrain/swav/lightly_rn18",
    "pretrain/swav/fashion_mnist",
    "pretrain/swav/fashion_mnist_plain",
}

NEEDED = {  # what a user has to give, since there is no default
    name: ["checkpoint: the config needs a value (str); set checkpoint=..."]
    for name in ("analysis/clusters", "analysis/report")
} | {
    name: ["checkpoint: whose weights? checkpoint=<a run, a file, a URL or zoo:NAME>"]
    for name in (
        "analysis/clusters_of_file",
        "analysis/features",
        "analysis/neighbours",
        "benchmark/knn/folder",
        "benchmark/knn/imagenet1k",
        "benchmark/linear/cached/folder",
        "benchmark/linear/cached/imagenet1k",
        "benchmark/svm/voc07",
    )
}


def on_images_that_are_here(cfg: DictConfig) -> DictConfig:
    """The config on generated images where its own would have to be on this disk; changes it."""
    if cfg.task.name == "Train":
        cfg.checkpoint = None  # that of a benchmark is the user's, or has to be fetched
        cfg.baselines = False  # they are compared with its weights
        if "trunk" not in cfg:
            trunk = OmegaConf.load(CONFIG_DIR / "trunk" / "resnet50.yaml")
            OmegaConf.update(cfg, "trunk", trunk, force_add=True)
    if "train" in cfg.data and cfg.data.train.name != "Shapes":
        cfg.data.train = {"name": "Shapes", "num_samples": 1_281_167, "size": 32, "seed": 0}
        if cfg.data.val is not None:
            cfg.data.val = {"name": "Shapes", "num_samples": 50, "size": 32, "seed": 1}
    return cfg


@pytest.mark.parametrize("name", runnable())
def test_a_runnable_file_passes_the_check(name):
    cfg, problems = Source.of([f"config={name}"]).read()
    assert problems == []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert check(on_images_that_are_here(cfg)) == NEEDED.get(name, [])
    assert bool(warned) == (name in WITH_A_WARNING), [str(w.message) for w in warned]


@pytest.mark.parametrize("name", runnable())
def test_a_runnable_file_begins_with_its_own_command(name):
    lines = (CONFIG_DIR / "config" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    card = "\n".join(lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])
    assert re.search(rf"python tools/run_distributed\.py\b.*\bconfig={name}(?=\s|$)", card, re.S)


@pytest.mark.parametrize("name", ["folder", "lightly_rn18", "lightly_rn18_queue"])
def test_the_recipes_for_any_folder_take_a_folder_of_photographs(name, photographs):
    compose(
        [
            f"config=pretrain/swav/{name}",
            f"data.train.path={photographs}",
            "data.batch_size=6",
            "heads.prototypes.num_prototypes=[6]",
            "loss.queue_length=0",
        ]
    )


PARTS = [
    (group, part)
    for group, parts in groups().items()
    if group not in ("launch", "resume")
    for part in parts
    if (group, part) != ("task", "evaluation")  # which others begin with
]


def with_parents(group: str, name: str) -> DictConfig:
    """A part merged into those of its group that it begins with."""
    part = OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml")
    defaults = [entry for entry in part.pop("defaults", []) if isinstance(entry, str)]
    parents = [parent for parent in defaults if parent != "_self_"]
    return OmegaConf.merge(*(with_parents(group, parent) for parent in parents), part)


@pytest.mark.parametrize(("group", "name"), PARTS)
def test_a_part_names_its_component_and_lists_exactly_its_options(group, name):
    part = OmegaConf.to_container(with_parents(group, name))
    # the file of a task has the keys of a whole job beside the component
    nodes = list(components({group: part["task"] if group == "task" else part}))
    assert nodes
    for where, registry, node in nodes:
        options = set(registry.schema(node["name"]).annotations)
        assert set(node) - {"name"} == options, where
