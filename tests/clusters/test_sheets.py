"""Contact sheets show the nearest images, whole and in order."""

import os
from pathlib import Path

import numpy as np
import pytest
from cluster_samples import Colours, clusters_of
from PIL import Image

from ssl_platform import distributed
from ssl_platform.clusters.output import ClusterOutput
from ssl_platform.clusters.sheets import BACKGROUND, GAP, write_sheets

RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 160, 30), (40, 40, 200), (200, 200, 40)
SIDE = 16


def draw(folder: Path, dataset, clusters, *, images_per_sheet: int = 4) -> None:
    write_sheets(folder, dataset, clusters, images_per_sheet=images_per_sheet, thumbnail_side=SIDE)


def tile(path: Path, place: int, columns: int = 2) -> np.ndarray:
    """(SIDE, SIDE, 3) pixels of one place of a sheet."""
    row, column = divmod(place, columns)
    left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + GAP)
    with Image.open(path) as sheet:
        return np.asarray(sheet.crop((left, top, left + SIDE, top + SIDE))).astype(int)


def colours_of(path: Path, count: int) -> list[tuple[int, ...]]:
    """The known colour that is nearest to the middle of each of a sheet's first tiles."""
    middles = [tile(path, place)[SIDE // 2, SIDE // 2] for place in range(count)]
    known = (RED, GREEN, BLUE, YELLOW, BACKGROUND)
    return [min(known, key=lambda c: np.abs(middle - c).sum()) for middle in middles]


def test_sheets_show_the_nearest_first(tmp_path):
    dataset = Colours([RED, GREEN, BLUE, YELLOW, RED, GREEN])
    ids = [[0, 2], [0, 2], [0, 2], [0, 2], [2, 2], [-1, -1]]
    scores = [[0.2, 0.5], [0.9, 0.5], [-0.1, 0.5], [0.8, 0.7], [0.1, 0.1], [0, 0]]
    draw(tmp_path, dataset, clusters_of(ids, [12, 3], scores), images_per_sheet=3)
    assert dataset.num_reads == 3 + 1 + 3  # no more than are shown
    sheets = tmp_path / "sheets"
    assert colours_of(sheets / "0" / "00.jpg", 4) == [GREEN, YELLOW, RED, BACKGROUND]
    assert colours_of(sheets / "0" / "02.jpg", 2) == [RED, BACKGROUND]
    # ties in the order of the data set
    assert colours_of(sheets / "1" / "2.jpg", 4) == [YELLOW, RED, GREEN, BACKGROUND]
    written = sorted(str(path.relative_to(sheets)) for path in sheets.rglob("*.*"))
    assert written == ["0/00.jpg", "0/02.jpg", "1/2.jpg"]


def test_images_are_shown_whole(tmp_path):
    dataset = Colours([YELLOW] * 3, shapes=[(40, 20), (5, 10), (1, 3000)])
    draw(tmp_path, dataset, clusters_of([0, 0, 0], [2]))
    for place, (height, width) in enumerate([(16, 8), (8, 16), (1, 16)]):
        bright = tile(tmp_path / "sheets" / "0" / "0.jpg", place)[..., 0] > 100
        rows, columns = np.flatnonzero(bright.any(1)), np.flatnonzero(bright.any(0))
        assert abs(len(rows) - height) <= 2
        assert abs(len(columns) - width) <= 2
        assert abs(rows.mean() - 7.5) <= 1
        assert abs(columns.mean() - 7.5) <= 1


def test_an_image_that_cannot_be_read_is_a_crossed_grey_tile(tmp_path):
    draw(tmp_path, Colours([RED, None, BLUE]), clusters_of([0, 0, 0], [2]))
    pixels = tile(tmp_path / "sheets" / "0" / "0.jpg", 1)
    assert np.ptp(pixels.mean(axis=(0, 1))) < 15  # grey
    arm, between = pixels[SIDE // 4, SIDE // 4].mean(), pixels[SIDE // 2, 2].mean()
    assert arm > between + 15
    assert colours_of(tmp_path / "sheets" / "0" / "0.jpg", 3)[::2] == [RED, BLUE]


def test_ranks_share_the_sheets_of_one_process(tmp_path, monkeypatch):
    rng = np.random.default_rng(2)
    dataset = Colours([tuple(c) for c in rng.integers(0, 256, (60, 3)).tolist()])
    clusters = clusters_of(rng.integers(0, [6, 9], (60, 2)), [7, 9])
    written = []
    for rank, world_size in ((0, 1), (0, 2), (1, 2)):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr(distributed, "world_size", lambda size=world_size: size)
        folder = tmp_path / f"{rank}_of_{world_size}"
        draw(folder, dataset, clusters)
        written.append({p.relative_to(folder): p.read_bytes() for p in folder.rglob("*.jpg")})
    whole, first, second = written
    assert not first.keys() & second.keys()
    assert first | second == whole
    assert len(first) > 4 < len(second)


def test_a_cluster_that_became_empty_loses_its_sheet(tmp_path):
    draw(tmp_path, Colours([RED, BLUE]), clusters_of([0, 1], [3]))
    draw(tmp_path, Colours([RED, BLUE]), clusters_of([2, 1], [3]))
    assert sorted(os.listdir(tmp_path / "sheets" / "0")) == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("images", "side", "message"),
    [
        (0, 96, "images_per_sheet=0: at least 1"),
        (4, 7, "thumbnail_side=7: at least 8 pixels"),
        (10_000, 1000, "would be 100202 pixels wide, JPEG allows 65500"),
    ],
)
def test_sheets_that_cannot_be_are_refused(images, side, message):
    with pytest.raises(ValueError, match=message):
        ClusterOutput(symlinks=True, images_per_sheet=images, thumbnail_side=side)
