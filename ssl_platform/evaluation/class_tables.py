"""Figures of each class and tables of classes, as files beside the results."""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ssl_platform.data.dataset import ImageDataset
from ssl_platform.files import replacing

FOLDER = "metrics"  # in the directory of the run
PICTURE_SIDE, LARGEST_CELL = 1024, 24  # pixels

Tables = dict[str, dict[str, Tensor]]  # (C,) or (C, C), by what was measured and metric


def class_files(
    tables: Mapping[str, Mapping[str, Tensor]], names: Sequence[str], counts: Sequence[int]
) -> dict[str, bytes]:
    """The files of some tables by their path in the run's directory.

    A metric with a figure for each class has one file, with a column for all that was measured; a
    table of classes has a file for each of these, and a picture.

    Args:
        names: of the classes.
        counts: images of each class that were tested.
    """
    columns: dict[str, dict[str, Tensor]] = {}
    files = {}
    for what, by_metric in tables.items():
        for metric, table in by_metric.items():
            if table.ndim == 1:
                columns.setdefault(metric, {})[what] = table
                continue
            path = _path(f"{metric} {what}")
            shown = [_name(names, number) for number in range(len(table))]
            rows = ([name, *row.tolist()] for name, row in zip(shown, table, strict=True))
            files[f"{path}.csv"] = _csv(["true class", *shown], rows)
            files[f"{path}.png"] = _picture(table.double().numpy())
    for metric, by_what in columns.items():
        rows = (
            [_name(names, number), counts[number] if number < len(counts) else 0]
            + [c[number].item() if number < len(c) else nan for c in by_what.values()]
            for number in range(max(map(len, by_what.values())))
        )
        files[f"{_path(metric)}.csv"] = _csv(["class", "images", *by_what], rows)
    return files


def write_class_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write the files of `class_files` into a run's directory, each whole or not at all.

    Raises:
        OSError: one cannot be written.
    """
    for path, content in files.items():
        (folder / FOLDER).mkdir(exist_ok=True)
        with replacing(folder / path) as partial:
            partial.write_bytes(content)


def class_names(dataset: ImageDataset) -> list[str]:
    """The names of a set's classes; their numbers where it has no names."""
    if dataset.classes is None:
        return list(map(str, range(dataset.num_classes or 0)))
    return list(map(str, dataset.classes))


def _name(names: Sequence[str], number: int) -> str:
    return names[number] if number < len(names) else str(number)


def _path(name: str) -> str:
    return f"{FOLDER}/{re.sub(r'[^A-Za-z0-9.-]+', '_', name).strip('_')}"


def _cell(value: Any) -> str:
    """A name, a count, or a figure: nothing for a class without images."""
    if isinstance(value, float):
        return "" if isnan(value) else f"{value:.4f}"
    return str(value)


def _csv(header: list[str], rows: Iterable[list[Any]]) -> bytes:
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(header)
    lines.writerows(map(_cell, row) for row in rows)
    return text.getvalue().encode(errors="surrogateescape")  # a folder's name may be any bytes


def _picture(table: np.ndarray) -> bytes:
    """A PNG of the shares of each row, the darker the larger; a large one is made smaller."""
    import cv2

    totals = np.nansum(table, axis=1, keepdims=True)
    shares = np.nan_to_num(table / np.where(totals > 0, totals, 1))
    grey = np.uint8(255 * (1 - shares.clip(0, 1)))
    cell = min(LARGEST_CELL, PICTURE_SIDE // len(table))
    if cell:
        grey = grey.repeat(cell, axis=0).repeat(cell, axis=1)
    else:
        grey = cv2.resize(grey, (PICTURE_SIDE, PICTURE_SIDE), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".png", grey)[1].tobytes()
