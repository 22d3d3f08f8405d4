"""Scores of partitions: worked by hand, by their definitions, and what must not change them."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_platform.ops.partitions import (
    adjusted_rand_index,
    commonest_classes,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
)

SCORES = (normalized_mutual_information, adjusted_rand_index, purity, hungarian_accuracy)
SYMMETRIC = (normalized_mutual_information, adjusted_rand_index, hungarian_accuracy)
# three clusters of six samples each: 5 x, 1 o | 1 x, 4 o, 1 d | 2 x, 3 d (17 samples)
HAND_CLUSTERS = np.repeat([0, 1, 2], [6, 6, 5])
HAND_CLASSES = np.array([0] * 5 + [1] + [0] + [1] * 4 + [2] + [0] * 2 + [2] * 3)

pairs_of_partitions = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30
).map(lambda pairs: tuple(np.array(pairs).T))
seldom = settings(max_examples=60, deadline=None)


def test_scores_worked_by_hand():
    # the example of Introduction to Information Retrieval, 16.3: purity 0.71, Rand 0.68
    assert purity(HAND_CLUSTERS, HAND_CLASSES) == pytest.approx(12 / 17)
    assert hungarian_accuracy(HAND_CLUSTERS, HAND_CLASSES) == pytest.approx(12 / 17)
    # pairs: 20 together in both, 40 in a cluster, 44 in a class, 136 in all
    chance = 40 * 44 / 136
    expected = (20 - chance) / ((40 + 44) / 2 - chance)
    assert adjusted_rand_index(HAND_CLUSTERS, HAND_CLASSES) == pytest.approx(expected)


def test_nmi_worked_by_hand():
    # two even halves; knowing the cluster tells the class of half the samples: I = 1/2 bit less
    clusters, classes = np.array([0, 0, 1, 1]), np.array([0, 0, 0, 1])
    h_clusters, h_classes = 1.0, 0.75 * math.log2(4 / 3) + 0.5
    information = h_classes - 0.5
    expected = information / ((h_clusters + h_classes) / 2)
    assert normalized_mutual_information(clusters, classes) == pytest.approx(expected)


@seldom
@given(pairs_of_partitions)
def test_hungarian_accuracy_is_the_best_of_all_matchings(partitions):
    table = np.zeros((5, 5), int)
    np.add.at(table, partitions, 1)
    best = max(
        sum(table[i, j] for i, j in enumerate(order)) for order in itertools.permutations(range(5))
    )
    assert hungarian_accuracy(*partitions) == pytest.approx(best / table.sum())


@seldom
@given(pairs_of_partitions, st.permutations(range(5)), st.permutations(range(5)))
def test_other_numbers_for_the_same_clusters_and_classes_change_nothing(partitions, new_a, new_b):
    a, b = partitions
    for score in SCORES:
        renumbered = score(1000 * np.array(new_a)[a], np.array(new_b)[b])
        assert renumbered == pytest.approx(score(a, b), abs=1e-9)


@seldom
@given(pairs_of_partitions)
def test_bounds_symmetry_and_equal_partitions(partitions):
    a, b = partitions
    for score in SCORES:
        assert -0.5 - 1e-9 <= score(a, b) <= 1 + 1e-9
        assert score(a, a) == pytest.approx(1)
    for score in SYMMETRIC:
        assert score(a, b) == pytest.approx(score(b, a), abs=1e-9)
    assert hungarian_accuracy(a, b) <= purity(a, b) + 1e-9


@seldom
@given(pairs_of_partitions, st.lists(st.booleans(), min_size=30, max_size=30))
def test_samples_without_a_number_are_left_out(partitions, kept):
    a, b = partitions
    keep = np.array(kept[: len(a)])
    partly_a = np.where(keep | (np.arange(len(a)) % 2 == 0), a, -1)
    partly_b = np.where(keep | (np.arange(len(a)) % 2 == 1), b, -100)
    for score in SCORES:
        expected = score(a[keep], b[keep])
        assert score(partly_a, partly_b) == pytest.approx(expected, abs=1e-9, nan_ok=True)


def test_no_sample_left_is_not_a_number():
    for score in SCORES:
        assert math.isnan(score(np.array([-1, 0]), np.array([3, -100])))


def test_partitions_of_different_samples_are_refused():
    for score in SCORES:
        with pytest.raises(ValueError, match=r"shape \(3,\) and \(2,\)"):
            score(np.zeros(3, int), np.zeros(2, int))


def test_commonest_classes_worked_by_hand():
    clusters = np.array([3, 3, 3, 3, 0, 0, 1, -1, 1, 4])
    classes = np.array([7, 10**12, 10**12, 8, 5, 2, -1, 7, 9, -100])
    pairs = commonest_classes(clusters, classes, num_clusters=6, most=2)
    assert pairs == [[(2, 1), (5, 1)], [(9, 1)], [], [(10**12, 2), (7, 1)], [], []]


@seldom
@given(pairs_of_partitions)
def test_the_commonest_class_of_each_cluster_makes_the_purity(partitions):
    clusters, classes = partitions
    pairs = commonest_classes(clusters, classes, num_clusters=5, most=1)
    right = sum(count for cluster in pairs for _, count in cluster)
    assert right / len(clusters) == pytest.approx(purity(clusters, classes))


def test_no_labels_give_no_commonest_class():
    nothing = commonest_classes(np.array([0, 1]), np.array([-1, -1]), num_clusters=2, most=3)
    assert nothing == [[], []]
