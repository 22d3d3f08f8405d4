"""Files of figures of each class."""

import os

import cv2
import numpy as np
import pytest
import torch

from ssl_platform.evaluation.class_tables import class_files, write_class_files

EACH = torch.tensor([50.0, torch.nan, 100 / 3], dtype=torch.float64)
TABLE = torch.tensor([[1, 1, 0], [0, 0, 0], [2, 0, 1]])


def test_a_metric_of_each_class_has_one_file_with_a_column_for_all_that_was_measured():
    tables = {"weights linear": {"each": EACH}, "raw pixels": {"each": EACH[:2]}}
    files = class_files(tables, ["ant", "bee, or wasp"], [2, 0, 3])
    assert list(files) == ["metrics/each.csv"]
    assert files["metrics/each.csv"].decode() == (
        "class,images,weights linear,raw pixels\n"
        "ant,2,50.0000,50.0000\n"
        '"bee, or wasp",0,,\n'
        "2,3,33.3333,\n"
    )


def test_a_table_of_classes_has_a_file_and_a_picture_for_each_that_was_measured():
    names = ["ant", os.fsdecode(b"b\xff"), "cat"]
    files = class_files({"linear (best epoch)": {"confusion": TABLE}}, names, [2, 0, 3])
    assert files["metrics/confusion_linear_best_epoch.csv"] == (
        b"true class,ant,b\xff,cat\nant,1,1,0\nb\xff,0,0,0\ncat,2,0,1\n"
    )
    png = np.frombuffer(files["metrics/confusion_linear_best_epoch.png"], np.uint8)
    picture = cv2.imdecode(png, cv2.IMREAD_GRAYSCALE)
    assert picture.shape == (72, 72)
    shares = 1 - picture[12::24, 12::24] / 255
    np.testing.assert_allclose(shares, [[0.5, 0.5, 0], [0, 0, 0], [2 / 3, 0, 1 / 3]], atol=1 / 255)


@pytest.mark.parametrize(("num_classes", "side"), [(2, 48), (1000, 1000), (1100, 1024)])
def test_a_picture_is_neither_tiny_nor_huge(num_classes, side):
    identity = torch.eye(num_classes, dtype=torch.int32)
    (picture,) = (
        content
        for path, content in class_files({"a": {"b": identity}}, [], []).items()
        if path.endswith(".png")
    )
    assert cv2.imdecode(np.frombuffer(picture, np.uint8), 0).shape == (side, side)


def test_files_are_written_whole(tmp_path):
    write_class_files(tmp_path, {})
    assert list(tmp_path.iterdir()) == []
    write_class_files(tmp_path, {"metrics/a.csv": b"1"})
    write_class_files(tmp_path, {"metrics/a.csv": b"2"})
    assert [path.read_bytes() for path in (tmp_path / "metrics").iterdir()] == [b"2"]
