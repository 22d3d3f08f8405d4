"""Any trunk of the timm library, by its name there."""

import importlib.util

from torch import Tensor, nn

from ssl_platform.registry import TRUNKS


@TRUNKS.register()
class TimmTrunk(nn.Module):
    """Images (N, 3, H, W) to pooled features (N, ``out_dim``); needs ``pip install timm``.

    Args:
        model: the model's name in timm, e.g. ``vit_small_patch16_224``; randomly initialised.
        options: further arguments of ``timm.create_model``, e.g. ``{dynamic_img_size: true}``,
            which a vision transformer needs to see crops of several sizes.
    """

    def __init__(self, *, model: str, options: dict[str, int | float | bool | str]):
        super().__init__()
        if importlib.util.find_spec("timm") is None:
            raise ValueError(f"model={model}: timm is not installed; pip install timm")
        import timm

        if not timm.is_model(model):
            close = timm.list_models(f"*{model}*")[:5]
            hint = f"close: {close}" if close else "see timm.list_models()"
            raise ValueError(f"model={model}: timm has no such model; {hint}")
        try:
            self.model = timm.create_model(model, pretrained=False, num_classes=0, **options)
        except TypeError as error:
            raise ValueError(
                f"options={options}: timm's {model} does not take them ({error})"
            ) from error
        self.out_dim: int = self.model.num_features

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)
