"""The findings as tables: CSV, and Parquet of equal content."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ssl_platform.clusters.files import nullable, write_in_blocks
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.neighbours.findings import Findings, LookAlikes

OF_OUTLIERS = ("mean_distance", "deviations", "label")
OF_ERRORS = ("label", "suggested_label", "vote_for_label", "margin")

Columns = dict[str, np.ndarray | Callable[[int, int], Sequence[str | None]]]


def write_tables(folder: Path, dataset: ImageDataset, findings: Findings, listed: int) -> None:
    """Write ``images``, ``duplicates``, ``outliers`` and, with labels, ``label_errors``.

    ``images`` has a row for each image that can be read, in the order of the data set; the others
    have at most ``listed`` rows each, but for ``duplicates``, which has every pair.
    """
    every = np.arange(len(findings.images))
    nearest = findings.neighbours.rows[:, 0].numpy()
    of_image = _figures(dataset, findings, every)
    names = _named(dataset, findings, every)
    names["nearest"] = _described(dataset, findings, nearest)
    _write(folder / "images", len(every), {**names, **of_image})
    outliers = findings.order_of_outliers[:listed]
    figures = _figures(dataset, findings, outliers)
    kept = {name: figures[name] for name in OF_OUTLIERS if name in figures}
    _write(folder / "outliers", len(outliers), {**_named(dataset, findings, outliers), **kept})
    _write_duplicates(folder, dataset, findings)
    if findings.votes is not None:
        errors = findings.order_of_errors[:listed]
        figures = _figures(dataset, findings, errors)
        kept = {name: figures[name] for name in OF_ERRORS}
        classes = {
            name: _classes(dataset, figures[column])
            for name, column in (("class", "label"), ("suggested_class", "suggested_label"))
        }
        _write(
            folder / "label_errors",
            len(errors),
            {**_named(dataset, findings, errors), **classes, **kept},
        )


def write_look_alikes(
    folder: Path, dataset: ImageDataset, findings: Findings, look_alikes: LookAlikes
) -> None:
    """Write ``look_alikes``: the nearest images of each picture that was asked for."""
    pictures, cosines, rows = look_alikes
    k = rows.shape[1]
    asked = [pictures.describe(index) for index in range(len(pictures)) for _ in range(k)]
    _write(
        folder / "look_alikes",
        len(asked),
        {
            "query": lambda start, stop: asked[start:stop],
            "rank": np.tile(np.arange(1, k + 1), len(pictures)),
            **_named(dataset, findings, rows.ravel()),
            "cosine": cosines.ravel(),
        },
    )


def _write_duplicates(folder: Path, dataset: ImageDataset, findings: Findings) -> None:
    pairs, cosines, pixel_cosines, groups = findings.duplicates
    group = groups[pairs[:, 0]]
    order = np.lexsort((pairs[:, 1], pairs[:, 0], -cosines, group))
    first, second = pairs[order].T
    _write(
        folder / "duplicates",
        len(order),
        {
            "group": group[order],
            **_named(dataset, findings, first),
            **{f"other_{name}": c for name, c in _named(dataset, findings, second).items()},
            "cosine": cosines[order],
            "pixel_cosine": pixel_cosines[order],
            "same_pixels": findings.same_pixels[order],
        },
    )


def _figures(dataset: ImageDataset, findings: Findings, rows: np.ndarray) -> dict[str, np.ndarray]:
    columns = {
        "nearest_cosine": findings.neighbours.cosines[:, 0].numpy()[rows],
        "mean_distance": findings.distances[rows],
        "deviations": findings.deviations[rows],
        "group": findings.duplicates.groups[rows],
    }
    if dataset.labels is not None:
        columns["label"] = dataset.labels[findings.images[rows]]
    if findings.votes is not None:
        votes = findings.votes
        columns["suggested_label"] = votes.suggested.numpy()[rows]
        columns["vote_for_label"] = votes.own.numpy()[rows]
        columns["margin"] = votes.margin.numpy()[rows]
        columns["is_label_error"] = votes.is_error.numpy()[rows]
    return columns


def _described(dataset: ImageDataset, findings: Findings, rows: np.ndarray) -> Any:
    images = findings.images[rows]
    return lambda start, stop: [dataset.describe(i) for i in images[start:stop].tolist()]


def _named(dataset: ImageDataset, findings: Findings, rows: np.ndarray) -> Columns:
    """The columns ``image`` and, for files, ``uri``."""
    columns: Columns = {"image": _described(dataset, findings, rows)}
    if dataset.uri(0) is not None:
        images = findings.images[rows]
        columns["uri"] = lambda start, stop: [dataset.uri(i) for i in images[start:stop].tolist()]
    return columns


def _classes(dataset: ImageDataset, labels: np.ndarray) -> Any:
    names = dataset.classes
    shown = [str(n) if names is None else names[n] for n in labels.tolist()]
    return lambda start, stop: shown[start:stop]


def _write(path: Path, num_rows: int, columns: Columns) -> None:
    import pyarrow as pa

    arrays = {name: nullable(c) for name, c in columns.items() if isinstance(c, np.ndarray)}

    def rows(start: int, stop: int) -> Any:
        return pa.record_batch(
            {
                name: arrays[name][start:stop]
                if isinstance(column, np.ndarray)
                else pa.array(column(start, stop), pa.string())
                for name, column in columns.items()
            }
        )

    write_in_blocks(path, num_rows, rows)
