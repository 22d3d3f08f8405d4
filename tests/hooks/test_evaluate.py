"""The scores of heads on validation images."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ssl_platform.data.batch import Batch
from ssl_platform.errors import ConfigError
from ssl_platform.hooks.evaluate import Evaluate
from ssl_platform.metrics.accuracy import TopKAccuracy

NAMES = ["ant", "bee", "cat"]  # kinds 0, 1, 2


class Images(SimpleNamespace):
    """As bright in the channel of their kind as can be, and the loader of some of them."""

    device = torch.device("cpu")

    def __init__(
        self,
        labels: list[int],
        classes: list[str],
        kinds: list[int],
        bad: tuple[int, ...] = (),  # positions of those that cannot be read
    ):
        super().__init__(
            labels=np.array(labels), classes=classes, num_classes=max(labels) + 1, bad=bad,
            images=torch.eye(3)[kinds][:, :, None, None].expand(-1, -1, 4, 4),
        )  # fmt: skip

    def some(self, positions: np.ndarray) -> "Images":
        asked = Images(self.labels, self.classes, self.kinds, self.bad)
        asked.index = torch.from_numpy(positions)
        return asked

    @property
    def kinds(self) -> list[int]:
        return self.images[:, :, 0, 0].argmax(dim=1).tolist()

    def __iter__(self) -> Iterator[Batch]:
        yield Batch([self.images[self.index]], label=torch.empty(0), index=self.index)

    def readable(self, index: Tensor) -> Tensor:
        return torch.tensor([position not in self.bad for position in index.tolist()])


class Brightest(nn.Module):
    """A classifier that knows: its scores are the brightness of the channels."""

    freeze_trunk = True

    def forward(self, crops: list[Tensor]) -> dict[str, Tensor]:
        return {"linear": crops[0].mean(dim=(2, 3))}


def evaluated(val: SimpleNamespace) -> dict[str, dict[str, float]]:
    run = SimpleNamespace(
        train_data=Images([0, 1, 2], NAMES, [0, 1, 2]),
        val_data=val,
        eval_loader=lambda images, positions: images.some(positions),
        model=Brightest(),
        metrics={"top1": TopKAccuracy(k=1)},
        report={},
        epoch=1,
        num_epochs=1,
    )
    hook = Evaluate(protocol="linear", every_epochs=1)
    hook.on_train_start(run)
    hook.on_epoch_end(run)
    return hook.last


@pytest.mark.filterwarnings("ignore:data.val. has no image of")
@pytest.mark.parametrize(
    "val",
    [
        Images([0, 1, 2, -1], NAMES, [0, 1, 2, 0]),
        Images([0, 1, 2, 0], ["cat", "ant", "bee"], [2, 0, 1, 2]),
        Images([0, 1], ["bee", "cat"], [1, 2]),
    ],
)
def test_the_classes_of_validation_folders_are_matched_by_name(val):
    assert evaluated(val) == {"linear": {"top1": 100}}


def test_validation_images_of_other_classes_are_refused():
    with pytest.raises(ConfigError, match=r"only in data.val eel$"):
        evaluated(Images([0, 1], ["bee", "eel"], [1, 2]))


def test_unlabelled_validation_images_are_refused():
    unlabelled = SimpleNamespace(labels=None, classes=None, images=torch.zeros(1, 3, 4, 4))
    for val in (None, unlabelled):
        with pytest.raises(ConfigError, match=r"^data.val: "):
            evaluated(val)


def test_accuracy_is_of_the_images_that_can_be_read(caplog):
    caplog.set_level(logging.INFO)
    labels = [0, 1, 2, -1, 2, 1, 0, 1]
    kinds = [0, 0, 2, 0, 0, 1, 1, 1]  # image 6 is taken for another; 1 and 4 are stand-ins
    found = evaluated(Images(labels, NAMES, kinds, bad=(1, 4)))
    assert found == {"linear": {"top1": 80.0}}
    assert "2 of the 7 validation images cannot be read and are left out" in caplog.messages
