"""The index of files: which, in which order, with which labels, and in how much memory."""

import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from ssl_platform.data.file_index import FileTable, Names
from ssl_platform.data.image_folder import ImageFolder, ListFile


def make(root: Path, *names: str | bytes) -> None:
    for number, name in enumerate(names):
        path = os.path.join(os.fsencode(root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            Image.new("RGB", (2, 3), (number, 0, 0)).save(file, "PNG")


def described(dataset: ImageFolder | ListFile, root: Path) -> list[str]:
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


def test_a_class_without_images_keeps_its_number(tmp_path):
    make(tmp_path, "a/1.png", "c/1.png")
    (tmp_path / "b").mkdir()
    assert ImageFolder(path=str(tmp_path)).labels.tolist() == [0, 2]


def test_other_files_and_hidden_ones_are_passed_over(tmp_path):
    make(tmp_path, "a/1.png", "a/._1.png", ".cache/2.png")
    (tmp_path / "a" / "readme.txt").write_text("")
    (tmp_path / "a" / "folder.png").mkdir()
    assert described(ImageFolder(path=str(tmp_path)), tmp_path) == ["a/1.png"]


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
    for path, message in (
        ("gone", f"path=gone: no such directory (working directory: {tmp_path})"),
        ("file.png", "path=file.png: not a directory"),
        ("empty", "path=empty: no image in this folder or below it (looked for .jpg, "),
    ):
        with pytest.raises(ValueError) as caught:
            ImageFolder(path=path)
        assert str(caught.value).startswith(message)


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


def test_list_file(tmp_path):
    make(tmp_path, "x/a b.png", "c 3.png", "d.png")
    listing = tmp_path / "list.txt"
    listing.write_text("x/a b.png 4\n\nc 3.png 0\r\nd.png 2\n")
    dataset = ListFile(path=str(listing), root=str(tmp_path))
    assert described(dataset, tmp_path) == ["x/a b.png", "c 3.png", "d.png"]
    assert dataset.labels.tolist() == [4, 0, 2]
    assert [dataset.read(i)[0, 0, 0] for i in range(3)] == [0, 1, 2]
    listing.write_text("x/a b.png\nc 3.png")
    assert ListFile(path=str(listing), root=str(tmp_path)).labels is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": lists no image"),
        ("a.png 1\n\nb.png", ": line 3: 'b.png' has no label, but line 1 has one"),
        ("a.png\nb.png 1", ": line 2: 'b.png 1' has a label, but line 1 has none"),
        ("a.png -1", ": line 1: 'a.png -1' has label -1; labels count the classes from 0"),
        (f"a.png {10**20}", f": line 1: 'a.png {10**20}' has label {10**20}; labels count the"),
        ("a.png\n" + "b" * 70_000, ": line 2: 'bbb"),
        (
            "a.png\nb/../../c.png",
            ": line 2: 'b/../../c.png' leads out of root; to permit",
        ),
        ("/etc/passwd", ": line 1: '/etc/passwd' leads out of root; to permit"),
        ("..", ": line 1: '..' leads out of root; to permit"),
    ],
)
def test_list_file_errors_name_file_and_line(tmp_path, text, message):
    listing = tmp_path / "list.txt"
    listing.write_text(text)
    with pytest.raises(ValueError) as caught:
        ListFile(path=str(listing), root=str(tmp_path))
    assert str(caught.value).startswith(f"path={listing}{message}")
    with pytest.raises(ValueError, match=r"^path=/gone: no such file"):
        ListFile(path="/gone", root=str(tmp_path))


def test_a_list_may_lead_out_where_that_is_permitted(tmp_path):
    make(tmp_path, "outside/a.png")
    (tmp_path / "root").mkdir()
    (tmp_path / "list.txt").write_text("../outside/a.png\n")
    listed = {"path": str(tmp_path / "list.txt"), "root": str(tmp_path / "root")}
    assert ListFile(**listed, allow_outside=True).read(0).shape == (3, 2, 3)


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
