"""Seeded draws of labelled samples, class by class."""

import numpy as np


def draw_balanced(labels: np.ndarray, num: int | None, rng: np.random.Generator) -> np.ndarray:
    """Positions of ``num`` samples, as equally many per class as there are, in ascending order.

    Args:
        labels: (N,) classes; negative ones are unlabelled and never drawn.
        num: None for all labelled samples.
    """
    labelled = np.flatnonzero(labels >= 0)
    if num is None or num >= len(labelled):
        return labelled
    order, turn, _ = shuffled_by_class(labels, labelled, rng)
    return np.sort(order[np.argsort(turn, kind="stable")[:num]])


def stratified_split(
    labels: np.ndarray, fraction: float, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Hold out a fraction of every class, rounded, but at least one sample and never all.

    Args:
        labels: (N,) classes; negative ones are unlabelled and in neither part.

    Returns:
        Positions of those that stay and of those that are held out, each in ascending order.
    """
    labelled = np.flatnonzero(labels >= 0)
    order, turn, counts = shuffled_by_class(labels, labelled, rng)
    held_out = turn < np.clip(np.rint(fraction * counts), 1, counts - 1)
    return np.sort(order[~held_out]), np.sort(order[held_out])


def shuffled_by_class(
    labels: np.ndarray, positions: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Positions in random order within each class, class after class.

    With each its place in its class, and the size of that class.
    """
    shuffled = rng.permutation(positions)
    order = shuffled[np.argsort(labels[shuffled], kind="stable")]
    _, starts, counts = np.unique(labels[order], return_index=True, return_counts=True)
    turn = np.arange(len(order)) - np.repeat(starts, counts)
    return order, turn, np.repeat(counts, counts)
