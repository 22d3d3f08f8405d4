"""The parts of a training for a loop of one's own, in plain PyTorch or Lightning.

`ssl_platform.run`, `ssl_platform.pretrain` and `ssl_platform.load` are for whole runs.
"""

from typing import Any

from ssl_platform.api.parts import DataPart
from ssl_platform.data.for_torch import CropsTransform, EvalTransform, TorchImages, WithIndex
from ssl_platform.losses.deepcluster_v2 import DeepClusterV2Loss
from ssl_platform.losses.sela_v2 import SeLaV2Loss
from ssl_platform.losses.swav import SwAVLoss
from ssl_platform.models.heads import PrototypeHead
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.models.sync_batch_norm import synchronize_batch_norm

__all__ = [
    "CropsTransform",
    "DeepClusterV2Loss",
    "EvalTransform",
    "PrototypeHead",
    "SSLModel",
    "SeLaV2Loss",
    "SwAVLoss",
    "TorchImages",
    "WithIndex",
    "center_crop",
    "images",
    "multi_crop",
    "synchronize_batch_norm",
]


def multi_crop(data: Any = "imagenet", **changes: Any) -> CropsTransform:
    """The random crops that a training of ``data`` sees: 2 x 224 + 6 x 96 pixels of photographs.

    Args:
        data: a folder of images, a file that lists them, or the name of a part of ``configs/data``.
        changes: of ``data.transform``, nested as in its YAML: ``crops={"large": {"size": 128}}``.

    Raises:
        ConfigError: there is no such data, or a change does not fit.
    """
    return DataPart.of(data, {"transform": changes}).crops()


def center_crop(data: Any = "imagenet", **changes: Any) -> EvalTransform:
    """The crop that an evaluation of ``data`` sees; see `multi_crop`."""
    return DataPart.of(data, {"eval_transform": changes}).centre()


def images(
    data: Any, transform: CropsTransform, *, split: str = "train", **changes: Any
) -> TorchImages:
    """The images of ``data`` as a torch data set of (crops, label, index).

    Args:
        data: see `multi_crop`.
        transform: of each image.
        split: train or val.
        changes: of ``data.train`` or ``data.val``, such as ``num_samples=1000`` of the shapes.

    Raises:
        ConfigError: there are no such images.
    """
    return DataPart.of(data, {split: changes} if changes else None).images(transform, split)
