"""The index of files: which, in which order, with which labels, and in how much memory."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from ssl_platform.data.sets import folder_scan
from ssl_platform.data.sets.file_table import FileTable, Names
from ssl_platform.data.sets.image_folder import ImageFolder


def make(root: Path, *names: str | bytes) -> None:
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", (2, 3), (number, 0, 0)).save(file, "PNG")


def described(dataset: ImageFolder, root: Path) -> list[str]:
    return [os.path.relpath(dataset.describe(i), root) for i in range(len(dataset))]


def test_classes_and_order_are_torchvision_s(tmp_path):
    make(tmp_path, "dog/b.png", "dog/a.JPG", "cat/deep/er/z.png", "cat/y.png", "ant/x.jpeg")
    ours, theirs = ImageFolder(path=str(tmp_path)), datasets.ImageFolder(str(tmp_path))
    assert [ours.describe(i) for i in range(len(ours))] == [path for path, _ in theirs.samples]
    assert ours.labels.tolist() == theirs.targets
    assert ours.labels.dtype == np.int64
    assert ours.read(4).shape == (3, 2, 3)


def test_a_image_in_the_root_makes_the_set_unlabelled(tmp_path):
    make(tmp_path, "b.png", "a.png", "sub/c.png")
    dataset = ImageFolder(path=str(tmp_path))
    assert dataset.labels is None
    assert described(dataset, tmp_path) == ["a.png", "b.png", "sub/c.png"]


def test_the_fingerprint_of_an_ordinary_folder_is_what_it_was(tmp_path):
    make(tmp_path, "dog/b.png", "dog/a.JPG", "cat/deep/er/z.png", "cat/y.png", "ant/x.jpeg")
    assert ImageFolder(path=str(tmp_path)).fingerprint() == (
        "06f2fbc6e163fb4ac1b0cb0ccb7befb8c5d0a74be0d32599d561e2e684a8fd53"
    )


def test_what_is_there_and_what_was_left_out_is_told_by_ending(tmp_path):
    make(tmp_path, "ant/1.png", "ant/2.JPG", "bee/1.jfif", "bee/2.jpe", "cat/1.PBM", "cat/2.jp2")
    for name in ("ant/a.txt", "ant/b.TXT", "bee/c.xml", "cat/1.2.840.113", "cat/d.i n"):
        (tmp_path / name).touch()
    assert ImageFolder(path=str(tmp_path)).summary() == (
        "6 images in 3 classes (ant, bee, cat); left out: 2 .txt, 2 of other endings, 1 .xml"
    )


def test_heic_is_left_out_with_the_cure_where_nothing_reads_it(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "b/1.png")
    for number in range(3):
        (tmp_path / "a" / f"{number}.HEIC").touch()
    endings = tuple(e for e in folder_scan.EXTENSIONS if e not in folder_scan.HEIC)
    monkeypatch.setattr(folder_scan, "EXTENSIONS", endings)
    folder_scan._ends_an_image.cache_clear()
    assert ImageFolder(path=str(tmp_path)).summary() == (
        "2 images in 2 classes (a, b); left out: 3 .heic (pip install pillow-heif reads them)"
    )
    folder_scan._ends_an_image.cache_clear()


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "AVIF", "JPEG2000"]
)
def test_a_file_without_an_ending_is_known_by_its_first_bytes(kind, tmp_path):
    Image.new("RGB", (20, 30)).save(tmp_path / "picture", kind)
    (tmp_path / "notes").write_text("BMW, P1 and GIFs")
    (tmp_path / "empty").touch()
    (tmp_path / "dead").symlink_to("nowhere")
    dataset = ImageFolder(path=str(tmp_path))
    assert dataset.summary() == "1 image; left out: 2 without an ending, 1 leading nowhere"
    assert dataset.describe(0) == str(tmp_path / "picture")


def test_only_files_without_an_ending_are_opened(tmp_path, monkeypatch):
    make(tmp_path, "a.png", "b.png", "c.txt", "d")
    opened = []
    monkeypatch.setattr(
        folder_scan, "_looked_at", lambda folder, name: opened.append(name) or "without an ending"
    )
    ImageFolder(path=str(tmp_path))
    assert opened == [b"d"]


def test_litter_is_no_class_and_is_told(tmp_path):
    make(
        tmp_path, "ant/1.png", "ant/._1.png", "ant/@eaDir/1.png/THUMB.png", "bee/1.png",
        "bee/.ipynb_checkpoints/1-checkpoint.png", ".ipynb_checkpoints/1.png", "__MACOSX/ant/1.png",
        "lost+found/1.png", "$RECYCLE.BIN/1.png", "System Volume Information/1.png",
    )  # fmt: skip
    for name in ("ant/Thumbs.db", "ant/.DS_Store", "annotations/a.xml"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "aardvark" / "empty").mkdir(parents=True)
    dataset = ImageFolder(path=str(tmp_path))
    assert described(dataset, tmp_path) == ["ant/1.png", "bee/1.png"]
    assert dataset.labels.tolist() == [0, 1]
    told, _, left_out = dataset.summary().partition("; left out: ")
    assert told == "2 images in 2 classes (ant, bee)"
    assert left_out == (
        "2 folders without images (aardvark, annotations), 2 .ipynb_checkpoints/, 2 hidden, "
        "1 $RECYCLE.BIN/, 1 .db, 1 .xml, 1 @eaDir/, 1 System Volume Information/, 1 __MACOSX/, "
        "1 lost+found/"
    )


def test_empty_folders_are_no_classes_and_are_named(tmp_path):
    make(tmp_path, "a/1.png", "c/deep/er/1.png")
    for name in ("annotations", "b"):
        (tmp_path / name / "deeper").mkdir(parents=True)
    dataset = ImageFolder(path=str(tmp_path))
    assert (dataset.labels.tolist(), dataset.classes) == ([0, 1], ["a", "c"])
    assert dataset.summary() == (
        "2 images in 2 classes (a, c); left out: 2 folders without images (annotations, b)"
    )


def test_a_stray_image_beside_the_classes_is_left_out_and_named(tmp_path):
    make(tmp_path, "preview.png", "ant/1.png", "bee/1.png", "bee/2.png")
    dataset = ImageFolder(path=str(tmp_path))
    assert described(dataset, tmp_path) == ["ant/1.png", "bee/1.png", "bee/2.png"]
    assert dataset.labels.tolist() == [0, 1, 1]
    assert dataset.summary() == (
        "3 images in 2 classes (ant, bee); left out: 1 beside the class folders (preview.png)"
    )


def test_as_many_images_beside_the_folders_as_there_are_make_the_set_unlabelled(tmp_path):
    make(tmp_path, "1.png", "2.png", "2019/3.png", "2020/4.png")
    dataset = ImageFolder(path=str(tmp_path))
    assert (len(dataset), dataset.labels, dataset.classes) == (4, None, None)
    assert dataset.summary() == (
        "4 images without classes, for 2 of them lie beside the folders (1.png, 2.png): moved into "
        "folders, or away, they leave each folder a class"
    )


@pytest.mark.parametrize(
    ("names", "parts", "command"),
    [
        (
            ["train/a/1.png", "val/a/1.png"],
            "train/ and val/ in it are parts",
            "data.train.path={0}/train 'data.val={{name: ImageFolder, path: {0}/val}}'",
        ),
        (
            ["Train/1.png", "test/1.png", "Valid/1.png"],
            "Train/ and Valid/ and test/ in it are parts",
            "data.train.path={0}/Train 'data.val={{name: ImageFolder, path: {0}/Valid}}'",
        ),
        (
            ["training_set/a/1.png", "validation/1.png", "extra/1.png", "stray.png"],
            "training_set/ and validation/ in it are parts",
            "data.train.path={0}/training_set "
            "'data.val={{name: ImageFolder, path: {0}/validation}}'",
        ),
        (
            ["seg_train/a/1.png", "seg_test/a/1.png", "seg_val/a/1.png"],
            "seg_test/ and seg_train/ and seg_val/ in it are parts",
            "data.train.path={0}/seg_train 'data.val={{name: ImageFolder, path: {0}/seg_val}}'",
        ),
        (["train2017/a/1.png"], "train2017/ in it is a part", "data.train.path={0}/train2017"),
    ],
)
def test_train_and_val_are_told_apart_from_classes(names, parts, command, tmp_path):
    make(tmp_path, *names)
    with pytest.raises(ValueError) as caught:
        ImageFolder(path=str(tmp_path))
    assert str(caught.value) == (
        f"path={tmp_path}: {parts} of a set, and no class; write {command.format(tmp_path)}"
    )


def test_parts_of_a_set_are_told_apart_where_a_folder_lies_around_them(tmp_path):
    make(tmp_path, "a/images/train/1.png", "a/images/val/1.png", "a/readme.txt")
    with pytest.raises(ValueError) as caught:
        ImageFolder(path=str(tmp_path))
    inner = tmp_path / "a" / "images"
    assert str(caught.value) == (
        f"path={inner}: train/ and val/ in it are parts of a set, and no class; write "
        f"data.train.path={inner}/train 'data.val={{name: ImageFolder, path: {inner}/val}}'"
    )


def test_a_folder_around_the_classes_is_told(tmp_path):
    make(tmp_path, "set/ant/1.png", "set/bee/x/1.png")
    dataset = ImageFolder(path=str(tmp_path))
    assert (dataset.classes, dataset.summary()) == (
        ["set"],
        "2 images in 1 class (set); the 2 folders in it (ant, bee) become classes with "
        f"path={tmp_path}/set",
    )
    make(tmp_path / "one", "a/1.png", "a/b/1.png", "a/c/1.png")
    assert ImageFolder(path=str(tmp_path / "one")).summary() == "3 images in 1 class (a)"


def test_classes_that_are_called_like_parts_are_classes(tmp_path):
    make(tmp_path / "odd", "steam_train/1.png", "crash_test/1.png")
    assert ImageFolder(path=str(tmp_path / "odd")).classes == ["crash_test", "steam_train"]
    make(tmp_path / "two", "a/test/b/1.png")
    assert ImageFolder(path=str(tmp_path / "two")).classes == ["a"]
    make(tmp_path / "bus", "train/1.png", "bus/1.png", "car/1.png")
    assert ImageFolder(path=str(tmp_path / "bus")).classes == ["bus", "car", "train"]
    make(tmp_path / "one", "test/1.png")
    assert ImageFolder(path=str(tmp_path / "one")).classes == ["test"]


def test_links_that_lead_nowhere_or_in_a_circle_and_pipes_stop_nothing(tmp_path):
    make(tmp_path, "a/1.png", "b/1.png")
    (tmp_path / "a" / "self").symlink_to("self")
    (tmp_path / "a" / "self.png").symlink_to("self.png")
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "deadfolder").symlink_to("nowhere")
    (tmp_path / "b" / "linked.png").symlink_to("../a/1.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    dataset = ImageFolder(path=str(tmp_path))
    names = ["a/1.png", "a/self.png", "b/1.png", "b/linked.png"]
    assert described(dataset, tmp_path) == names
    assert dataset.labels.tolist() == [0, 0, 1, 1]
    left_out = "2 leading nowhere, 1 leading in a circle, 1 neither file nor folder"
    told, _, listed = dataset.summary().partition("; left out: ")
    assert told == "4 images in 2 classes (a, b)"
    assert sorted(listed.split(", ")) == sorted(left_out.split(", "))


def test_what_lies_deeper_than_a_path_may_be_is_left_out(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "b/1.png")
    monkeypatch.chdir(tmp_path)
    for _ in range(20):
        os.mkdir("d" * 250)
        os.chdir("d" * 250)
    assert (
        ImageFolder(path=str(tmp_path))
        .summary()
        .startswith("2 images in 2 classes (a, b); left out: 1 folder without images (ddd")
    )


def test_a_folder_that_may_not_be_read_is_named_with_the_cure(tmp_path, monkeypatch):
    make(tmp_path, "a/1.png", "closed/1.png", "lost+found/1.png")
    scandir = os.scandir

    def refuse(path):
        if os.path.basename(path) in (b"closed", b"lost+found"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(ValueError) as caught:
        ImageFolder(path=str(tmp_path))
    assert str(caught.value) == (
        f"path={tmp_path}: cannot look into {tmp_path}/closed: Permission denied; make it "
        "readable, or move it away"
    )
    (tmp_path / "closed").rename(tmp_path / "open")
    assert ImageFolder(path=str(tmp_path)).summary() == (
        "2 images in 2 classes (a, open); left out: 1 lost+found/"
    )


def test_links_to_folders_are_followed_once_around(tmp_path):
    make(tmp_path, "elsewhere/x/1.png", "set/a/2.png")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "set" / "a" / "loop").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    dataset = ImageFolder(path=str(tmp_path / "set"))
    names = described(dataset, tmp_path / "set")
    assert names == ["a/2.png", "a/gone.png", "b/x/1.png"]


def test_strange_names(tmp_path):
    make(tmp_path, b"a b/\xff\xfe.png", b"a b/new\nline.png", b"a b/ .png", "ä/ö.png")
    dataset = ImageFolder(path=str(tmp_path))
    assert [dataset.read(i).shape for i in range(4)] == [(3, 2, 3)] * 4
    assert dataset.labels.tolist() == [0, 0, 0, 1]
    assert all(dataset.describe(i).isprintable() for i in range(4))


def test_what_cannot_work_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path, "file.png")
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.csv").touch()
    for path, message in (
        ("gone", f"path=gone: no such directory (working directory: {tmp_path})"),
        ("file.png", "path=file.png: not a directory"),
        ("empty", "path=empty: no image in this folder or below it (looked for .jpg, "),
        ("a.csv", "path=a.csv: not a directory; a list is read by data=list data.train.path=a.csv"),
    ):
        with pytest.raises(ValueError) as caught:
            ImageFolder(path=path)
        assert str(caught.value).startswith(message)


def test_a_folder_with_no_image_says_what_is_in_it(tmp_path):
    for name in ("1.tar", "2.tar", "list.csv"):
        (tmp_path / name).touch()
    with pytest.raises(ValueError, match=r"\.jpx\); left out: 2 \.tar, 1 \.csv$"):
        ImageFolder(path=str(tmp_path))


def test_the_home_directory_may_be_a_tilde(tmp_path, monkeypatch):
    make(tmp_path, "set/a/1.png")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ImageFolder(path="~/set").describe(0) == str(tmp_path / "set/a/1.png")


def test_probe_finds_a_set_of_no_use(tmp_path):
    for name in "abcdefghij":
        (tmp_path / f"{name}.jpg").write_text("text")
    dataset = ImageFolder(path=str(tmp_path))
    with pytest.raises(ValueError) as caught:
        dataset.probe()
    assert str(caught.value) == (
        f"path={tmp_path}: none of the 8 images tried can be read, "
        f"first {tmp_path}/a.jpg: text, not an image: fetch it again"
    )
    make(tmp_path, "j.jpg")
    dataset.probe()


def test_a_path_takes_little_more_memory_than_its_name():
    folders = [b"/data/n%08d" % i for i in range(100)]
    names = [[b"n%08d_%d.JPEG" % (i, j) for j in range(1000)] for i in range(100)]
    tracemalloc.start()
    table = FileTable(folders, [1000] * 100, Names.join(Names.pack(group) for group in names))
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size / len(table) < 30
    assert table[0] == b"/data/n00000000/n00000000_0.JPEG"
    assert table[99_999] == b"/data/n00000099/n00000099_999.JPEG"
    assert table[1000] == b"/data/n00000001/n00000001_0.JPEG"
