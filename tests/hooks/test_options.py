"""Options of hooks that are out of range; the first word of each line is the option at fault."""

import pytest
from omegaconf import OmegaConf

from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.registry import HOOKS, load_components

SHIPPED = {
    name: node
    for file in ("default", "evaluation")
    for name, node in OmegaConf.to_container(
        OmegaConf.load(CONFIG_DIR / "hooks" / f"{file}.yaml")
    ).items()
}


@pytest.mark.parametrize(
    ("hook", "options", "lines"),
    [
        ("finite", {"every_steps": 0}, ["every_steps=0: at least 1"]),
        ("finite", {"max_skipped": -1}, ["max_skipped=-1: 0 or more"]),
        ("crops", {"num_images": 0}, ["num_images=0: at least 1"]),
        ("log", {"every_steps": 0}, ["every_steps=0: at least 1"]),
        ("evaluate", {"every_epochs": 0}, ["every_epochs=0: at least 1"]),
        (
            "knn",
            {"every_epochs": 0, "k": 0, "temperature": 0, "num_queries": 0, "seed": -1},
            [
                "every_epochs=0: at least 1",
                "num_queries=0: at least 1, or null for all",
                "k=0: at least 1",
                "temperature=0: above 0, e.g. 0.07",
                "seed=-1: 0 or more",
            ],
        ),
    ],
)
def test_options_out_of_range_are_all_named(hook, options, lines):
    load_components()
    node = {**SHIPPED[hook], **options}
    if hook == "evaluate":
        node["protocol"] = "linear"
    assert HOOKS.problems(node, where="hooks") == [f"hooks.{line}" for line in lines]
