"""The index of a folder: kept between runs, and only as long as it holds."""

import errno
import logging
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from ssl_platform.data.sets import file_index
from ssl_platform.data.sets.file_index import folder_index
from ssl_platform.data.sets.folder_scan import FolderIndex, scan
from ssl_platform.data.sets.image_folder import ImageFolder

LONG_AGO = 10**18  # ns
NUM_FOLDERS, NUM_IMAGES = 4, 20


@pytest.fixture
def root(monkeypatch, tmp_path) -> Path:
    """Empty files, just enough to be worth an index, in folders that changed last long ago."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(file_index, "WORTH_KEEPING", NUM_IMAGES)
    folder = tmp_path / "images"
    for number in range(NUM_IMAGES):
        path = folder / f"class{number % NUM_FOLDERS}" / f"{number:02}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    settle(folder)
    return folder


def settle(root: Path) -> None:
    for folder in (root, *root.iterdir()):
        os.utime(folder, ns=(LONG_AGO, LONG_AGO))


def index_of(root: Path) -> FolderIndex:
    return folder_index(os.fsencode(root))


def kept(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]


def assert_equal(a: FolderIndex, b: FolderIndex) -> None:
    assert (a.folders, a.skipped) == (b.folders, b.skipped)
    for one, other in zip((*a[1:3], *a.names), (*b[1:3], *b.names), strict=True):
        assert np.array_equal(one, other)


def test_the_second_time_is_the_first_without_a_look_at_the_files(root, tmp_path, caplog):
    first = index_of(root)
    assert len(kept(tmp_path)) == 1
    extra = root / "class0" / "extra.jpg"
    extra.touch()
    settle(root)  # so that the new file does not show
    assert_equal(index_of(root), first)
    extra.unlink()
    settle(root)
    assert_equal(first, scan(os.fsencode(root)))
    again = ImageFolder(path=str(root))
    assert again.describe(NUM_IMAGES - 1) == str(root / f"class{NUM_FOLDERS - 1}" / "19.jpg")
    assert np.bincount(again.labels).tolist() == [NUM_IMAGES // NUM_FOLDERS] * NUM_FOLDERS
    assert not caplog.messages


def test_an_index_holds_what_was_left_out_and_an_older_one_is_made_anew(
    root, tmp_path, monkeypatch
):
    (root / "class0" / "notes.txt").touch()
    (root / "__MACOSX").mkdir()
    settle(root)
    summary = ImageFolder(path=str(root)).summary()
    (path,) = kept(tmp_path)
    assert summary.endswith("left out: 1 .txt, 1 __MACOSX/")
    older = tmp_path / "cache" / "ssl_platform" / "folders-1" / path.name
    older.parent.mkdir()
    older.write_bytes(path.read_bytes()[:-1])
    path.unlink()
    assert ImageFolder(path=str(root)).summary() == summary  # without a look at the older one
    assert path.exists()
    monkeypatch.setattr(file_index, "scan", lambda root: pytest.fail("the index counts"))
    assert ImageFolder(path=str(root)).summary() == summary


def test_other_endings_have_another_index(root, tmp_path, monkeypatch):
    index_of(root)
    monkeypatch.setattr(file_index, "EXTENSIONS", (*file_index.EXTENSIONS, b".new"))
    index_of(root)
    assert len(kept(tmp_path)) == 2


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "class1" / "new.jpg").touch(),
        lambda root: (root / "class1a").mkdir(),
        lambda root: (root / "class0" / "00.jpg").rename(root / "class0" / "0.jpg"),
        lambda root: shutil.rmtree(root / "class2"),
    ],
    ids=["new file", "new folder", "other name", "folder gone"],
)
def test_a_change_is_seen_and_said_once(root, tmp_path, caplog, change):
    before = index_of(root)
    change(root)
    with caplog.at_level(logging.WARNING):
        after = index_of(root)
        index_of(root)
    assert caplog.messages == [f"{root} has changed since an earlier run and is read anew"]
    assert_equal(after, scan(os.fsencode(root)))
    changed = (after.folders, after.names.text.tolist())
    assert changed != (before.folders, before.names.text.tolist())
    assert not kept(tmp_path)  # what has just changed may go on changing


def flip(data: bytes) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]


@pytest.mark.parametrize(
    "damage", [flip, lambda data: data[:-1], lambda data: data[:20], lambda data: b""]
)
def test_a_damaged_index_is_said_and_made_anew(root, tmp_path, caplog, damage):
    first = index_of(root)
    (path,) = kept(tmp_path)
    intact = path.read_bytes()
    path.write_bytes(damage(intact))
    with caplog.at_level(logging.WARNING):
        assert_equal(index_of(root), first)
    (message,) = caplog.messages
    assert message.startswith(f"{path} is damaged and made anew: ")
    assert path.read_bytes() == intact


def test_small_sets_and_fresh_ones_are_not_kept(root, photographs, tmp_path):
    settle(photographs)
    index_of(photographs)
    os.utime(root / "class0")
    index_of(root)
    assert not kept(tmp_path)


def test_a_place_that_cannot_be_written_to_does_no_harm(root, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    (tmp_path / "file").touch()
    assert_equal(index_of(root), scan(os.fsencode(root)))


def test_a_full_disk_keeps_nothing(root, tmp_path, monkeypatch):
    def write(index, file):
        file.write(b"the first bytes")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(file_index, "_write", write)
    assert_equal(index_of(root), scan(os.fsencode(root)))
    assert not kept(tmp_path)


def test_several_at_once_leave_one_whole_index(root, tmp_path):
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(index_of, [root] * 4))
    for index in found:
        assert_equal(index, found[0])
    assert len(kept(tmp_path)) == 1
    assert_equal(index_of(root), found[0])
