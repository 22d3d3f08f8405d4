"""Tables and links are right for any file names, and harm nothing."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from cluster_samples import Colours, clusters_of
from PIL import Image
from pyarrow import csv as arrow_csv
from pyarrow import parquet

from ssl_platform.clusters.files import BLOCK, write_symlinks, write_tables
from ssl_platform.data.sets.image_folder import ImageFolder

STRANGE = (b"a,b.png", b'"quoted".png', b"new\nline.png", b"\xff\xfe.png", "\u00e4 b.png".encode())


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


def test_the_tables_hold_every_column(tmp_path):
    clusters = clusters_of(
        [[0, 3], [-1, -1], [1, 0]],
        [2, 4],
        [[0.5, 0.25], [0, 0], [1 / 3, 1e-8]],
        seen=np.array([True, False, True]),
        training_ids=np.array([[0, 2], [-1, -1], [-1, 3]], np.int32),
    )
    write_tables(tmp_path, Colours([0, None, 0], labels=[5, -1, 0]), clusters)
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
    write_tables(tmp_path, Colours([0, 0], labels=[-1, -1]), clusters_of([0, 0], [2]))
    table = parquet.read_table(tmp_path / "clusters.parquet")
    assert table.column_names == ["image", "cluster_0", "score_0", "margin_0"]


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


def test_a_long_table_is_whole_and_written_block_by_block(tmp_path):
    count = 2 * BLOCK + 7
    rng = np.random.default_rng(0)
    clusters = clusters_of(rng.integers(0, 3000, count), [3000], rng.random(count))
    write_tables(tmp_path, Colours(range(count)), clusters)
    assert parquet.ParquetFile(tmp_path / "clusters.parquet").num_row_groups == 3
    for table in (
        parquet.read_table(tmp_path / "clusters.parquet"),
        arrow_csv.read_csv(tmp_path / "clusters.csv"),
    ):
        assert table["image"].to_pylist() == [f"Colours[{index}]" for index in range(count)]
        assert (table["cluster_0"].to_numpy() == clusters.ids[:, 0]).all()
        assert (table["score_0"].to_numpy().astype(np.float32) == clusters.scores[:, 0]).all()


def test_a_table_that_fails_leaves_the_one_before(tmp_path):
    write_tables(tmp_path, Colours([0]), clusters_of([0], [2]))
    before = {path.name: path.read_bytes() for path in tmp_path.glob("clusters.*")}
    assert sorted(before) == ["clusters.csv", "clusters.parquet"]

    class Failing(Colours):
        def describe(self, index):
            raise OSError

    with pytest.raises(OSError):
        write_tables(tmp_path, Failing([0, 0]), clusters_of([0, 0], [2]))
    assert {path.name: path.read_bytes() for path in tmp_path.glob("clusters.*")} == before


def test_links_lead_to_the_images_of_each_cluster(tmp_path, monkeypatch):
    folder_of_files(tmp_path / "images", *STRANGE)
    monkeypatch.chdir(tmp_path)
    dataset = ImageFolder(path="images")
    clusters = clusters_of([[10, 0], [2, 1], [-1, -1], [10, 1], [2, 0]], [12, 2])
    assert write_symlinks(tmp_path, dataset, clusters)
    files = [os.path.join(os.fsencode(tmp_path), dataset.files[i]) for i in range(5)]
    places = {
        b"0/10/0_": files[0], b"0/02/1_": files[1], b"0/10/3_": files[3], b"0/02/4_": files[4],
        b"1/0/0_": files[0], b"1/1/1_": files[1], b"1/1/3_": files[3], b"1/0/4_": files[4],
    }  # fmt: skip
    assert links_in(tmp_path / "by_cluster") == {
        place + os.path.basename(file): file for place, file in places.items()
    }
    linked = ImageFolder(path=str(tmp_path / "by_cluster" / "0"))
    pixels = [linked.read(i)[0, 0, 0] for i in range(4)]
    assert pixels == [dataset.read(i)[0, 0, 0] for i in (1, 4, 0, 3)]


def test_only_files_have_links(tmp_path):
    assert not write_symlinks(tmp_path, Colours([0]), clusters_of([0], [2]))
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_still_has_a_link(tmp_path):
    name = b"x" * 251 + b".png"
    dataset = folder_of_files(tmp_path / "images", name)
    write_symlinks(tmp_path, dataset, clusters_of([0], [2]))
    assert links_in(tmp_path / "by_cluster") == {b"0/0/0_" + name[2:]: dataset.files[0]}


def test_the_tree_is_made_anew_and_what_it_points_to_stays(tmp_path):
    dataset = folder_of_files(tmp_path / "images", b"a/1.png", b"a/2.png", b"b/1.png")
    before = {path: path.read_bytes() for path in (tmp_path / "images").rglob("*.png")}
    write_symlinks(tmp_path, dataset, clusters_of([0, 0, 4], [5]))
    # a link to a folder, as a user might add
    (tmp_path / "by_cluster" / "0" / "0" / "linked").symlink_to(tmp_path / "images" / "a")
    # what a run that was killed leaves
    (tmp_path / ".partial_by_cluster" / "0").mkdir(parents=True)
    write_symlinks(tmp_path, dataset, clusters_of([1, 4, 1], [5]))
    links = links_in(tmp_path / "by_cluster")
    assert set(links) == {b"0/1/0_1.png", b"0/4/1_2.png", b"0/1/2_1.png"}
    assert sorted(path.name for path in (tmp_path / "by_cluster" / "0").iterdir()) == ["1", "4"]
    assert {path: path.read_bytes() for path in (tmp_path / "images").rglob("*.png")} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["by_cluster", "images"]


def test_a_tree_that_holds_files_is_left_alone(tmp_path):
    dataset, clusters = folder_of_files(tmp_path / "images", b"1.png"), clusters_of([0], [2])
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
        write_symlinks(tmp_path, dataset, clusters_of([0], [2]))
    assert (tmp_path / "images" / "1.png").exists()
