"""Contact sheets: the images of each cluster that are nearest to its prototype."""

import math
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from tqdm import tqdm

from ssl_platform import distributed
from ssl_platform.clusters.nearest import Clusters
from ssl_platform.console.working import counted
from ssl_platform.data.contract import read_image
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.shown import as_rgb
from ssl_platform.files import replacing

GAP = 2  # pixels between thumbnails
LARGEST_JPEG = 65_500  # pixels a side
BACKGROUND = (24, 24, 27)
UNREADABLE_BACKGROUND, UNREADABLE_CROSS = (113, 113, 122), (161, 161, 170)


def check_sheet_size(images_per_sheet: int, thumbnail_side: int) -> None:
    """Raise unless such a sheet can be a JPEG.

    Raises:
        ValueError: there would be nothing on it, or it would be too large.
    """
    if images_per_sheet < 1:
        raise ValueError(f"images_per_sheet={images_per_sheet}: at least 1")
    if thumbnail_side < 8:
        raise ValueError(f"thumbnail_side={thumbnail_side}: at least 8 pixels")
    width = _length(num_columns_of(images_per_sheet), thumbnail_side)
    if width > LARGEST_JPEG:
        raise ValueError(
            f"images_per_sheet={images_per_sheet}, thumbnail_side={thumbnail_side}: a sheet would "
            f"be {width} pixels wide, JPEG allows {LARGEST_JPEG}"
        )


def write_sheets(
    folder: Path,
    dataset: ImageDataset,
    clusters: Clusters,
    *,
    images_per_sheet: int,
    thumbnail_side: int,
) -> None:
    """Draw ``sheets/<set>/<cluster>.jpg``: the images nearest to the prototype, nearest first.

    Row by row from the top left; ties in the order of the data set. Each image is shown whole, in a
    square, in the colours of `as_rgb`; an image that cannot be read is a crossed grey square. Empty
    clusters have no sheet. Each rank draws its part of the clusters; only the images of one sheet
    are in memory.

    Args:
        images_per_sheet: at most.
        thumbnail_side: of an image's square, in pixels.
    """
    rank, world_size = distributed.rank(), distributed.world_size()
    for number, num_clusters in enumerate(clusters.num_clusters):
        ids, scores = clusters.ids[:, number], clusters.scores[:, number]
        order = np.lexsort((-scores, ids))  # stable: ties stay in the order of the data set
        ends = np.searchsorted(ids[order], np.arange(num_clusters + 1))
        (folder / "sheets" / str(number)).mkdir(parents=True, exist_ok=True)
        mine = range(rank, num_clusters, world_size)
        name = f"sheets of set {number}"
        bar = {"desc": name, "disable": None if rank == 0 else True}  # None: only on a terminal
        for cluster in counted(tqdm(mine, **bar), name, len(mine), "clusters"):
            path = folder / "sheets" / f"{clusters.name(number, cluster)}.jpg"
            nearest = order[ends[cluster] : ends[cluster + 1]][:images_per_sheet].tolist()
            if not nearest:
                path.unlink(missing_ok=True)  # of an earlier run
                continue
            sheet = _draw_sheet(dataset, nearest, num_columns_of(images_per_sheet), thumbnail_side)
            with replacing(path) as partial:
                sheet.save(partial, "JPEG", quality=90)


def num_columns_of(images_per_sheet: int) -> int:
    """Thumbnails of a sheet side by side."""
    return math.isqrt(images_per_sheet - 1) + 1


def _length(num_thumbnails: int, side: int) -> int:
    """Pixels that so many thumbnails take in a row or column, up to where the next begins."""
    return num_thumbnails * (side + GAP) + GAP


def _draw_sheet(
    dataset: ImageDataset, indices: list[int], num_columns: int, side: int
) -> Image.Image:
    num_rows = -(-len(indices) // num_columns)
    sheet = Image.new("RGB", (_length(num_columns, side), _length(num_rows, side)), BACKGROUND)
    for place, index in enumerate(indices):
        drawn = thumbnail(dataset, index, side)
        row, column = divmod(place, num_columns)
        left = _length(column, side) + (side - drawn.width) // 2
        top = _length(row, side) + (side - drawn.height) // 2
        sheet.paste(drawn, (left, top))
    return sheet


def thumbnail(dataset: ImageDataset, index: int, side: int) -> Image.Image:
    """Image ``index``, its longer side scaled to ``side``; crossed out where it cannot be read."""
    try:
        image = Image.fromarray(as_rgb(read_image(dataset, index)))
    except UnreadableImage:
        return _crossed_square(side)
    longest = max(image.size)
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


def _crossed_square(side: int) -> Image.Image:
    square = Image.new("RGB", (side, side), UNREADABLE_BACKGROUND)
    draw, thickness = ImageDraw.Draw(square), max(1, side // 24)
    draw.line((0, 0, side, side), UNREADABLE_CROSS, thickness)
    draw.line((0, side, side, 0), UNREADABLE_CROSS, thickness)
    return square
