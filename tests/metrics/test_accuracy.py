"""Metrics against scikit-learn, and classes that are missing on either side."""

import numpy as np
import pytest
import torch
from sklearn.metrics import (
    balanced_accuracy_score,
    confusion_matrix,
    f1_score,
    recall_score,
    top_k_accuracy_score,
)
from torch import Tensor

from ssl_platform.metrics import measured
from ssl_platform.metrics.accuracy import (
    ConfusionMatrix,
    MacroF1,
    MeanClassAccuracy,
    PerClassAccuracy,
    TopKAccuracy,
)
from ssl_platform.metrics.average_precision import PerClassAveragePrecision
from ssl_platform.ops.average_precision import average_precision

CLASSES = 6


def scored(num: int = 200) -> tuple[Tensor, Tensor]:
    """Scores that are right more often than not, of uneven classes."""
    generator = torch.Generator().manual_seed(0)
    weights = torch.arange(1.0, CLASSES + 1)
    labels = torch.multinomial(weights, num, replacement=True, generator=generator)
    scores = torch.rand(num, CLASSES, generator=generator)
    scores[torch.arange(num), labels] += 0.4
    return scores, labels


def test_they_are_those_of_scikit_learn():
    scores, labels = scored()
    truth, taken_for = labels.numpy(), scores.argmax(dim=1).numpy()
    assert MeanClassAccuracy()(scores, labels) == pytest.approx(
        100 * balanced_accuracy_score(truth, taken_for)
    )
    np.testing.assert_allclose(
        PerClassAccuracy()(scores, labels), 100 * recall_score(truth, taken_for, average=None)
    )
    np.testing.assert_array_equal(
        ConfusionMatrix()(scores, labels), confusion_matrix(truth, taken_for)
    )
    f1 = f1_score(truth, taken_for, average="macro")
    assert MacroF1()(scores, labels) == pytest.approx(100 * f1)
    for k in (1, 3):
        expected = 100 * top_k_accuracy_score(truth, scores.numpy(), k=k)
        assert TopKAccuracy(k=k)(scores, labels) == pytest.approx(expected)


def test_equal_classes_have_a_mean_that_is_the_accuracy():
    scores, _ = scored(60)
    labels = torch.arange(60) % CLASSES
    top1 = TopKAccuracy(k=1)(scores, labels)
    assert MeanClassAccuracy()(scores, labels) == pytest.approx(top1)


def test_a_class_without_images_has_no_figure_and_no_part_in_the_mean():
    scores = torch.eye(4)[[0, 0, 1, 3]]
    labels = torch.tensor([0, 1, 1, 3])
    assert PerClassAccuracy()(scores, labels)[:2].tolist() == [100, 50]
    assert PerClassAccuracy()(scores, labels).isnan().tolist() == [False, False, True, False]
    assert MeanClassAccuracy()(scores, labels) == pytest.approx(250 / 3)
    assert ConfusionMatrix()(scores, labels)[2].tolist() == [0, 0, 0, 0]
    assert MacroF1()(scores, labels) == pytest.approx(100 * (2 / 3 + 2 / 3 + 1) / 3)


def test_images_of_a_class_that_no_score_is_of_are_wrong():
    metrics = {"top1": TopKAccuracy(k=1), "mean": MeanClassAccuracy(), "each": PerClassAccuracy()}
    metrics["table"] = ConfusionMatrix()
    figures, tables = measured(metrics, torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 3]))
    assert figures == {"top1": pytest.approx(200 / 3), "mean": pytest.approx(200 / 3)}
    np.testing.assert_array_equal(tables["each"], [100, 100, np.nan, 0])
    assert tables["table"].tolist() == [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]]


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_scores_that_are_not_finite_are_wrong_everywhere(bad):
    scores, labels = torch.eye(2)[[0, 1, 1]], torch.tensor([0, 1, 1])
    scores[1, 0] = bad
    assert TopKAccuracy(k=1)(scores, labels) == pytest.approx(200 / 3)
    assert PerClassAccuracy()(scores, labels).tolist() == [100, 50]
    assert ConfusionMatrix()(scores, labels).tolist() == [[1, 0], [0, 1]]
    assert MacroF1()(scores, labels) == pytest.approx(100 * (1 + 2 / 3) / 2)


def test_average_precision_is_of_each_class_and_leaves_out_difficult_images():
    scores, _ = scored(50)
    marks = torch.randint(-1, 2, (50, CLASSES), generator=torch.Generator().manual_seed(1))
    marks[:, 2] = -1
    found = PerClassAveragePrecision()(scores, marks)
    assert found.isnan().tolist() == [number == 2 for number in range(CLASSES)]
    clear = (marks[:, 0] != 0).numpy()
    expected = average_precision(marks[:, 0].numpy()[clear], scores[:, 0].numpy()[clear])
    assert found[0].item() == pytest.approx(100 * expected)


def test_a_metric_that_says_nothing_of_so_few_classes_is_left_out():
    scores, labels = scored()
    metrics = {f"top{k}": TopKAccuracy(k=k) for k in (1, 2, CLASSES - 1, CLASSES)}
    assert list(measured(metrics, scores, labels).figures) == ["top1", "top2", "top5"]
    two = {"top1": TopKAccuracy(k=1), "top2": TopKAccuracy(k=2)}
    assert list(measured(two, scores[:, :2], labels % 2).figures) == ["top1"]
