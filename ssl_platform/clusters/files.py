"""What is written about clusters: tables, folders of links and contact sheets.

All of it goes to one folder, which exists::

    clusters.csv, clusters.parquet    one row per image, in the order of the data set
    by_cluster/0/0017/                symbolic links to the images of cluster 17 of set 0
    sheets/0/0017.jpg                 the images of that cluster that are nearest to its prototype
    index.html                        shows the sheets, from cluster_page.py

A model may have several sets of prototypes, each with clusters of its own; "0" is the first set.
"""

import math
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from tqdm import tqdm

from ssl_platform.data.contract import read_image
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decoding.decode import printable
from ssl_platform.data.sets.image_folder import ImageFiles
from ssl_platform.files import replacing
from ssl_platform.ops.entropy import entropy
from ssl_platform.ops.partitions import (
    adjusted_rand_index,
    hungarian_accuracy,
    normalized_mutual_information,
    purity,
)

BLOCK = 50_000  # rows whose names are in memory at once
LONGEST_NAME = 255  # bytes, on every file system in use
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))  # of a letter of UTF-8 after its first
GAP = 2  # pixels between thumbnails
LARGEST_JPEG = 65_500  # pixels a side
SHEET_GROUND = (24, 24, 27)
UNREADABLE_GROUND, UNREADABLE_CROSS = (113, 113, 122), (161, 161, 170)


@dataclass(frozen=True, eq=False)
class Clusters:
    """The clusters of N images by each of H sets of prototypes."""

    ids: np.ndarray  # (N, H) int32, the nearest prototype; -1 for an image that cannot be read
    scores: np.ndarray  # (N, H) float32, cosine of the embedding and that prototype; NaN for -1
    margins: np.ndarray  # (N, H) float32, score less that of the second nearest; NaN if none
    num_clusters: list[int]  # of each set
    seen: np.ndarray | None  # (N,) bool, whether the model was trained on it; None: not known
    training_ids: np.ndarray | None  # (N, H) int32, its last target in training, -1: none

    def sizes(self, number: int) -> np.ndarray:
        """(K,) int64 numbers of images in the clusters of set ``number``."""
        ids = self.ids[:, number]
        return np.bincount(ids[ids >= 0], minlength=self.num_clusters[number])

    def name(self, number: int, cluster: int) -> str:
        """What a cluster's files and folders are called: ``0/0017``."""
        return f"{number}/{_padded(cluster, self.num_clusters[number])}"


def summarize(dataset: ImageDataset, clusters: Clusters) -> dict[str, Any]:
    """Sizes of the clusters and, with labels, how well they agree with the classes.

    Returns:
        ``images``; ``unreadable``; ``seen`` if known; ``labelled`` if any is; and ``sets``, one
        dictionary each: ``images`` that have a cluster, ``clusters``, ``used``, ``empty``,
        ``size_min``, ``size_median`` and ``size_max`` of the used clusters, ``size_entropy`` over
        ln K (1: all equally large), ``mean_score``; ``training_agreement``, the part of the images
        with a target whose cluster it is; and if any image is labelled ``nmi``, ``ari``,
        ``purity`` and ``hungarian_accuracy``.
    """
    labels = labels_of(dataset)
    found: dict[str, Any] = {
        "images": len(clusters.ids),
        "unreadable": int((clusters.ids[:, 0] < 0).sum()),
    }
    if clusters.seen is not None:
        found["seen"] = int(clusters.seen.sum())
    if labels is not None:
        found["labelled"] = int((labels >= 0).sum())
    found["sets"] = [
        _summary_of_set(clusters, number, labels) for number in range(len(clusters.num_clusters))
    ]
    return found


def write_tables(folder: Path, dataset: ImageDataset, clusters: Clusters) -> None:
    """Write ``clusters.csv`` and ``clusters.parquet``, of equal content, a block at a time.

    One row per image, in the order of the data set. Columns: ``image`` (its path, or what else
    says where it is from; what cannot be printed is escaped), of files ``uri`` (what to open them
    by: `data.sets.paths`), ``cluster_<set>``, ``score_<set>`` and ``margin_<set>``, then,
    if known, ``seen``, ``training_cluster_<set>`` and ``label``. What an image does not have is
    null, in CSV empty.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    columns, are_files = _columns(dataset, clusters), dataset.uri(0) is not None

    def rows(start: int, stop: int) -> Any:
        names = {"image": [dataset.describe(index) for index in range(start, stop)]}
        if are_files:
            names["uri"] = [dataset.uri(index) or "" for index in range(start, stop)]
        texts = {name: pa.array(values, pa.string()) for name, values in names.items()}
        arrays = {name: _nullable(values[start:stop]) for name, values in columns.items()}
        return pa.record_batch(texts | arrays)

    schema = rows(0, 0).schema
    with (
        replacing(folder / "clusters.csv") as csv_path,
        replacing(folder / "clusters.parquet") as parquet_path,
        csv.CSVWriter(csv_path, schema) as csv_file,
        parquet.ParquetWriter(parquet_path, schema) as parquet_file,
    ):
        for start, stop in _blocks(len(dataset)):
            batch = rows(start, stop)
            csv_file.write_batch(batch)
            parquet_file.write_batch(batch)


def write_symlinks(folder: Path, dataset: ImageDataset, clusters: Clusters) -> bool:
    """Link ``by_cluster/<set>/<cluster>/<row>_<file name>`` to each image of a set of files.

    A tree from before is replaced; nothing that a link points to is touched. Empty clusters have no
    folder.

    Returns:
        Whether it was done: images that are not files have nothing to link to.

    Raises:
        ValueError: something else than folders and links lies in the tree.
    """
    if not isinstance(dataset, ImageFiles):
        return False
    target, partial = folder / "by_cluster", folder / ".partial_by_cluster"
    for tree in (target, partial):
        _check_only_links(tree)
    _remove(partial)
    for number in range(len(clusters.num_clusters)):
        for cluster in np.flatnonzero(clusters.sizes(number)).tolist():
            (partial / clusters.name(number, cluster)).mkdir(parents=True)
    # not abspath: it takes "link/.." for the folder of the link
    here, root = os.getcwdb(), os.fsencode(partial)
    for start, stop in _blocks(len(dataset)):
        for row, ids in enumerate(clusters.ids[start:stop].tolist(), start):
            source = os.path.join(here, dataset.files[row])
            name_of_link = _link_name(row, len(dataset), os.path.basename(source))
            for number, cluster in enumerate(ids):
                if cluster >= 0:
                    place = os.fsencode(clusters.name(number, cluster))
                    os.symlink(source, os.path.join(root, place, name_of_link))
    _remove(target)
    partial.rename(target)
    return True


def write_sheets(
    folder: Path,
    dataset: ImageDataset,
    clusters: Clusters,
    *,
    images_per_sheet: int,
    thumbnail_side: int,
    rank: int,
    world_size: int,
) -> None:
    """Draw ``sheets/<set>/<cluster>.jpg``: the images nearest to the prototype, nearest first.

    Row by row from the top left; ties in the order of the data set. Each image is shown whole, in a
    square; an image that cannot be read is a crossed grey square. Empty clusters have no sheet.
    Each of ``world_size`` ranks draws its part of the clusters; only the images of one sheet are in
    memory.

    Args:
        images_per_sheet: at most.
        thumbnail_side: of an image's square, in pixels.

    Raises:
        ValueError: an argument below 1, or a sheet that is too large for JPEG.
    """
    for name, value in (("images_per_sheet", images_per_sheet), ("thumbnail_side", thumbnail_side)):
        if value < 1:
            raise ValueError(f"{name}={value}: must be at least 1")
    num_columns = math.isqrt(images_per_sheet - 1) + 1
    width = num_columns * (thumbnail_side + GAP) + GAP
    if width > LARGEST_JPEG:
        raise ValueError(
            f"images_per_sheet={images_per_sheet}, thumbnail_side={thumbnail_side}: a sheet would "
            f"be {width} pixels wide, JPEG allows {LARGEST_JPEG}"
        )
    for number, num_clusters in enumerate(clusters.num_clusters):
        order, ends = _nearest_first(
            clusters.ids[:, number], clusters.scores[:, number], num_clusters
        )
        (folder / "sheets" / str(number)).mkdir(parents=True, exist_ok=True)
        for cluster in tqdm(
            range(rank, num_clusters, world_size),
            desc=f"sheets of set {number}",
            disable=None if rank == 0 else True,  # None: only on a terminal
        ):
            path = folder / "sheets" / f"{clusters.name(number, cluster)}.jpg"
            members = order[ends[cluster] : ends[cluster + 1]][:images_per_sheet].tolist()
            if not members:
                path.unlink(missing_ok=True)  # of an earlier run
                continue
            sheet = _draw_sheet(dataset, members, num_columns, thumbnail_side)
            with replacing(path) as partial:
                sheet.save(partial, "JPEG", quality=90)


def labels_of(dataset: ImageDataset) -> np.ndarray | None:
    """(N,) classes; None when no image has one."""
    labels = dataset.labels
    return labels if labels is not None and (labels >= 0).any() else None


def _summary_of_set(clusters: Clusters, number: int, labels: np.ndarray | None) -> dict[str, Any]:
    ids, num_clusters = clusters.ids[:, number], clusters.num_clusters[number]
    sizes = clusters.sizes(number)
    used = sizes[sizes > 0]
    size_entropy = float(entropy(torch.from_numpy(sizes / sizes.sum())))
    found = {
        "images": int(sizes.sum()),
        "clusters": num_clusters,
        "used": len(used),
        "empty": num_clusters - len(used),
        "size_min": int(used.min()),
        "size_median": float(np.median(used)),
        "size_max": int(used.max()),
        "size_entropy": size_entropy / math.log(num_clusters) if num_clusters > 1 else 1.0,
        "mean_score": float(clusters.scores[ids >= 0, number].mean(dtype=np.float64)),
    }
    if clusters.training_ids is not None:
        targets = clusters.training_ids[:, number]
        both = (targets >= 0) & (ids >= 0)
        if both.any():
            found["training_agreement"] = float((targets == ids)[both].mean())
    if labels is not None:
        found["nmi"] = normalized_mutual_information(ids, labels)
        found["ari"] = adjusted_rand_index(ids, labels)
        found["purity"] = purity(ids, labels)
        found["hungarian_accuracy"] = hungarian_accuracy(ids, labels)
    return found


def _columns(dataset: ImageDataset, clusters: Clusters) -> dict[str, np.ndarray]:
    """(N,) values of each column but the first."""
    per_set = {"cluster": clusters.ids, "score": clusters.scores, "margin": clusters.margins}
    columns = {f"{k}_{h}": v[:, h] for k, v in per_set.items() for h in range(v.shape[1])}
    if clusters.seen is not None:
        columns["seen"] = clusters.seen
    if clusters.training_ids is not None:
        for number, ids in enumerate(clusters.training_ids.T):
            columns[f"training_cluster_{number}"] = ids
    labels = labels_of(dataset)
    if labels is not None:
        columns["label"] = labels
    return columns


def _nullable(values: np.ndarray) -> Any:
    """An Arrow array in which negative integers and what is not a finite number are null."""
    import pyarrow as pa

    if values.dtype == bool:
        return pa.array(values)
    return pa.array(values, mask=values < 0 if values.dtype.kind == "i" else ~np.isfinite(values))


def _blocks(num_rows: int) -> Iterator[tuple[int, int]]:
    for start in range(0, num_rows, BLOCK):
        yield start, min(start + BLOCK, num_rows)


def _padded(number: int, count: int) -> str:
    """``number`` with as many digits as the largest below ``count``."""
    return f"{number:0{len(str(count - 1))}d}"


def _link_name(row: int, num_rows: int, name: bytes) -> bytes:
    prefix = f"{_padded(row, num_rows)}_".encode()
    # its end is kept, which tells the file type, without half a letter of UTF-8 at its start
    kept = name[-(LONGEST_NAME - len(prefix)) :]
    return prefix + (kept if kept == name else kept.lstrip(CONTINUATION_BYTES))


def _check_only_links(tree: Path) -> None:
    """Make sure that a tree is one of folders and links: then nothing is lost with it."""
    if tree.is_symlink() or (tree.exists() and not tree.is_dir()):
        raise ValueError(f"{tree}: not a folder of clusters; move it away")
    for folder, _, names in os.walk(os.fsencode(tree)):
        for name in names:
            path = os.path.join(folder, name)
            if not os.path.islink(path):
                raise ValueError(
                    f"{printable(path)}: not a link; move it away, since {tree} is made anew"
                )


def _remove(tree: Path) -> None:
    if tree.exists():
        shutil.rmtree(tree)


def _nearest_first(
    ids: np.ndarray, scores: np.ndarray, num_clusters: int
) -> tuple[np.ndarray, np.ndarray]:
    """Images by cluster and, within it, by falling score.

    Returns:
        (N,) positions and (num_clusters + 1,) where each cluster begins among them and, last, where
        all end.
    """
    order = np.lexsort((-scores, ids))  # stable: ties stay in the order of the data set
    return order, np.searchsorted(ids[order], np.arange(num_clusters + 1))


def _draw_sheet(
    dataset: ImageDataset, members: list[int], num_columns: int, side: int
) -> Image.Image:
    pitch = side + GAP
    num_rows = -(-len(members) // num_columns)
    sheet = Image.new("RGB", (num_columns * pitch + GAP, num_rows * pitch + GAP), SHEET_GROUND)
    for place, index in enumerate(members):
        thumbnail = _thumbnail(dataset, index, side)
        row, column = divmod(place, num_columns)
        left = GAP + column * pitch + (side - thumbnail.width) // 2
        top = GAP + row * pitch + (side - thumbnail.height) // 2
        sheet.paste(thumbnail, (left, top))
    return sheet


def _thumbnail(dataset: ImageDataset, index: int, side: int) -> Image.Image:
    """Image ``index``, its longer side scaled to ``side``."""
    try:
        image = Image.fromarray(read_image(dataset, index))
    except UnreadableImage:
        return _crossed(side)
    longest = max(image.size)
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _crossed(side: int) -> Image.Image:
    tile = Image.new("RGB", (side, side), UNREADABLE_GROUND)
    draw = ImageDraw.Draw(tile)
    thickness = max(1, side // 24)
    draw.line((0, 0, side, side), UNREADABLE_CROSS, thickness)
    draw.line((0, side, side, 0), UNREADABLE_CROSS, thickness)
    return tile
