import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf

from ssl_platform.config.shipped import CONFIG_DIR
from ssl_platform.engine.build import head_layers
from ssl_platform.models.layers import layer_shapes
from ssl_platform.models.linear_head import LinearHead, Pool
from ssl_platform.registry import HEADS, TRUNKS, load_components

load_components()


def a_head(in_dim, **options) -> LinearHead:
    defaults = {"layer": "x", "num_classes": 4, "pool": None, "batch_norm": False, "init_std": 0.01}
    return LinearHead(in_dim, **(defaults | options))


def part(group: str, name: str) -> dict:
    return OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / group / f"{name}.yaml"))


def test_vissls_heads_have_the_published_widths_on_resnet50():
    with torch.device("meta"):
        trunk, nodes = TRUNKS.build(part("trunk", "resnet50")), part("heads", "linear_layers")
        layers = head_layers(nodes)
        shapes = layer_shapes(trunk, layers.values(), 224)
        widths = {
            name: HEADS.build(node | {"num_classes": 1000}, shapes[layers[name]]).linear.in_features
            for name, node in nodes.items()
        }
    assert widths == {
        "conv1": 9216, "res2": 9216, "res3": 8192, "res4": 9216, "res5": 8192,
        "res5avg": 2048, "res5avg_bn": 2048,
    }  # fmt: skip


def test_a_map_is_pooled_normalised_and_classified():
    head = a_head((3, 9, 7), pool=Pool(4, 2, 1), batch_norm=True).double()
    maps = torch.randn(5, 3, 9, 7, dtype=torch.float64)
    pooled = F.avg_pool2d(maps, 4, 2, 1)
    mean, var = pooled.mean((0, 2, 3)), pooled.var((0, 2, 3), unbiased=False)
    normed = (pooled - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
    expected = normed.flatten(1) @ head.linear.weight.T
    assert torch.allclose(head(maps), expected)


def test_the_official_head_is_one_small_linear_layer():
    torch.manual_seed(0)
    head = a_head(2048, num_classes=1000)
    assert {name for name, _ in head.named_parameters()} == {"linear.weight", "linear.bias"}
    assert head.linear.weight.std().item() == pytest.approx(0.01, rel=0.01)
    assert not head.linear.bias.any()
    assert a_head(2048, init_std=None).linear.bias.any()


@pytest.mark.parametrize(
    ("in_dim", "options", "message"),
    [
        (
            8,
            {"pool": Pool(2, 1, 0)},
            "pool=Pool(kernel=2, stride=1, padding=0): layer=x gives no map to pool; set pool=null",
        ),
        (
            (8, 3, 3),
            {"pool": Pool(6, 1, 0)},
            "pool.kernel=6: larger than the map of layer=x, 3 x 3",
        ),
        ((8, 3, 3), {"pool": Pool(2, 1, 2)}, "pool.padding=2: up to half of pool.kernel=2"),
    ],
)
def test_unusable_options(in_dim, options, message):
    with pytest.raises(ValueError) as caught:
        a_head(in_dim, **options)
    assert str(caught.value) == message
