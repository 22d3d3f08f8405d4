"""Cross entropy with the images' labels: what a classifier is trained by."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ssl_platform.data.batch import Batch, DataInfo
from ssl_platform.losses.base import Loss
from ssl_platform.models.ssl_model import SSLModel
from ssl_platform.registry import LOSSES

UNLABELLED = -1  # see `Batch.label`


@LOSSES.register()
class CrossEntropyLoss(Loss):
    """Sum over the heads, each of which gives class scores: on a frozen trunk they learn
    independently of each other, as if each were trained alone.

    Images without a label are left out.
    """

    def __init__(self, model: SSLModel, data: DataInfo):
        super().__init__()
        if data.num_classes is None or data.num_classes < 2:
            raise ValueError(
                "the training images have no labels of two classes; use a folder with a folder for "
                "each class"
            )
        if not model.heads:
            raise ValueError("the model has no head to give class scores, e.g. heads=linear")
        self.uniform_loss = len(model.heads) * math.log(data.num_classes)

    def forward(self, model: SSLModel, outputs: dict[str, Any], batch: Batch) -> dict[str, Tensor]:
        """``loss``: the mean over the labelled rows of all crops, summed over the heads."""
        labels = batch.label.repeat(len(batch.crops))
        losses = [
            F.cross_entropy(
                scores.to(torch.promote_types(scores.dtype, torch.float32)),
                labels,
                ignore_index=UNLABELLED,
                reduction="sum",
            )
            for scores in (outputs[head] for head in model.heads)
        ]
        # a batch without any label has no mean, and no gradient
        return {"loss": torch.stack(losses).sum() / (labels != UNLABELLED).sum().clamp_min(1)}
