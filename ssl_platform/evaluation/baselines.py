"""The baselines of every figure: the same measure without any training.

They are the features of the same trunk with random weights, raw pixels, and the principal
components of the pixels.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_platform.console.working import working
from ssl_platform.ops.feature_table import Centred, Table, blocks, mean_of, principal_components

PIXEL_SIDE = 32  # larger images are shrunk to it
RANDOM_INIT, RAW_PIXELS = "random init", "raw pixels"

Embed = Callable[[Tensor], Tensor]  # (B, C, H, W) images to (B, D)
Figures = TypeVar("Figures")


class LabelledFeatures(NamedTuple):
    """Features of some images and their classes."""

    features: Table  # (N, D)
    labels: Tensor  # (N,) int64 class; (N, C) where an image may have several


Extract = Callable[[str, Embed], tuple[LabelledFeatures, LabelledFeatures]]


def measure_baselines(
    extract: Extract,
    measure: Callable[[LabelledFeatures, LabelledFeatures], Figures],
    random_trunk: nn.Module,
    *,
    pca_components: int | None,
) -> dict[str, Figures]:
    """The figures of every baseline, by its name; collective if ``extract`` or ``measure`` is.

    Args:
        extract: from the name of a baseline and its function of images to the features of the
            training images and of the test images.
        measure: from those two to figures, in any form.
        random_trunk: the trunk with random weights.
        pca_components: at most so many; None leaves this baseline out.
    """
    with working(f"baseline {RANDOM_INIT}"):
        figures = {RANDOM_INIT: measure(*extract(RANDOM_INIT, random_trunk))}
    with working(f"baseline {RAW_PIXELS}"):
        train, test = extract(RAW_PIXELS, pixels)

    def measure_with(change: Callable[[Table], Table]) -> Figures:
        return measure(*(part._replace(features=change(part.features)) for part in (train, test)))

    mean = mean_of(train.features)
    figures[RAW_PIXELS] = measure_with(lambda table: Centred(table, mean))
    if pca_components is not None:
        mean, directions = principal_components(train.features, pca_components)
        figures[f"{RAW_PIXELS}, PCA {directions.shape[1]}"] = measure_with(
            lambda table: torch.cat([part @ directions for part in blocks(Centred(table, mean))])
        )
    return figures


def pixels(images: Tensor) -> Tensor:
    """(B, C, H, W) to (B, D), all channels, shrunk to `PIXEL_SIDE` where the images are larger."""
    side = min(PIXEL_SIDE, images.shape[-1])
    return F.adaptive_avg_pool2d(images, side).flatten(1)
