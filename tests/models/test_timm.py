import importlib.util
import socket

import pytest
import torch

from ssl_platform.config import compose
from ssl_platform.errors import ConfigError
from ssl_platform.job.tried_parts import without_values
from ssl_platform.models.timm import TimmTrunk
from ssl_platform.models.trial import Trial, problem_of_trunk

QUICKSTART = "config=pretrain/swav/quickstart"

# of each family the smallest, with the features that its own code pools
WIDTHS = {
    "mobilenetv3_small_050": 1024,
    "mobilenetv4_conv_small_035": 1280,
    "ghostnet_050": 1280,
    "lcnet_035": 1280,
    "hgnet_tiny": 2048,
    "hgnetv2_b0": 2048,
    "vgg11": 4096,
    "resnet18": 512,
    "efficientnet_b0": 1280,
    "convnext_atto": 320,
    "vit_tiny_patch16_224": 192,
    "swin_tiny_patch4_window7_224": 768,
    "regnetx_002": 368,
    "repvgg_a0": 1280,
}


def on_meta(model: str, **options):
    with without_values():
        return TimmTrunk(model=model, options=options)


@pytest.mark.parametrize("model", WIDTHS)
def test_the_width_of_every_family_is_that_of_its_features(model):
    trunk = on_meta(model)
    assert trunk.out_dim == WIDTHS[model]
    with torch.device("meta"), torch.no_grad():
        assert trunk.eval()(torch.empty(2, 3, 96, 96)).shape == (2, WIDTHS[model])


def test_any_model_of_timm_is_a_trunk():
    trunk = TimmTrunk(model="test_vit", options={})
    for side in (160, 96, 24):
        assert trunk(torch.zeros(2, 3, side, side)).shape == (2, trunk.out_dim)


def test_taking_any_size_changes_nothing_at_the_size_that_a_transformer_is_made_for():
    torch.manual_seed(0)
    any_size = TimmTrunk(model="test_vit", options={}).eval()
    torch.manual_seed(0)
    fixed = TimmTrunk(model="test_vit", options={"dynamic_img_size": False}).eval()
    images = torch.rand(2, 3, 160, 160)
    with torch.no_grad():
        assert torch.equal(any_size(images), fixed(images))


@pytest.mark.parametrize(
    ("model", "options", "side"),
    [
        ("mixer_s32_224", {}, 224),
        ("levit_128s", {}, 224),
        ("test_vit", {"dynamic_img_size": False, "img_size": 32}, 32),
    ],
)
def test_a_model_of_one_size_is_told_with_its_size(model, options, side):
    trunk = on_meta(model, **options)
    trial = Trial(trunk, lambda: TimmTrunk(model=model, options=options), torch.device("cpu"))
    line = problem_of_trunk(trunk, trial, [side, 16], [side])
    assert line.startswith("TimmTrunk cannot take images of 16 x 16 pixels: ")
    assert f"the size that it is made for, {side}, or choose" in line


def test_a_misspelt_model_is_told_the_nearest():
    with pytest.raises(
        ValueError, match=r"^model=resnet18x: timm has no such model; close: resnet18,"
    ):
        TimmTrunk(model="resnet18x", options={})
    with pytest.raises(ValueError, match="no such model; close: vit_tiny_patch16_224, "):
        TimmTrunk(model="vit_tny_patch16_224", options={})
    with pytest.raises(ValueError, match=r"^model=resnet18.nonsense: .*Invalid pretrained tag"):
        TimmTrunk(model="resnet18.nonsense", options={})


OPTIONS = {
    "no_such_option": (1, r"^options={'no_such_option': 1}: timm cannot make such a resnet18 \("),
    "in_chans": (1, r"^options.in_chans=1: trunk.in_channels says it; leave it out"),
    "num_classes": (10, r"^options.num_classes=10: a trunk has no classifier; heads have"),
    "pretrained": (True, r"^options.pretrained=True: trunk.pretrained says it"),
    "features_only": (True, r"^model=resnet18: gives a list of 5 for one image"),
    "global_pool": ("", r"^model=resnet18: gives a Tensor, float32 \(1, 512, 7, 7\)"),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_options_that_make_no_trunk_are_named(option):
    value, told = OPTIONS[option]
    with pytest.raises(ValueError, match=told):
        on_meta("resnet18", **{option: value})


def test_a_config_with_a_timm_trunk_passes_the_check():
    cfg = compose([QUICKSTART, "trunk=timm", "trunk.model=test_vit"])
    assert cfg.trunk.model == "test_vit"


def test_crops_that_a_timm_trunk_does_not_take_are_told_before_the_run():
    with pytest.raises(ConfigError) as caught:
        compose([QUICKSTART, "trunk=timm", "trunk.model=vgg11"])
    (line,) = caught.value.problems
    assert line.startswith("trunk: TimmTrunk cannot take images of 24 x 24 pixels (nor of 16): ")


@pytest.fixture
def weights_in_a_file(tmp_path):
    """A model of timm whose own weights lie in a file; their origin."""
    from timm.models import generate_default_cfgs, register_model
    from timm.models._registry import _model_default_cfgs, _model_entrypoints, _model_has_pretrained
    from timm.models.vision_transformer import VisionTransformer

    small = {"img_size": 32, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
    file = tmp_path / "own.pth"
    torch.manual_seed(9)
    origin = VisionTransformer(num_classes=0, **small)
    torch.save(origin.state_dict(), file)

    def own_vit(pretrained=False, **options):
        from timm.models import build_model_with_cfg

        return build_model_with_cfg(
            VisionTransformer, "own_vit", pretrained, **{**small, **options}
        )

    own_vit.__module__ = "timm.models.vision_transformer"
    config = {"file": str(file), "input_size": (3, 32, 32), "num_classes": 0}
    import timm.models.vision_transformer as home

    home.default_cfgs |= generate_default_cfgs({"own_vit": config})
    register_model(own_vit)
    yield origin
    for names in (_model_entrypoints, _model_default_cfgs):
        names.pop("own_vit", None)
    _model_has_pretrained.discard("own_vit")
    home.default_cfgs.pop("own_vit")


def test_own_weights_are_loaded_when_a_training_starts_and_not_when_a_trunk_is_made(
    weights_in_a_file,
):
    trunk = TimmTrunk(model="own_vit", options={}, pretrained=True)
    theirs = weights_in_a_file.state_dict()
    assert not torch.equal(trunk.model.patch_embed.proj.weight, theirs["patch_embed.proj.weight"])
    assert trunk.load_pretrained() == "timm:own_vit"
    assert all(torch.equal(value, theirs[key]) for key, value in trunk.model.state_dict().items())


def test_where_there_is_no_network_the_address_and_the_way_by_a_file_are_told(monkeypatch):
    from huggingface_hub import constants

    with socket.socket() as taken:  # nobody listens there
        taken.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{taken.getsockname()[1]}"
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        with pytest.raises(ConfigError) as caught:
            compose([QUICKSTART, "trunk=timm", "trunk.model=test_vit", "trunk.pretrained=true"])
    (line,) = caught.value.problems
    assert line.startswith("trunk.pretrained=true: timm's weights of test_vit cannot be had: ")
    assert f"{endpoint}/timm/test_vit.r160_in1k cannot be reached ([Errno 111] " in line
    assert line.endswith("or give a file with them: checkpoint=FILE trunk.pretrained=false")


def test_a_model_without_weights_of_its_own_is_told():
    with pytest.raises(
        ValueError, match=r"^pretrained=true: timm has no weights of botnet50ts_256"
    ):
        TimmTrunk(model="botnet50ts_256", options={}, pretrained=True)


def test_without_timm_the_command_to_install_it_is_told(monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "timm" else find_spec(name)
    )
    with pytest.raises(ValueError, match="timm is not installed; pip install timm"):
        TimmTrunk(model="resnet18", options={})
