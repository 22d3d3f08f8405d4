"""What a figure has to be compared with: the same measure without any training.

Beside the features of a trunk stand those of the same trunk at its random start, raw pixels and
their principal components.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ssl_platform.ops.feature_table import Centred, Table, blocks, mean_of, principal_components

PIXEL_SIDE = 32  # raw pixels are compared at this size at most
RANDOM_INIT, RAW_PIXELS = "random init", "raw pixels"

Embed = Callable[[Tensor], Tensor]  # (B, 3, H, W) images to (B, D)
Figures = TypeVar("Figures")


class LabelledFeatures(NamedTuple):
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
        extract: name of a baseline and its function of images to the features of the training and
            of the test images.
        measure: those two to figures, of whatever form.
        random_trunk: the trunk at its random start.
        pca_components: at most so many; None leaves this baseline out.
    """
    found = {RANDOM_INIT: measure(*extract(RANDOM_INIT, random_trunk))}
    train, test = extract(RAW_PIXELS, pixels)

    def measure_with(change: Callable[[Table], Table]) -> Figures:
        return measure(*(part._replace(features=change(part.features)) for part in (train, test)))

    mean = mean_of(train.features)
    found[RAW_PIXELS] = measure_with(lambda table: Centred(table, mean))
    if pca_components is not None:
        mean, directions = principal_components(train.features, pca_components)
        found[f"{RAW_PIXELS}, PCA {directions.shape[1]}"] = measure_with(
            lambda table: torch.cat([part @ directions for part in blocks(Centred(table, mean))])
        )
    return found


def pixels(images: Tensor) -> Tensor:
    """(B, 3, H, W) to (B, D), in colour, shrunk to `PIXEL_SIDE` where the images are larger."""
    side = min(PIXEL_SIDE, images.shape[-1])
    return F.adaptive_avg_pool2d(images, side).flatten(1)
