"""The figures of clusters."""

import json
import math

import numpy as np
import pytest
from cluster_samples import Colours, clusters_of

from ssl_platform.clusters.summary import summarize


def test_the_summary_worked_by_hand():
    clusters = clusters_of(
        [[0, 1], [0, 1], [2, 0], [-1, -1], [2, 0], [2, 0]],
        [4, 2],
        [[0.5, 1], [0.7, 1], [0.1, 1], [0, 0], [0.2, 1], [0.5, 1]],
        seen=np.array([True, True, False, True, False, False]),
        training_ids=np.array([[0, -1], [1, -1], [-1, -1], [2, -1], [2, -1], [-1, -1]]),
    )
    summary = summarize(Colours([0] * 6, labels=[3, 3, 4, 4, 4, -1]), clusters)
    first, second = summary.pop("sets")
    assert summary == {"images": 6, "unreadable": 1, "seen": 3, "labelled": 5}
    entropy = -(2 / 5 * math.log(2 / 5) + 3 / 5 * math.log(3 / 5))
    in_both = {"images": 5, "used": 2, "size_min": 2, "size_median": 2.5, "size_max": 3}
    in_both |= {"nmi": 1, "ari": 1, "purity": 1, "hungarian_accuracy": 1}
    assert first == pytest.approx(
        in_both
        | {"clusters": 4, "empty": 2, "size_entropy": entropy / math.log(4)}
        | {"mean_score": 0.4, "training_agreement": 2 / 3}
    )
    assert second == pytest.approx(
        in_both
        | {"clusters": 2, "empty": 0, "size_entropy": entropy / math.log(2), "mean_score": 1}
    )


@pytest.mark.parametrize("labels", [None, [-1, -1]])
def test_a_summary_without_labels_has_no_scores_and_is_json(labels):
    summary = summarize(Colours([0, 0], labels=labels), clusters_of([0, 1], [2]))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary.keys() == {"images", "unreadable", "sets"}
    assert not summary["sets"][0].keys() & {"nmi", "ari", "purity", "training_agreement"}
    assert summary["sets"][0]["size_entropy"] == pytest.approx(1)
