"""The scores of heads on validation images."""

import logging
from types import SimpleNamespace

import pytest
from labelled_rows import DataSet, Rows, a_data_set
from torch import Tensor, nn

from ssl_platform.hooks.evaluate import Evaluate
from ssl_platform.metrics.accuracy import TopKAccuracy

NAMES = ["ant", "bee", "cat"]  # kinds 0, 1, 2


class Brightest(nn.Module):
    """A classifier that knows: its scores are the brightness of the channels."""

    freeze_trunk = True

    def forward(self, crops: list[Tensor]) -> dict[str, Tensor]:
        return {"linear": crops[0].mean(dim=(2, 3))}


def evaluated(val: DataSet | None, bad: tuple[int, ...] = ()) -> dict[str, dict[str, float]]:
    run = SimpleNamespace(
        train_data=a_data_set([0, 1, 2], NAMES),
        val_data=val,
        eval_loader=lambda data, positions: Rows(data.images, positions, 4, bad),
        model=Brightest(),
        metrics={"top1": TopKAccuracy(k=1)},
        report={},
        epoch=1,
        num_epochs=1,
    )
    run.evaluated = run.model
    hook = Evaluate(protocol="linear", every_epochs=1)
    hook.probe(run.train_data, run.val_data)
    hook.on_train_start(run)
    hook.on_epoch_end(run)
    return hook.last


@pytest.mark.filterwarnings("ignore:data.val. has no image of")
@pytest.mark.parametrize(
    "val",
    [
        a_data_set([0, 1, 2, -1], NAMES, [0, 1, 2, 0]),
        a_data_set([0, 1, 2, 0], ["cat", "ant", "bee"], [2, 0, 1, 2]),
        a_data_set([0, 1], ["bee", "cat"], [1, 2]),
    ],
)
def test_the_classes_of_validation_folders_are_matched_by_name(val):
    assert evaluated(val) == {"linear": {"top1": 100}}


def test_validation_images_of_other_classes_are_refused():
    with pytest.raises(ValueError, match=r"only in data.val eel$"):
        evaluated(a_data_set([0, 1], ["bee", "eel"], [1, 2]))


def test_unlabelled_validation_images_are_refused():
    for val in (None, a_data_set(None)):
        with pytest.raises(ValueError, match=r"^data.val: "):
            evaluated(val)


def test_accuracy_is_of_the_images_that_can_be_read(caplog):
    caplog.set_level(logging.INFO)
    labels = [0, 1, 2, -1, 2, 1, 0, 1]
    kinds = [0, 0, 2, 0, 0, 1, 1, 1]  # image 6 is taken for another; 1 and 4 are stand-ins
    found = evaluated(a_data_set(labels, NAMES, kinds), bad=(1, 4))
    assert found == {"linear": {"top1": 80.0}}
    assert "2 of the 7 validation images cannot be read and are left out" in caplog.messages
