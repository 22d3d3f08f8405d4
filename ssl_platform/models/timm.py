"""Any trunk of the timm library, by its name there."""

import difflib
import importlib.util
import urllib.error
import urllib.request
from typing import Annotated, Any

import torch
from annotated_types import Ge
from torch import Tensor, nn

from ssl_platform.errors import blame, kind_of
from ssl_platform.models.pretrained import Pretrained
from ssl_platform.registry import TRUNKS

# Transformers are made for images of one size. These options let them take other sizes: positions
# are resampled, and a size that is no multiple of the patch is padded. At the size that a model is
# made for they change nothing. Most transformers have both, some the first alone, others neither.
ANY_SIZE: tuple[dict[str, bool], ...] = (
    {"dynamic_img_size": True, "dynamic_img_pad": True},
    {"dynamic_img_size": True},
    {},
)
HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # of timm's repositories
REACH_SECONDS = 10.0
OURS = {
    "pretrained": "trunk.pretrained says it",
    "in_chans": "trunk.in_channels says it; leave it out",
    "num_classes": "a trunk has no classifier; heads have",
}


@TRUNKS.register()
class TimmTrunk(Pretrained, nn.Module):
    """Images (N, C, H, W) to pooled features (N, ``out_dim``); needs ``pip install timm``.

    A vision transformer takes images of any size where timm lets it.

    Args:
        model: the model's name in timm, e.g. ``vit_small_patch16_224``.
        options: further arguments of ``timm.create_model``, e.g. ``{drop_path_rate: 0.1}``.
        pretrained: let a training that names no checkpoint start from timm's own weights; else
            they are random.
        in_channels: C; null is that of the images, which the check of a config fills in, else 3.
            timm adapts the first layer of its own weights.
    """

    def __init__(
        self,
        *,
        model: str,
        options: dict[str, int | float | bool | str],
        pretrained: bool = False,
        in_channels: Annotated[int, Ge(1)] | None = 3,
    ):
        super().__init__()
        if importlib.util.find_spec("timm") is None:
            raise ValueError(f"model={model}: timm is not installed; pip install timm")
        import timm

        if not timm.is_model(model):
            raise ValueError(f"model={model}: timm has no such model; {_nearest(model)}")
        problems = [f"options.{key}={options[key]}: {OURS[key]}" for key in OURS if key in options]
        has_weights = timm.is_model_pretrained(model)
        if pretrained and not has_weights:
            some = timm.list_pretrained(f"{model.partition('_')[0]}*")[:5]
            problems.append(f"pretrained=true: timm has no weights of {model}; it has {some}")
        if problems:
            raise ValueError("\n".join(problems))
        self.name, self.options, self.pretrained = model, options, pretrained
        self.in_channels = in_channels or 3
        self.model = _created(model, options, in_chans=self.in_channels)
        config = getattr(self.model, "pretrained_cfg", None) or {}
        side = options.get("img_size", config.get("input_size", (3, 224, 224))[-1])
        self.out_dim = _width(self.model, model, (self.in_channels, side, side))
        is_fixed = config.get("fixed_input_size", False)
        self.image_size: int | None = side if is_fixed else None  # that it is made for

    def forward(self, images: Tensor) -> Tensor:
        """(N, C, H, W) to (N, out_dim)."""
        return self.model(images)

    def load_pretrained(self) -> str:
        """Take over timm's own weights, fetched unless they were before."""
        try:
            more = _where_weights_are(getattr(self.model, "pretrained_cfg", None) or {})
            source = _created(
                self.name, self.options, in_chans=self.in_channels, pretrained=True, **more
            )
        except Exception as error:  # of timm, of the hub that it asks, and of the network
            raise ValueError(
                f"pretrained=true: timm's weights of {self.name} cannot be had: "
                f"{' '.join(str(error).split())}; or give a file with them: checkpoint=FILE "
                "trunk.pretrained=false"
            ) from error
        self.model.load_state_dict(source.state_dict())
        return f"timm:{self.name}"


def _where_weights_are(config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of `timm.create_model` with which it takes weights that were fetched before.

    Raises:
        OSError: they were not, and their address cannot be reached. The hub's own client would
            try for most of a minute.
    """
    hub, address = config.get("hf_hub_id"), config.get("url")
    if config.get("file") or config.get("state_dict"):
        return {}
    if hub:
        from huggingface_hub import constants, try_to_load_from_cache

        for name in HUB_FILES:
            path = try_to_load_from_cache(hub, name)
            if isinstance(path, str):
                return {"pretrained_cfg_overlay": {"file": path}}
        address = f"{constants.ENDPOINT}/{hub}"
    if address:
        try:
            request = urllib.request.Request(address, method="HEAD")
            urllib.request.urlopen(request, timeout=REACH_SECONDS).close()
        except urllib.error.HTTPError:
            pass  # the server answers
        except OSError as error:
            reason = getattr(error, "reason", error)
            raise OSError(f"{address} cannot be reached ({reason})") from error
    return {}


def _created(model: str, options: dict[str, Any], **arguments: Any) -> nn.Module:
    import timm

    for more in ANY_SIZE:
        try:
            return timm.create_model(model, num_classes=0, **{**more, **options}, **arguments)
        except Exception as error:  # whatever timm says of a combination
            if isinstance(error, TypeError) and any(key in str(error) for key in more):
                continue
            what = f"options={options}" if options else f"model={model}"
            raise ValueError(f"{what}: timm cannot make such a {model} ({blame(error)})") from error
    raise AssertionError("the last of ANY_SIZE has nothing that could be refused")


def _width(model: nn.Module, name: str, shape: tuple[int, int, int]) -> int:
    """Width of the features, from a real output: timm's own numbers leave some layers out."""
    device = next(model.parameters()).device
    was_training = model.training
    with torch.no_grad(), device:
        features = model.eval()(torch.zeros(1, *shape))
    model.train(was_training)
    if not isinstance(features, Tensor) or features.ndim != 2:
        raise ValueError(
            f"model={name}: gives {kind_of(features)} for one image, where a trunk gives features "
            "(1, D); choose another, or leave out the option that does it"
        )
    return features.shape[1]


def _nearest(model: str) -> str:
    import timm

    names = timm.list_models()
    close = difflib.get_close_matches(model, names, n=5, cutoff=0.6)
    close += [name for name in names if model in name and name not in close][: 5 - len(close)]
    return f"close: {', '.join(close)}" if close else "see timm.list_models()"
