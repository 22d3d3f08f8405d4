from types import SimpleNamespace

import pytest

from ssl_platform.data.classes import check_same_classes


def images(classes: str | None, num_classes: int) -> SimpleNamespace:
    names = None if classes is None else classes.split()
    return SimpleNamespace(classes=names, num_classes=num_classes)


def test_sets_of_the_same_classes_pass():
    check_same_classes(images("cat dog", 2), images("cat dog", 2))
    check_same_classes(images(None, 10), images(None, 10))
    check_same_classes(images(None, 10), images("cat dog", 2))


@pytest.mark.parametrize(
    ("val", "message"),
    [
        (
            "cat eel",
            "data.val: its 2 classes are not the 3 of data.train: only in data.train cow, dog, "
            "only in data.val eel",
        ),
        (
            "cat",
            "data.val: its 1 classes are not the 3 of data.train: only in data.train cow, dog, "
            "only in data.val none",
        ),
        (
            "a b c cat cow d dog e",
            "data.val: its 8 classes are not the 3 of data.train: only in data.train none, "
            "only in data.val a, b, c and 2 more",
        ),
    ],
)
def test_other_names_are_told(val, message):
    with pytest.raises(ValueError) as error:
        check_same_classes(images("cat cow dog", 3), images(val, len(val.split())))
    assert str(error.value) == message


def test_without_names_the_numbers_are_compared():
    with pytest.raises(ValueError, match=r"^data.val: has 11 classes, data.train has 10$"):
        check_same_classes(images(None, 10), images("a b", 11))
