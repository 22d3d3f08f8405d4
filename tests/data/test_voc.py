from pathlib import Path

import pytest
from voc_tree import a_voc_tree

from ssl_platform.data.sets.voc import VOC2007


def test_images_carry_the_marks_of_every_class(tmp_path):
    path = a_voc_tree(tmp_path, num_trainval=6, num_test=4)
    dataset = VOC2007(path=str(path), split="test")
    assert list(dataset.classes) == ["cat", "dog"]
    assert dataset.labels is None
    assert dataset.targets.shape == (4, 2) and set(dataset.targets.ravel()) <= {1, 0, -1}
    for index, name in enumerate(["000006", "000007", "000008", "000009"]):
        assert Path(dataset.describe(index)).name == f"{name}.jpg"
        assert dataset.read(index).shape == (40, 48, 3)
    assert len(VOC2007(path=str(path), split="trainval")) == 6


def test_the_marks_belong_to_its_fingerprint(tmp_path):
    path = a_voc_tree(tmp_path, num_trainval=6, num_test=4)
    before = VOC2007(path=str(path), split="test")
    marks = path / "ImageSets" / "Main" / "cat_test.txt"
    marks.write_text(marks.read_text().replace(" -1", "  0", 1))
    changed = VOC2007(path=str(path), split="test")
    assert (changed.targets != before.targets).sum() == 1
    assert changed.fingerprint() != before.fingerprint()


def test_files_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"^path=/nowhere: no such directory"):
        VOC2007(path="/nowhere", split="test")
    path = a_voc_tree(tmp_path, num_trainval=6, num_test=4)
    lists = path / "ImageSets" / "Main"
    with pytest.raises(ValueError) as error:
        VOC2007(path=str(path), split="val")
    assert str(error.value) == f"path={path}: no {lists}/*_val.txt there"
    (lists / "dog_test.txt").write_text("000006  1\n")
    with pytest.raises(ValueError) as error:
        VOC2007(path=str(path), split="test")
    assert str(error.value) == (
        f"path={path}: {lists}/dog_test.txt does not list the images of {lists}/cat_test.txt"
    )
    (lists / "dog_test.txt").write_text("000006  1\n000007 yes\n")
    with pytest.raises(ValueError) as error:
        VOC2007(path=str(path), split="test")
    assert str(error.value) == (
        f"path={path}: {lists}/dog_test.txt: line 2: '000007 yes' is no name with 1, -1 or 0"
    )
