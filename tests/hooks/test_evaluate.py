"""The scores of heads on validation images."""

import logging
from types import SimpleNamespace

import numpy as np
import torch
from test_knn import DataSet, Rows

from ssl_platform.hooks.evaluate import Evaluate
from ssl_platform.metrics.accuracy import TopKAccuracy


class Model(torch.nn.Module):
    """Says of an image the class that is its brightest channel."""

    def forward(self, crops: list[torch.Tensor]) -> dict[str, torch.Tensor]:
        return {"linear": crops[0].mean(dim=(2, 3))}


def test_accuracy_is_of_the_images_that_can_be_read(caplog):
    caplog.set_level(logging.INFO)
    labels = np.array([0, 1, 2, -1, 2, 1, 0, 1])
    images = torch.nn.functional.one_hot(torch.tensor(labels).clamp(0), 3).float()
    images[6] = torch.tensor([0.0, 1.0, 0.0])  # the one that the model errs at
    bad = (1, 4)
    images[[1, 4]] = torch.tensor([1.0, 0.0, 0.0])  # as anything else in their place would
    val = DataSet(labels=labels, images=images[:, :, None, None])
    run = SimpleNamespace(
        val_data=val,
        model=Model(),
        metrics={"top1": TopKAccuracy(k=1)},
        eval_loader=lambda data, positions: Rows(data.images, positions, 3, bad),
    )
    found = Evaluate(protocol="test", every_epochs=1)._measure(run)
    assert found == {"linear": {"top1": 80.0}}
    assert "2 of the 7 validation images cannot be read and are left out" in caplog.messages
