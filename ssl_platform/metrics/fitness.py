"""Whether metrics fit the images of an evaluation: found out before anything is started."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ssl_platform.errors import ConfigError
from ssl_platform.metrics import Metric, measured

NUM_TRIED = 8  # made-up images that each metric is tried with
MANY = 100  # classes, where nobody knows how many
UNEVEN = 2  # times as many images: accuracy then says most of the large classes


def problems_of_metrics(
    metrics: Mapping[str, Metric], num_classes: int | None, *, multi_label: bool = False
) -> list[str]:
    """Try metrics on made-up scores; returns a line for everything that is wrong with them.

    Args:
        num_classes: of the training images; None where they have no labels.
        multi_label: whether an image may have several classes.
    """
    others = [n for n, m in metrics.items() if getattr(m, "multi_label", False) != multi_label]
    if others and multi_label:
        return [
            f"metrics: {', '.join(others)}: of images with one class each, and these may have "
            "several; leave out with " + " ".join(f"~metrics.{name}" for name in others)
        ]
    if others:
        return [
            f"metrics.{name}: {type(metrics[name]).__name__} is of images that may have several "
            f"classes, and these have one each; leave it out with ~metrics.{name}"
            for name in others
        ]
    scores, labels = _made_up(num_classes or MANY, multi_label)
    try:
        values = measured(metrics, scores, labels)
    except ConfigError as error:
        return error.problems
    if values.figures or multi_label:
        return []
    if values.tables:
        told = f"{', '.join(values.tables)}: of each class, and a figure of all is needed too"
    elif metrics:
        told = f"{', '.join(metrics)}: nothing to say of {num_classes} classes"
    else:
        told = "there is none"
    return [f"metrics: {told}; add '+metrics.top1={{name: TopKAccuracy, k: 1}}'"]


def _made_up(num_classes: int, multi_label: bool) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(NUM_TRIED, num_classes, generator=generator)
    classes = torch.arange(NUM_TRIED) % num_classes
    if not multi_label:
        return scores, classes
    marks = torch.full((NUM_TRIED, num_classes), -1, dtype=torch.int8)
    marks[torch.arange(NUM_TRIED), classes] = 1
    return scores, marks


def notes_on_metrics(
    metrics: Mapping[str, Metric], labels: Tensor, num_classes: int, key: str
) -> list[str]:
    """What a reader of the figures has to know, a line each.

    Args:
        labels: (N,) int64 of the images to test on; below 0 for one without a class.
        key: of these images.
    """
    notes = [
        f"metrics.{name}: left out, it says nothing of {num_classes} classes"
        for name, metric in metrics.items()
        if num_classes < getattr(metric, "min_classes", 0)
    ]
    counts = labels[labels >= 0].bincount()
    counts = counts[counts > 0]
    is_balanced = any(getattr(metric, "balanced", False) for metric in metrics.values())
    if len(counts) and not is_balanced and counts.max() >= UNEVEN * counts.min():
        notes.append(
            f"{key}: a class has from {counts.min()} to {counts.max()} images, so that accuracy "
            "says most of the large ones; metrics=full adds the mean accuracy of the classes"
        )
    return notes
