"""Matches the classes of the images to test on with those of the images to learn from."""

import warnings
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ssl_platform.data.dataset import ImageDataset
from ssl_platform.errors import first_few

NUM_NAMED = 3  # classes in a message


class Match(NamedTuple):
    """The classes of ``data.val``, matched with those of ``data.train``."""

    labels: np.ndarray  # (N,) int64 of data.val, numbered as in data.train; -1 unlabelled, unknown
    unknown: list[str]  # classes with images in data.val that data.train does not have
    notes: list[str]  # what a reader of the figures has to know, a line each


def check_labelled(key: str, images: ImageDataset) -> None:
    """Refuse images without labels.

    Args:
        key: train or val.

    Raises:
        ValueError: not one of them has a class.
    """
    if images.labels is None or not (images.labels >= 0).any():
        raise ValueError(
            f"data.{key}: these images have no classes; in a folder, each class has its own "
            "folder; of torchvision's sets, choose a split with labels"
        )


def labels_to_test(train: ImageDataset, val: ImageDataset) -> np.ndarray:
    """(N,) int64 labels of ``val``, numbered as in ``train``; -1 for an unlabelled image.

    Warns of what a reader of the figures has to know.

    Raises:
        ValueError: images of ``val`` are of classes that ``train`` does not have, or it cannot be
            decided which class is which.
    """
    match = match_classes(train, val)
    if match.unknown and (train.classes is None or val.classes is None):
        raise ValueError(
            f"data.val: has {_num_classes(val)} classes, data.train has {_num_classes(train)}"
        )
    if match.unknown:
        there = set(_names(val))
        missing = [name for name in _names(train) if name not in there]
        raise ValueError(
            f"data.val: its {_num_classes(val)} classes are not the {_num_classes(train)} of "
            f"data.train: only in data.train {named(missing) or 'none'}, "
            f"only in data.val {named(match.unknown)}"
        )
    for note in match.notes:
        warnings.warn(note, stacklevel=1)  # of this line for all callers: shown once
    return match.labels


def match_classes(train: ImageDataset, val: ImageDataset) -> Match:
    """Match two labelled sets by the names of their classes, where they have names, else by number.

    Raises:
        ValueError: it cannot be decided which class is which.
    """
    assert train.labels is not None and val.labels is not None
    places = _places(train, val)
    labelled = val.labels >= 0
    labels = np.where(labelled, places[np.where(labelled, val.labels, 0)], -1)
    in_val = np.bincount(val.labels[labelled], minlength=len(places)) > 0
    in_train = np.bincount(train.labels[train.labels >= 0], minlength=_num_classes(train)) > 0
    met = np.zeros_like(in_train)
    met[places[in_val & (places >= 0)]] = True
    unknown = _names_of(val, in_val & (places < 0))
    return Match(labels, unknown, _notes(train, val, met & ~in_train, in_train & ~met))


def _places(train: ImageDataset, val: ImageDataset) -> np.ndarray:
    """(classes of ``val``,) number of each in ``train``, -1 for one that it does not have."""
    num_classes, others = _num_classes(train), _num_classes(val)
    names = [None if s.classes is None else list(s.classes) for s in (train, val)]
    if names[0] == names[1]:
        numbers = np.arange(others)
        return np.where(numbers < num_classes, numbers, -1)
    if names[0] is None or names[1] is None:
        if num_classes != others:
            raise ValueError(_names_against_numbers(train, val))
        return np.arange(others)
    for key, own in zip(("train", "val"), names, strict=True):
        twice = [name for name, count in Counter(own).items() if count > 1]
        if twice:
            raise ValueError(
                f"data.{key}: several of its classes are called {named(twice)}, so that they "
                "cannot be matched with others by name"
            )
    number = {name: place for place, name in enumerate(names[0])}
    places = np.full(others, -1)
    places[: len(names[1])] = [number.get(name, -1) for name in names[1]]
    return places


def _names_against_numbers(train: ImageDataset, val: ImageDataset) -> str:
    has = [
        f"{'numbers' if images.classes is None else 'names'} for {_num_classes(images)} classes"
        for images in (train, val)
    ]
    return (
        f"data.val: its classes cannot be matched with others: data.train has {has[0]}, data.val "
        f"has {has[1]}; give both of them names, or the same number of classes"
    )


def _notes(
    train: ImageDataset, val: ImageDataset, untrained: np.ndarray, untested: np.ndarray
) -> list[str]:
    """Of (classes of ``train``,) marks: tested without a training image, and the other way."""
    notes = []
    if (train.classes is None) != (val.classes is None):
        key = "data.val" if val.classes is None else "data.train"
        notes.append(f"{key}: its classes have no names; the two sets are matched by number")
    if untrained.any():
        notes.append(
            f"data.train: has no image of {named(_names_of(train, untrained))}: every image of "
            "data.val of such a class counts as wrong"
        )
    if untested.any() and train.classes is not None:
        notes.append(
            f"data.val: has no image of {untested.sum()} of the {_num_classes(train)} classes of "
            f"data.train ({named(_names_of(train, untested))}): figures are of the other classes"
        )
    return notes


def _num_classes(dataset: ImageDataset) -> int:
    return max(dataset.num_classes or 0, len(_names(dataset)))


def _names_of(dataset: ImageDataset, marks: np.ndarray) -> list[str]:
    names = _names(dataset)
    return [names[n] if n < len(names) else str(n) for n in np.flatnonzero(marks).tolist()]


def named(names: Iterable[str]) -> str:
    """The first few in order, and how many more there are."""
    return first_few(sorted(map(str, names)), NUM_NAMED)


def _names(dataset: ImageDataset) -> list[str]:
    return [] if dataset.classes is None else list(dataset.classes)
