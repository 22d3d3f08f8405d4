import json

import pytest
import torch
from zoo_files import VECTORS, row_of

from ssl_platform.config.shipped import runnable
from ssl_platform.config.source import Source
from ssl_platform.zoo.architecture import head_node, resnet_node, trunk_option
from ssl_platform.zoo.catalogue import model, models
from ssl_platform.zoo.layouts import sort_keys

NAMES = [
    "swav_800ep", "swav_400ep", "swav_200ep", "swav_100ep", "swav_200ep_bs256", "swav_400ep_bs256",
    "swav_400ep_2x224", "deepclusterv2_800ep", "deepclusterv2_400ep", "deepclusterv2_400ep_2x224",
    "selav2_400ep", "selav2_400ep_2x224", "swav_RN50w2_400ep", "swav_RN50w4_400ep",
    "swav_RN50w5_400ep",
]  # fmt: skip


def test_all_fifteen_are_there():
    assert list(models()) == NAMES
    assert len({entry.url for entry in models().values()}) == 15


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_tells_what_its_file_holds(name):
    keys = json.loads(VECTORS.read_text())["keys"][row_of(name)]
    entry = model(name)
    parts = sort_keys({key: torch.empty(shape, device="meta") for key, shape, _ in keys})
    assert parts.format == entry.format
    assert trunk_option(resnet_node(parts.trunk)) == f"trunk={entry.trunk}"
    assert head_node(parts.head) == {"name": "PrototypeHead", **entry.head}


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_agrees_with_its_recipe_and_its_evaluation(name):
    entry = model(name)
    assert {entry.recipe, entry.linear} <= set(runnable())
    cfg, problems = Source.of([f"config={entry.recipe}", f"trunk={entry.trunk}"]).read()
    recipe, _ = Source.of([f"config={entry.recipe}"]).read()
    evaluation, _ = Source.of([f"config={entry.linear}"]).read()
    assert not problems
    assert recipe.trunk == evaluation.trunk == cfg.trunk
    assert evaluation.checkpoint == f"zoo:{name}"
    assert recipe.heads.prototypes == {"name": "PrototypeHead", **entry.head}
