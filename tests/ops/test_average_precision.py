import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import precision_recall_curve

from ssl_platform.ops.average_precision import average_precision, precision_recall

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "voc_ap.json").read_text())


@pytest.mark.parametrize("case", VECTORS["cases"], ids=lambda case: f"ap{case['ap']:.3f}")
def test_average_precision_is_that_of_the_reference(case):
    targets, scores = np.array(case["targets"]), np.array(case["scores"])
    precision, recall = precision_recall(targets, scores)
    np.testing.assert_allclose(precision, case["precision"], rtol=VECTORS["rtol"])
    np.testing.assert_allclose(recall, case["recall"], rtol=VECTORS["rtol"])
    np.testing.assert_allclose(average_precision(targets, scores), case["ap"], rtol=VECTORS["rtol"])


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_area_under_the_highest_precision_at_each_recall(seed):
    rng = np.random.default_rng(seed)
    targets, scores = rng.choice([-1, 1], 40), rng.random(40)
    precision, recall, _ = precision_recall_curve(targets, scores, pos_label=1)
    steps = np.linspace(0, 1, (targets > 0).sum() + 1)[1:]
    envelope = [precision[recall >= step - 1e-12].max() for step in steps]
    assert average_precision(targets, scores) == pytest.approx(np.mean(envelope))


def test_a_perfect_ranking_scores_one_whatever_the_scale_of_its_scores():
    targets = np.array([-1, 1, 1, -1])
    assert average_precision(targets, np.array([-9.0, 5, 7, 1])) == 1


def test_a_class_without_an_image_has_no_average_precision():
    with pytest.raises(ValueError, match="a class without a single image"):
        average_precision(np.array([-1, -1]), np.array([0.0, 1.0]))


def test_scores_that_are_no_numbers_have_no_average_precision():
    with pytest.raises(ValueError, match=r"^average precision of scores of which some are NaN$"):
        average_precision(np.array([1, -1]), np.array([0.0, np.nan]))
