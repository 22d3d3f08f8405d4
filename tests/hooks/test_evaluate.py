"""The scores of heads on validation images."""

import logging
from types import SimpleNamespace

import numpy as np
import torch

from ssl_platform.data.batch import Batch
from ssl_platform.hooks.evaluate import Evaluate
from ssl_platform.metrics.accuracy import TopKAccuracy


class OneBatch:
    """A loader of some images, of which those in ``bad`` cannot be read."""

    device = torch.device("cpu")

    def __init__(self, images: torch.Tensor, positions: np.ndarray, bad: tuple[int, ...]):
        index = torch.from_numpy(positions)
        self.batch, self.bad = Batch([images[index]], label=index, index=index), bad

    def __iter__(self):
        return iter([self.batch])

    def readable(self, index: torch.Tensor) -> torch.Tensor:
        return torch.tensor([position not in self.bad for position in index.tolist()])


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
    run = SimpleNamespace(
        val_data=SimpleNamespace(labels=labels, images=images[:, :, None, None]),
        model=Model(),
        metrics={"top1": TopKAccuracy(k=1)},
        eval_loader=lambda data, positions: OneBatch(data.images, positions, bad),
    )
    found = Evaluate(protocol="test", every_epochs=1)._measure(run)
    assert found == {"linear": {"top1": 80.0}}
    assert "2 of the 7 validation images cannot be read and are left out" in caplog.messages
