"""What is written about clusters says what was found, for any names, and harms nothing."""

import csv
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from ssl_platform.clusters.files import (
    BLOCK,
    GAP,
    SHEET_GROUND,
    Clusters,
    summarize,
    write_sheets,
    write_symlinks,
    write_tables,
)
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.sets.image_folder import ImageFolder

RED, GREEN, BLUE, YELLOW = (200, 30, 30), (30, 160, 30), (40, 40, 200), (200, 200, 40)
STRANGE = (b"a,b.png", b'"quoted".png', b"new\nline.png", b"\xff\xfe.png", "\u00e4 b.png".encode())
SIDE = 16
ONE_RANK = {"rank": 0, "world_size": 1}


class Colours(ImageDataset):
    """Images of one colour each, 20 x 20 or of ``shapes``; None cannot be read."""

    def __init__(self, colours, labels=None, shapes=None):
        self.colours, self.shapes = colours, shapes or [(20, 20)] * len(colours)
        self.labels = None if labels is None else np.array(labels)

    def __len__(self):
        return len(self.colours)

    def read(self, index):
        if self.colours[index] is None:
            raise UnreadableImage(self.describe(index), "not an image")
        return np.full((*self.shapes[index], 3), self.colours[index], np.uint8)

    def describe(self, index):
        return f"Colours[{index}]"


class Name(str):
    """Counts how many of its kind there are."""

    alive = most = 0

    def __init__(self, _):
        Name.alive += 1
        Name.most = max(Name.most, Name.alive)

    def __del__(self):
        Name.alive -= 1


class Many(ImageDataset):
    """200 000 images that count what is asked of them."""

    labels = None

    def __init__(self):
        self.reads = 0

    def __len__(self):
        return 200_000

    def read(self, index):
        self.reads += 1
        return np.full((4, 4, 3), index % 256, np.uint8)

    def describe(self, index):
        return Name(index)


def clusters_of(ids, num_clusters, scores=None, **options) -> Clusters:
    ids = np.array(ids, np.int32).reshape(len(ids), -1)
    scores = np.linspace(0.9, 0.1, ids.size) if scores is None else np.array(scores)
    scores = np.where(ids < 0, np.nan, scores.reshape(ids.shape)).astype(np.float32)
    known = {"seen": None, "training_ids": None, **options}
    return Clusters(ids, scores, scores / 3, num_clusters, **known)


def many_clusters(num_clusters: int) -> Clusters:
    rng = np.random.default_rng(0)
    return clusters_of(rng.integers(0, num_clusters, 200_000), [num_clusters])


def folder_of_files(root: Path, *names: bytes) -> ImageFolder:
    root.mkdir()
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", (3, 2), (number, 0, 0)).save(file, "PNG")
    return ImageFolder(path=str(root))


def links_in(folder: Path) -> dict[bytes, bytes]:
    """Relative path of each file below ``folder`` and where it points to; all must be links."""
    root = os.fsencode(folder)
    paths = [os.path.join(at, name) for at, _, names in os.walk(root) for name in names]
    return {os.path.relpath(path, root): os.readlink(path) for path in paths}


def tile(sheet: Image.Image, place: int, columns: int) -> np.ndarray:
    """(SIDE, SIDE, 3) pixels of one place of a sheet."""
    row, column = divmod(place, columns)
    left, top = GAP + column * (SIDE + GAP), GAP + row * (SIDE + GAP)
    return np.asarray(sheet.crop((left, top, left + SIDE, top + SIDE))).astype(int)


def colours_of(path: Path, columns: int, count: int) -> list[tuple[int, ...]]:
    """The known colour that is nearest to the middle of each of a sheet's first tiles."""
    with Image.open(path) as sheet:
        middles = [tile(sheet, i, columns)[SIDE // 2, SIDE // 2] for i in range(count)]
    known = (RED, GREEN, BLUE, YELLOW, SHEET_GROUND)
    return [min(known, key=lambda c: np.abs(middle - c).sum()) for middle in middles]


def test_the_tables_hold_every_column(tmp_path):
    clusters = clusters_of(
        [[0, 3], [-1, -1], [1, 0]],
        [2, 4],
        [[0.5, 0.25], [0, 0], [1 / 3, 1e-8]],
        seen=np.array([True, False, True]),
        training_ids=np.array([[0, 2], [-1, -1], [-1, 3]], np.int32),
    )
    write_tables(tmp_path, Colours([RED, None, BLUE], labels=[5, -1, 0]), clusters)
    table = parquet.read_table(tmp_path / "clusters.parquet")
    third = np.float32(1 / 3)
    assert table.to_pydict() == {
        "image": ["Colours[0]", "Colours[1]", "Colours[2]"],
        "cluster_0": [0, None, 1],
        "cluster_1": [3, None, 0],
        "score_0": [0.5, None, third],
        "score_1": [0.25, None, np.float32(1e-8)],
        "margin_0": [np.float32(0.5 / 3), None, third / 3],
        "margin_1": [np.float32(0.25 / 3), None, np.float32(1e-8) / 3],
        "seen": [True, False, True],
        "training_cluster_0": [0, None, None],
        "training_cluster_1": [2, None, 3],
        "label": [5, None, 0],
    }
    as_csv = arrow_csv.read_csv(
        tmp_path / "clusters.csv",
        convert_options=arrow_csv.ConvertOptions(column_types=table.schema),
    )
    assert as_csv.equals(table)
    lines = (tmp_path / "clusters.csv").read_text().splitlines()
    assert lines[2] == '"Colours[1]",,,,,,,false,,,'


def test_what_is_not_known_has_no_column(tmp_path):
    write_tables(tmp_path, Colours([RED, BLUE], labels=[-1, -1]), clusters_of([0, 0], [1]))
    table = parquet.read_table(tmp_path / "clusters.parquet")
    assert table.column_names == ["image", "cluster_0", "score_0", "margin_0"]


def test_a_margin_to_nothing_is_null(tmp_path):
    clusters = clusters_of([0, 0], [1])
    clusters.margins[:] = np.inf
    write_tables(tmp_path, Colours([RED, BLUE]), clusters)
    assert parquet.read_table(tmp_path / "clusters.parquet")["margin_0"].to_pylist() == [None, None]


def test_strange_names_are_one_field_each(tmp_path):
    dataset = folder_of_files(tmp_path / "images", *STRANGE)
    write_tables(tmp_path, dataset, clusters_of(range(5), [5]))
    expected = [dataset.describe(i) for i in range(5)]
    assert parquet.read_table(tmp_path / "clusters.parquet")["image"].to_pylist() == expected
    # as any other reader of CSV would
    with open(tmp_path / "clusters.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["image"] for row in rows] == expected
    assert [row["cluster_0"] for row in rows] == list("01234")


def test_a_long_table_is_whole_and_its_names_are_never_all_there(tmp_path):
    clusters = many_clusters(3000)
    Name.alive = Name.most = 0
    write_tables(tmp_path, Many(), clusters)
    assert Name.most <= BLOCK < len(Many())
    for table in (
        parquet.read_table(tmp_path / "clusters.parquet"),
        arrow_csv.read_csv(tmp_path / "clusters.csv"),
    ):
        assert (table["image"].to_numpy().astype(int) == np.arange(200_000)).all()
        assert (table["cluster_0"].to_numpy() == clusters.ids[:, 0]).all()
        assert (table["score_0"].to_numpy().astype(np.float32) == clusters.scores[:, 0]).all()


def test_a_table_that_fails_leaves_the_one_before(tmp_path):
    write_tables(tmp_path, Colours([RED]), clusters_of([0], [1]))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("clusters.*")}
    assert sorted(before) == ["clusters.csv", "clusters.parquet"]

    class Failing(Colours):
        def describe(self, index):
            raise OSError

    with pytest.raises(OSError):
        write_tables(tmp_path, Failing([RED, BLUE]), clusters_of([0, 0], [1]))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("clusters.*")} == before


def test_links_lead_to_the_images_of_each_cluster(tmp_path, monkeypatch):
    folder_of_files(tmp_path / "images", *STRANGE)
    monkeypatch.chdir(tmp_path)
    dataset = ImageFolder(path="images")
    clusters = clusters_of([[10, 0], [2, 1], [-1, -1], [10, 1], [2, 0]], [12, 2])
    assert write_symlinks(tmp_path, dataset, clusters)
    files = [os.path.join(os.fsencode(tmp_path), dataset.files[i]) for i in range(5)]
    base = [os.path.basename(file) for file in files]
    assert links_in(tmp_path / "by_cluster") == {
        b"0/10/0_" + base[0]: files[0],
        b"0/02/1_" + base[1]: files[1],
        b"0/10/3_" + base[3]: files[3],
        b"0/02/4_" + base[4]: files[4],
        b"1/0/0_" + base[0]: files[0],
        b"1/1/1_" + base[1]: files[1],
        b"1/1/3_" + base[3]: files[3],
        b"1/0/4_" + base[4]: files[4],
    }
    linked = ImageFolder(path=str(tmp_path / "by_cluster" / "0"))
    pixels = [linked.read(i)[0, 0, 0] for i in range(4)]
    assert pixels == [dataset.read(i)[0, 0, 0] for i in (1, 4, 0, 3)]


def test_only_files_have_links(tmp_path):
    assert not write_symlinks(tmp_path, Colours([RED]), clusters_of([0], [1]))
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_still_has_a_link(tmp_path):
    name = b"x" * 251 + b".png"
    dataset = folder_of_files(tmp_path / "images", name)
    write_symlinks(tmp_path, dataset, clusters_of([0], [1]))
    assert links_in(tmp_path / "by_cluster") == {b"0/0/0_" + name[2:]: dataset.files[0]}


def test_equal_names_of_two_folders_have_a_link_each(tmp_path):
    dataset = folder_of_files(tmp_path / "images", b"a/1.png", b"b/1.png")
    write_symlinks(tmp_path, dataset, clusters_of([0, 0], [1]))
    assert set(links_in(tmp_path / "by_cluster")) == {b"0/0/0_1.png", b"0/0/1_1.png"}


def test_the_tree_is_made_anew_and_what_it_points_to_stays(tmp_path):
    dataset = folder_of_files(tmp_path / "images", b"a/1.png", b"a/2.png", b"b/3.png")
    before = {path: path.read_bytes() for path in (tmp_path / "images").rglob("*.png")}
    write_symlinks(tmp_path, dataset, clusters_of([0, 0, 4], [5]))
    # a link to a folder, as a user might add
    (tmp_path / "by_cluster" / "0" / "0" / "linked").symlink_to(tmp_path / "images" / "a")
    # what a run that was killed leaves
    (tmp_path / ".partial_by_cluster" / "0").mkdir(parents=True)
    write_symlinks(tmp_path, dataset, clusters_of([1, 4, 1], [5]))
    links = links_in(tmp_path / "by_cluster")
    assert set(links) == {b"0/1/0_1.png", b"0/4/1_2.png", b"0/1/2_3.png"}
    assert sorted(path.name for path in (tmp_path / "by_cluster" / "0").iterdir()) == ["1", "4"]
    assert {path: path.read_bytes() for path in (tmp_path / "images").rglob("*.png")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by_cluster", "images"]


def test_a_tree_that_holds_files_is_left_alone(tmp_path):
    dataset = folder_of_files(tmp_path / "images", b"1.png")
    clusters = clusters_of([0], [1])
    write_symlinks(tmp_path, dataset, clusters)
    notes = tmp_path / "by_cluster" / "0" / "0" / "notes.txt"
    notes.write_text("mine")
    with pytest.raises(ValueError, match=r"notes\.txt: not a link; move it away"):
        write_symlinks(tmp_path, dataset, clusters)
    assert notes.read_text() == "mine"
    assert len(os.listdir(notes.parent)) == 2


def test_a_tree_that_is_a_link_is_left_alone(tmp_path):
    dataset = folder_of_files(tmp_path / "images", b"1.png")
    (tmp_path / "by_cluster").symlink_to(tmp_path / "images")
    with pytest.raises(ValueError, match=r"by_cluster: not a folder of clusters; move it away"):
        write_symlinks(tmp_path, dataset, clusters_of([0], [1]))
    assert (tmp_path / "images" / "1.png").exists()


def test_sheets_show_the_nearest_first(tmp_path):
    dataset = Colours([RED, GREEN, BLUE, YELLOW, RED, GREEN])
    ids = [[0, 2], [0, 2], [0, 2], [0, 2], [2, 2], [-1, -1]]
    scores = [[0.2, 0.5], [0.9, 0.5], [-0.1, 0.5], [0.8, 0.7], [0.1, 0.1], [0, 0]]
    clusters = clusters_of(ids, [12, 3], scores)
    write_sheets(tmp_path, dataset, clusters, images_per_sheet=3, thumbnail_side=SIDE, **ONE_RANK)
    sheets = tmp_path / "sheets"
    assert colours_of(sheets / "0" / "00.jpg", 2, 4) == [GREEN, YELLOW, RED, SHEET_GROUND]
    assert colours_of(sheets / "0" / "02.jpg", 2, 2) == [RED, SHEET_GROUND]
    # ties in the order of the data set
    assert colours_of(sheets / "1" / "2.jpg", 2, 4) == [YELLOW, RED, GREEN, SHEET_GROUND]
    found = sorted(str(path.relative_to(sheets)) for path in sheets.rglob("*.*"))
    assert found == ["0/00.jpg", "0/02.jpg", "1/2.jpg"]


def test_the_order_is_that_of_sorted_for_any_scores(tmp_path):
    rng = np.random.default_rng(1)
    palette = (RED, GREEN, BLUE, YELLOW)
    colours = [palette[i] for i in rng.integers(0, 4, 200)]
    ids, scores = rng.integers(0, 5, 200), rng.integers(-4, 5, 200) / 4
    write_sheets(
        tmp_path,
        Colours(colours),
        clusters_of(ids, [5], scores),
        images_per_sheet=100,
        thumbnail_side=SIDE,
        **ONE_RANK,
    )
    for cluster in range(5):
        nearest = sorted(np.flatnonzero(ids == cluster), key=lambda i: (-scores[i], i))
        shown = colours_of(tmp_path / "sheets" / "0" / f"{cluster}.jpg", 10, len(nearest))
        assert shown == [colours[i] for i in nearest]


def test_images_are_shown_whole(tmp_path):
    shapes = [(40, 20), (5, 10), (1, 3000)]
    dataset = Colours([YELLOW] * 3, shapes=shapes)
    clusters = clusters_of([0, 0, 0], [1])
    write_sheets(tmp_path, dataset, clusters, images_per_sheet=4, thumbnail_side=SIDE, **ONE_RANK)
    with Image.open(tmp_path / "sheets" / "0" / "0.jpg") as sheet:
        bright = [tile(sheet, i, 2)[..., 0] > 100 for i in range(3)]
    for lit, (height, width) in zip(bright, [(16, 8), (8, 16), (1, 16)], strict=True):
        rows, columns = np.flatnonzero(lit.any(1)), np.flatnonzero(lit.any(0))
        assert abs(len(rows) - height) <= 2
        assert abs(len(columns) - width) <= 2
        assert abs(rows.mean() - 7.5) <= 1
        assert abs(columns.mean() - 7.5) <= 1


def test_a_image_that_cannot_be_read_is_a_crossed_grey_tile(tmp_path):
    dataset = Colours([RED, None, BLUE])
    clusters = clusters_of([0, 0, 0], [1])
    write_sheets(tmp_path, dataset, clusters, images_per_sheet=4, thumbnail_side=SIDE, **ONE_RANK)
    with Image.open(tmp_path / "sheets" / "0" / "0.jpg") as sheet:
        pixels = tile(sheet, 1, 2)
    assert np.ptp(pixels.mean(axis=(0, 1))) < 15  # grey
    arm, between = pixels[SIDE // 4, SIDE // 4].mean(), pixels[SIDE // 2, 2].mean()
    assert arm > between + 15
    assert colours_of(tmp_path / "sheets" / "0" / "0.jpg", 2, 3)[::2] == [RED, BLUE]


def test_ranks_share_the_sheets_of_one_process(tmp_path):
    rng = np.random.default_rng(2)
    dataset = Colours([tuple(c) for c in rng.integers(0, 256, (60, 3)).tolist()])
    clusters = clusters_of(rng.integers(0, [6, 9], (60, 2)), [7, 9])
    options = {"images_per_sheet": 4, "thumbnail_side": SIDE}
    parts = []
    for name, world_size in (("one", 1), ("two", 2)):
        for rank in range(world_size):
            place = tmp_path / f"{name}{rank}"
            write_sheets(place, dataset, clusters, rank=rank, world_size=world_size, **options)
            parts.append({str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*.jpg")})
    whole, first, second = parts
    assert not first.keys() & second.keys()
    assert first | second == whole
    assert len(first) > 4 < len(second)


def test_no_more_images_are_read_than_are_shown(tmp_path):
    dataset, clusters = Many(), many_clusters(40)
    write_sheets(tmp_path, dataset, clusters, images_per_sheet=9, thumbnail_side=4, **ONE_RANK)
    assert dataset.reads == 40 * 9


def test_a_cluster_that_became_empty_loses_its_sheet(tmp_path):
    dataset, options = Colours([RED, BLUE]), {"images_per_sheet": 4, "thumbnail_side": SIDE}
    write_sheets(tmp_path, dataset, clusters_of([0, 1], [3]), **options, **ONE_RANK)
    write_sheets(tmp_path, dataset, clusters_of([2, 1], [3]), **options, **ONE_RANK)
    assert sorted(os.listdir(tmp_path / "sheets" / "0")) == ["1.jpg", "2.jpg"]


@pytest.mark.parametrize(
    ("images", "side", "message"),
    [
        (0, 96, "images_per_sheet=0: must be at least 1"),
        (4, 0, "thumbnail_side=0: must be at least 1"),
        (10_000, 1000, "would be 100202 pixels wide, JPEG allows 65500"),
    ],
)
def test_sheets_that_cannot_be_are_refused(tmp_path, images, side, message):
    with pytest.raises(ValueError, match=message):
        write_sheets(
            tmp_path,
            Colours([RED]),
            clusters_of([0], [1]),
            images_per_sheet=images,
            thumbnail_side=side,
            **ONE_RANK,
        )


def test_the_summary_worked_by_hand():
    clusters = clusters_of(
        [[0, 1], [0, 1], [2, 0], [-1, -1], [2, 0], [2, 0]],
        [4, 2],
        [[0.5, 1], [0.7, 1], [0.1, 1], [0, 0], [0.2, 1], [0.5, 1]],
        seen=np.array([True, True, False, True, False, False]),
        training_ids=np.array([[0, -1], [1, -1], [-1, -1], [2, -1], [2, -1], [-1, -1]]),
    )
    found = summarize(Colours([RED] * 6, labels=[3, 3, 4, 4, 4, -1]), clusters)
    first, second = found.pop("sets")
    assert found == {"images": 6, "unreadable": 1, "seen": 3, "labelled": 5}
    halves = -(2 / 5 * math.log(2 / 5) + 3 / 5 * math.log(3 / 5))
    perfect = {"nmi": 1, "ari": 1, "purity": 1, "hungarian_accuracy": 1}
    sizes = {"images": 5, "used": 2, "size_min": 2, "size_median": 2.5, "size_max": 3}
    assert first == pytest.approx(
        sizes
        | perfect
        | {"clusters": 4, "empty": 2, "size_entropy": halves / math.log(4)}
        | {"mean_score": 0.4, "training_agreement": 2 / 3}
    )
    assert second == pytest.approx(
        sizes
        | perfect
        | {"clusters": 2, "empty": 0, "size_entropy": halves / math.log(2), "mean_score": 1}
    )


def test_a_summary_without_labels_has_no_scores_and_is_json():
    for labels in (None, [-1, -1]):
        found = summarize(Colours([RED, BLUE], labels=labels), clusters_of([0, 0], [1]))
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert found.keys() == {"images", "unreadable", "sets"}
        assert not found["sets"][0].keys() & {"nmi", "ari", "purity", "training_agreement"}
        assert found["sets"][0]["size_entropy"] == 1
