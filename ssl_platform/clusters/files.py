"""Clusters as tables and as folders of links."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ssl_platform.clusters.nearest import Clusters, padded
from ssl_platform.clusters.summary import labels_of
from ssl_platform.data.dataset import ImageDataset
from ssl_platform.data.decoding.decode import printable
from ssl_platform.data.sets.image_folder import ImageFiles
from ssl_platform.files import replacing

BLOCK = 50_000  # rows whose names are in memory at once
LONGEST_NAME = 255  # bytes, on every file system in use
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))  # of a letter of UTF-8 after its first


def write_tables(folder: Path, dataset: ImageDataset, clusters: Clusters) -> None:
    """Write ``clusters.csv`` and ``clusters.parquet``, of equal content, a block at a time.

    One row per image, in the order of the data set. Columns: ``image`` (`ImageDataset.describe`),
    for images that are files ``uri`` (`ImageDataset.uri`), ``cluster_<set>``, ``score_<set>`` and
    ``margin_<set>``, then, if known, ``seen``, ``training_cluster_<set>`` and ``label``. A value
    that an image does not have is null, in CSV empty.
    """
    import pyarrow as pa

    columns = {name: nullable(values) for name, values in _columns(dataset, clusters).items()}
    are_files = dataset.uri(0) is not None

    def rows(start: int, stop: int) -> Any:
        names = {"image": [dataset.describe(index) for index in range(start, stop)]}
        if are_files:
            names["uri"] = [dataset.uri(index) or "" for index in range(start, stop)]
        texts = {name: pa.array(values, pa.string()) for name, values in names.items()}
        return pa.record_batch(texts | {name: c[start:stop] for name, c in columns.items()})

    write_in_blocks(folder / "clusters", len(dataset), rows)


def write_in_blocks(path: Path, num_rows: int, rows: Callable[[int, int], Any]) -> None:
    """Write ``<path>.csv`` and ``<path>.parquet``, of equal content, a block of rows at a time.

    Args:
        rows: the Arrow record batch of the rows from the first number up to the second.
    """
    from pyarrow import csv, parquet

    schema = rows(0, 0).schema
    with (
        replacing(path.with_suffix(".csv")) as csv_path,
        replacing(path.with_suffix(".parquet")) as parquet_path,
        csv.CSVWriter(csv_path, schema) as csv_file,
        parquet.ParquetWriter(parquet_path, schema) as parquet_file,
    ):
        for start in range(0, num_rows, BLOCK):
            batch = rows(start, min(start + BLOCK, num_rows))
            csv_file.write_batch(batch)
            parquet_file.write_batch(batch)


def _columns(dataset: ImageDataset, clusters: Clusters) -> dict[str, np.ndarray]:
    """(N,) values of the columns of numbers."""
    of_sets = {"cluster": clusters.ids, "score": clusters.scores, "margin": clusters.margins}
    columns = {f"{name}_{h}": c for name, of_set in of_sets.items() for h, c in enumerate(of_set.T)}
    if clusters.seen is not None:
        columns["seen"] = clusters.seen
    if clusters.training_ids is not None:
        columns |= {f"training_cluster_{h}": c for h, c in enumerate(clusters.training_ids.T)}
    labels = labels_of(dataset)
    return columns if labels is None else columns | {"label": labels}


def nullable(values: np.ndarray) -> Any:
    """An Arrow array in which -1 and NaN are null."""
    import pyarrow as pa

    return pa.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else values < 0)


def write_symlinks(folder: Path, dataset: ImageDataset, clusters: Clusters) -> bool:
    """Link ``by_cluster/<set>/<cluster>/<row>_<file name>`` to each image of a set of files.

    The links of an earlier run are replaced; the images themselves are not touched. Empty clusters
    have no folder.

    Returns:
        False when the images are not files, so that there is nothing to link to.

    Raises:
        ValueError: the old tree holds something else than folders and links.
    """
    if not isinstance(dataset, ImageFiles):
        return False
    target, partial = folder / "by_cluster", folder / ".partial_by_cluster"
    for tree in (target, partial):
        _check_only_links(tree)
    if partial.exists():  # a run that was killed has left it
        shutil.rmtree(partial)
    for number in range(len(clusters.num_clusters)):
        for cluster in np.flatnonzero(clusters.sizes(number)).tolist():
            (partial / clusters.name(number, cluster)).mkdir(parents=True)
    # not abspath: it takes "link/.." for the folder of the link
    here, root = os.getcwdb(), os.fsencode(partial)
    for row, ids in enumerate(clusters.ids):
        source = os.path.join(here, dataset.files[row])
        link = _link_name(row, len(dataset), os.path.basename(source))
        for number, cluster in enumerate(ids.tolist()):
            if cluster >= 0:
                place = os.fsencode(clusters.name(number, cluster))
                os.symlink(source, os.path.join(root, place, link))
    if target.exists():
        shutil.rmtree(target)
    partial.rename(target)
    return True


def _link_name(row: int, num_rows: int, name: bytes) -> bytes:
    prefix = f"{padded(row, num_rows)}_".encode()
    # a name that is too long keeps its end, where the file type is, from a whole letter on
    kept = name[-(LONGEST_NAME - len(prefix)) :]
    return prefix + (kept if kept == name else kept.lstrip(CONTINUATION_BYTES))


def _check_only_links(tree: Path) -> None:
    """Raise unless a tree holds folders and links alone: nothing is lost with such a tree."""
    if tree.is_symlink() or (tree.exists() and not tree.is_dir()):
        raise ValueError(f"{tree}: not a folder of clusters; move it away")
    for folder, _, names in os.walk(os.fsencode(tree)):
        for path in (os.path.join(folder, name) for name in names):
            if not os.path.islink(path):
                raise ValueError(
                    f"{printable(path)}: not a link; move it away, since {tree} is made anew"
                )
