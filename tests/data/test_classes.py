import warnings
from types import SimpleNamespace

import numpy as np
import pytest

from ssl_platform.data.sets.classes import labels_to_test, match_classes


def images(classes: str | None, labels: list[int]) -> SimpleNamespace:
    names = None if classes is None else classes.split()
    return SimpleNamespace(
        classes=names, labels=np.array(labels), num_classes=max(labels, default=-1) + 1
    )


TRAIN = images("ant bee cat", [0, 1, 1, 2])
NUMBERS = images(None, [0, 1, 2, 2])


@pytest.mark.parametrize(
    ("train", "val", "labels", "unknown", "notes"),
    [
        (TRAIN, images("ant bee cat", [2, 0, -1, 1]), [2, 0, -1, 1], [], []),
        (TRAIN, images("cat ant bee", [2, 0, -1, 1]), [1, 2, -1, 0], [], []),
        (
            TRAIN, images("bee cat", [0, 1, 1]), [1, 2, 2], [],
            ["data.val: has no image of 1 of the 3 classes of data.train (ant): figures are of the "
             "other classes"],
        ),
        (TRAIN, images("ant bee bug cat", [3, 2, 1, 0]), [2, -1, 1, 0], ["bug"], []),
        (TRAIN, images("ant bee bug cat", [3, 1, 0]), [2, 1, 0], [], []),  # an empty folder
        (
            TRAIN, images("x y", [0, 1]), [-1, -1], ["x", "y"],
            ["data.val: has no image of 3 of the 3 classes of data.train (ant, bee, cat): figures "
             "are of the other classes"],
        ),
        (
            images("ant bee cat dog eel", [0, 1]), images("ant bee cat dog eel", [0, 1, 3, 3]),
            [0, 1, 3, 3], [],
            ["data.train: has no image of dog: every image of data.val of such a class counts as "
             "wrong"],
        ),
        (NUMBERS, images(None, [2, 1, 0]), [2, 1, 0], [], []),
        (NUMBERS, images(None, [1, 0]), [1, 0], [], []),
        (NUMBERS, images(None, [0, 3, 4]), [0, -1, -1], ["3", "4"], []),
        (
            TRAIN, images(None, [2, 1, 0]), [2, 1, 0], [],
            ["data.val: its classes have no names; the two sets are matched by number"],
        ),
        (
            NUMBERS, images("ant bee cat", [2, 1, 0]), [2, 1, 0], [],
            ["data.train: its classes have no names; the two sets are matched by number"],
        ),
        (images("crane crane", [0, 1]), images("crane crane", [1, 0]), [1, 0], [], []),
    ],
)  # fmt: skip
def test_classes_are_matched_by_name_and_else_by_number(train, val, labels, unknown, notes):
    """Equal, another order, one fewer, one more, other names, none at all."""
    found = match_classes(train, val)
    assert (found.labels.tolist(), found.unknown, found.notes) == (labels, unknown, notes)
    if not unknown:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            assert labels_to_test(train, val).tolist() == labels
        assert [str(warning.message) for warning in told] == notes


@pytest.mark.parametrize(
    ("train", "val", "message"),
    [
        (
            TRAIN, images("cat eel", [0, 1]),
            "data.val: its 2 classes are not the 3 of data.train: only in data.train ant, bee, "
            "only in data.val eel",
        ),
        (
            TRAIN, images("a b c cat cow d dog e", list(range(8))),
            "data.val: its 8 classes are not the 3 of data.train: only in data.train ant, bee, "
            "only in data.val a, b, c and 4 more",
        ),
        (
            images(None, [0, 9]), images(None, [10]),
            "data.val: has 11 classes, data.train has 10",
        ),
        (
            TRAIN, images(None, [0, 1]),
            "data.val: its classes cannot be matched with others: data.train has names for 3 "
            "classes, data.val has numbers for 2 classes; give both of them names, or the same "
            "number of classes",
        ),
        (
            TRAIN, images("ant bee bee", [0, 1, 2]),
            "data.val: several of its classes are called bee, so that they cannot be matched with "
            "others by name",
        ),
    ],
)  # fmt: skip
def test_classes_that_cannot_be_matched_are_one_line(train, val, message):
    with pytest.raises(ValueError) as error:
        labels_to_test(train, val)
    assert str(error.value) == message
