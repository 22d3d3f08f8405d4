"""Ops of groups: what a group changes of those of all groups, ops of plug-ins, whole runs."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import tool
from PIL import Image
from swav_ops import swav_ops
from tiny_runs import without

from ssl_platform.data.crops import pixels
from ssl_platform.data.crops.groups import CropGroup
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.data.crops.ops import DrawnOp, GaussianBlur, Solarize
from ssl_platform.errors import DataError
from ssl_platform.registry import load_components

BLUR = {"name": "GaussianBlur", "probability": 1.0, "sigma": [1.0, 1.0], "kind": "gaussian23"}
SOLARIZE = {"name": "Solarize", "probability": 1.0, "threshold": 128}
FLIP = {"name": "HorizontalFlip", "probability": 1.0}
IMAGE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
load_components()


def transform_of(common: dict[str, Any], **groups: dict[str, Any]) -> MultiCrop:
    return MultiCrop(
        crops={name: CropGroup(16, 1, (0.2, 1.0), ops=ops) for name, ops in groups.items()},
        ratio=(3 / 4, 4 / 3),
        ops=common,
    )


def done(common: dict[str, Any], **groups: dict[str, Any]) -> list[list[tuple[str, Any]]]:
    """What is done to the crop of each group, by the names of functions."""
    draws = transform_of(common, **groups).draw(40, 50, np.random.default_rng(0))
    return [[(function.__name__, value) for function, value in draw.steps] for draw in draws]


def test_a_group_changes_replaces_adds_and_removes_ops_by_their_keys():
    common = {"flip": FLIP, "blur": BLUR, "solarize": None}
    flip, blur = ("mirror", None), ("gaussian_blur", 1.0)
    assert done(
        common,
        as_all={},
        changed={"blur": {"sigma": [2.0, 2.0]}},
        replaced={"blur": {"name": "Posterize", "probability": 1.0, "bits": 2}},
        added={"grayscale": {"name": "Grayscale", "probability": 1.0}},
        removed={"flip": None},
        in_its_place={"solarize": SOLARIZE, "late": SOLARIZE | {"threshold": 3}},
    ) == [
        [flip, blur],
        [flip, ("gaussian_blur", 2.0)],
        [flip, ("posterize", 2)],
        [flip, blur, ("grayscale", None)],
        [blur],
        [flip, blur, ("solarize", 128), ("solarize", 3)],
    ]
    assert done({"blur": BLUR, "flip": FLIP, "solarize": SOLARIZE}, one={}) == [
        [blur, flip, ("solarize", 128)]
    ]


def test_two_groups_of_one_size_are_the_two_views_of_byol():
    """Blur and solarize of the two views (Grill et al. 2020, arXiv:2006.07733, table 6)."""
    ops = swav_ops()
    views = {
        "first": {"blur": GaussianBlur(probability=1.0, sigma=(0.1, 2.0), kind="gaussian23")},
        "second": {
            "blur": GaussianBlur(probability=0.1, sigma=(0.1, 2.0), kind="gaussian23"),
            "solarize": Solarize(probability=0.2, threshold=128),
        },
    }
    transform = transform_of(ops, **views)
    assert transform.crop_sizes == [16, 16]
    rng = np.random.default_rng(0)
    counts = np.zeros((2, 2))
    for _ in range(3000):
        for view, draw in enumerate(transform.draw(40, 50, rng)):
            functions = [function for function, _ in draw.steps]
            counts[view] += [pixels.gaussian_blur in functions, pixels.solarize in functions]
    assert counts / 3000 == pytest.approx(np.array([[1.0, 0.0], [0.1, 0.2]]), abs=0.03)


class Noise:
    """As one of a plug-in: called with a crop and a generator."""

    def __init__(self, gives=lambda crop, rng: crop + rng.integers(0, 9, crop.shape, np.uint8)):
        self.gives = gives

    def __call__(self, crop: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        return self.gives(crop, rng)


def test_an_op_that_is_called_has_random_numbers_of_its_own():
    transform = transform_of({"noise": Noise(), "flip": FLIP}, one={}, two={})
    plain = transform_of({"flip": FLIP}, one={}, two={})
    crops = transform(IMAGE, np.random.default_rng(1))
    again = transform(IMAGE, np.random.default_rng(1))
    without_noise = plain(IMAGE, np.random.default_rng(1))
    noise = [a - b for a, b in zip(crops, without_noise, strict=True)]
    assert all(np.array_equal(a, b) for a, b in zip(crops, again, strict=True))
    assert all(n.max() == 8 for n in noise) and not np.array_equal(*noise)


@pytest.mark.parametrize(
    ("gives", "line"),
    [
        (lambda crop, rng: None, "ops.noise: Noise gave None for a crop (16, 16, 3); an op has to"),
        (lambda crop, rng: crop / 2, "ops.noise: Noise gave float64 (16, 16, 3) for a crop"),
        (lambda crop, rng: crop[1:], "ops.noise: Noise gave uint8 (15, 16, 3) for a crop"),
    ],
)
def test_an_op_that_gives_something_else_is_named(gives, line):
    with pytest.raises(DataError) as caught:
        transform_of({"noise": Noise(gives)}, one={})(IMAGE, np.random.default_rng(0))
    assert str(caught.value).startswith(line)


def test_an_op_with_draws_of_its_own_can_be_of_a_plug_in():
    class Darker(DrawnOp):
        num_uniforms = 1

        def draw(self, uniforms, height, width):
            return [(pixels.brightness, 0.5 + uniforms[0] / 2)]

    ((step,),) = done({"darker": Darker()}, one={})
    assert step[0] == "brightness" and 0.5 <= step[1] <= 1


GUIDE = (Path(__file__).parents[2] / "docs" / "extending.md").read_text()
OF_GUIDE = re.findall(r"<!-- file: my_ops.py -->\n```python\n(.*?)```", GUIDE, re.DOTALL)
WRONG_OP = """

@CROP_OPS.register()
class NotCalled:
    def __init__(self):
        pass
"""
SHUFFLE = "{name: ChannelShuffle, probability: %s}"


def test_a_run_with_an_op_from_outside_and_unequal_sides(tiny, tmp_path):
    """With data workers and without."""
    (tmp_path / "my_ops.py").write_text("".join(OF_GUIDE) + WRONG_OP)
    options = [*without(tiny, "data.num_workers", "hooks.knn"), "~hooks.knn", "num_epochs=2"]
    options += [
        "plugins=[my_ops]",
        f"data.transform.crops.large.ops.shuffle={SHUFFLE % 0.5}",
        "data.transform.crops.large.size=[24,20]",
        "data.transform.crops.small.size=[12,20]",
        "data.eval_transform={resize: [30,36], size: [24,32]}",
    ]

    def run(name: str, *more: str, code: int = 0) -> str:
        finished = tool(*options, f"name={name}", *more, cwd=tmp_path)
        assert finished.returncode == code, finished.stderr
        return finished.stderr

    run("whole", "data.num_workers=2")
    run("alone", "data.num_workers=0")
    first, second = (
        [*map(json.loads, (tmp_path / "runs" / name / "metrics.jsonl").read_text().splitlines())]
        for name in ("whole", "alone")
    )
    losses = [[line["loss"] for line in lines if "loss" in line] for lines in (first, second)]
    assert len(losses[0]) == 8 and losses[0] == losses[1]
    with Image.open(tmp_path / "runs/whole/crops.png") as picture:
        assert picture.size == (4 * (8 * 20 + 6), 20 + 8 * (8 * 24 + 6))
    error = run("wrong", f"data.transform.crops.large.ops.shuffle={SHUFFLE % 2}", code=2)
    assert "data.transform.crops.large.ops.shuffle.probability=2: from 0 to 1" in error
    error = run("wrong", "+data.transform.ops.wrong={name: NotCalled}", code=2)
    assert "data.transform.ops.wrong: NotCalled has to be called with a crop and a random" in error
    assert not (tmp_path / "runs/wrong").exists()
