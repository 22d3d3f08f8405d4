"""What is said of metrics before a run, and at its start."""

import torch

from ssl_platform.metrics.accuracy import MeanClassAccuracy, PerClassAccuracy, TopKAccuracy
from ssl_platform.metrics.average_precision import PerClassAveragePrecision
from ssl_platform.metrics.fitness import notes_on_metrics, problems_of_metrics

TOP = {"top1": TopKAccuracy(k=1), "top5": TopKAccuracy(k=5)}


def ten_rows(scores, labels):
    return torch.zeros(10)


def test_metrics_are_tried_with_as_many_classes_as_there_are():
    for num_classes in (2, 3, 10, 1000, None):
        assert problems_of_metrics(TOP, num_classes) == []
    assert problems_of_metrics({**TOP, "mine": ten_rows}, 10) == []
    (problem,) = problems_of_metrics({**TOP, "mine": ten_rows}, 9)
    assert problem == (
        "metrics.mine: ten_rows gave a Tensor, float32 (10,), it has to give one number, (C,) or "
        "(C, C) for C classes"
    )
    (problem,) = problems_of_metrics({"mine": lambda scores, labels: scores.no_such_name}, 9)
    assert problem.startswith("metrics.mine: <lambda> raised AttributeError: ")


def test_images_of_several_classes_need_metrics_of_their_own():
    several = {"ap": PerClassAveragePrecision()}
    assert problems_of_metrics(several, 20, multi_label=True) == []
    assert problems_of_metrics({}, 20, multi_label=True) == []
    assert problems_of_metrics(TOP | several, 20, multi_label=True) == [
        "metrics: top1, top5: of images with one class each, and these may have several; leave out "
        "with ~metrics.top1 ~metrics.top5"
    ]


def test_uneven_classes_and_metrics_that_are_left_out_are_said():
    uneven, even = torch.tensor([0, 0, 1, -1, -1]), torch.tensor([0, 0, 0, 2, 2, -1])
    assert notes_on_metrics(TOP, even, 10, "data.val") == []
    assert notes_on_metrics(TOP, even, 5, "data.val") == [
        "metrics.top5: left out, it says nothing of 5 classes"
    ]
    assert notes_on_metrics(TOP, uneven, 6, "data.val") == [
        "data.val: a class has from 1 to 2 images, so that accuracy says most of the large ones; "
        "metrics=full adds the mean accuracy of the classes"
    ]
    for metric in (MeanClassAccuracy(), PerClassAccuracy()):
        assert notes_on_metrics({**TOP, "mean": metric}, uneven, 6, "data.val") == []
