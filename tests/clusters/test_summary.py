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
    chance = first.pop("chance")
    assert chance == second.pop("chance")  # of the same two parts of 2 and 3 images
    assert first.pop("signs") == second.pop("signs") == []
    assert summary == {
        "clusters_by": "prototypes",
        "images": 6,
        "unreadable": 1,
        "seen": 3,
        "labelled": 5,
    }
    entropy = -(2 / 5 * math.log(2 / 5) + 3 / 5 * math.log(3 / 5))
    in_both = {"images": 5, "used": 2, "size_min": 2, "size_median": 2.5, "size_max": 3}
    in_both |= {"nmi": 1, "ari": 1, "purity": 1, "hungarian_accuracy": 1}
    assert first == pytest.approx(
        in_both
        | {"clusters": 4, "empty": 2, "size_entropy": entropy / math.log(4)}
        | {"mean_score": 0.4, "median_margin": 0.5 / 3, "training_agreement": 2 / 3}
    )
    assert second == pytest.approx(
        in_both
        | {"clusters": 2, "empty": 0, "size_entropy": entropy / math.log(2)}
        | {"mean_score": 1, "median_margin": 1 / 3}
    )


@pytest.mark.parametrize("labels", [None, [-1, -1]])
def test_a_summary_without_labels_has_no_scores_and_is_json(labels):
    summary = summarize(Colours([0, 0], labels=labels), clusters_of([0, 1], [2]))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert summary.keys() == {"clusters_by", "images", "unreadable", "sets"}
    assert not summary["sets"][0].keys() & {"nmi", "ari", "purity", "chance", "training_agreement"}
    assert summary["sets"][0]["size_entropy"] == pytest.approx(1)


def test_chance_is_what_permuted_labels_give():
    labels = np.repeat(np.arange(4), 100)
    dataset, clusters = Colours([0] * 400, labels=labels), clusters_of(labels, [4])
    (figures,) = summarize(dataset, clusters)["sets"]
    assert figures["nmi"] == figures["purity"] == 1
    chance = figures["chance"]
    assert chance["nmi"] == pytest.approx(0, abs=0.03)
    assert chance["ari"] == pytest.approx(0, abs=0.02)
    assert 0.25 < chance["hungarian_accuracy"] <= chance["purity"] < 0.35
    assert summarize(dataset, clusters)["sets"][0]["chance"] == chance


def test_labels_of_unreadable_images_alone_give_no_scores():
    clusters = clusters_of([-1, 0, 1], [2])
    (figures,) = summarize(Colours([None, 0, 0], labels=[1, -1, -1]), clusters)["sets"]
    assert not figures.keys() & {"nmi", "chance"}
