"""An option out of its range is one line, which says what is right."""

import pytest
from omegaconf import OmegaConf

from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.registry import HEADS, LOSSES, TRUNKS, load_components

load_components()
REGISTRIES = {"loss": LOSSES, "heads": HEADS, "trunk": TRUNKS}
DECIDES = "at least 1e-06, e.g. 0.1; below, the rounding of scores would decide"
OUT_OF_RANGE = [
    ("loss/swav", "temperature", 0.0, DECIDES),
    ("loss/swav", "epsilon", 0.0, "above 0, e.g. 0.05"),
    ("loss/swav", "sinkhorn_iters", 0, "at least 1, e.g. 3"),
    ("loss/deepcluster_v2", "temperature", -0.1, DECIDES),
    ("loss/deepcluster_v2", "kmeans_iters", 0, "at least 1, e.g. 10"),
    ("loss/sela_v2", "temperature", 1e-40, DECIDES),
    ("loss/sela_v2", "epsilon", -1.0, "above 0, e.g. 0.05"),
    ("loss/sela_v2", "tolerance", -1.0, "0 or more, e.g. 0.1"),
    ("loss/sela_v2", "check_every", 0, "at least 1, e.g. 10"),
    ("loss/sela_v2", "max_iters", 0, "at least 1, e.g. 200"),
    ("heads/prototypes", "hidden_dim", -1, "0 or more, e.g. 2048"),
    ("heads/prototypes", "out_dim", 0, "at least 1, e.g. 128"),
    ("heads/linear", "num_classes", 1, "at least 2"),
    ("heads/linear", "init_std", 0.0, "above 0, e.g. 0.01; null for torch's own"),
    ("heads/linear", "pool.kernel", 0, "at least 1"),
    ("heads/linear", "pool.stride", 0, "at least 1"),
    ("heads/linear", "pool.padding", -1, "0 or more"),
    ("trunk/resnet50", "width", 7, "at least 8, e.g. 64"),
    ("trunk/resnet50", "stem_stride", 0, "at least 1, e.g. 2"),
]


@pytest.mark.parametrize(("part", "key", "value", "right"), OUT_OF_RANGE)
def test_an_option_out_of_range_is_named_with_what_is_right(part, key, value, right):
    group = part.partition("/")[0]
    node = OmegaConf.load(CONFIG_DIR / f"{part}.yaml")
    if group == "heads":
        (node,) = node.values()
        settled = {"num_classes": 10, "pool": {"kernel": 1, "stride": 1, "padding": 0}}
        node.update({name: settled[name] for name in settled if name in node})
    OmegaConf.update(node, key, value)
    problems = REGISTRIES[group].problems(OmegaConf.to_container(node), where=group)
    assert problems == [f"{group}.{key}={value}: {right}"]
