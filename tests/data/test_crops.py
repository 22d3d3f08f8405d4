"""Crops by the compiled kernel and by OpenCV, against Pillow and torchvision with the same
parameters on real photographs."""

import dataclasses
import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from torchvision.transforms import functional as F

from ssl_platform.data.crops import native_crop, opencv_crop
from ssl_platform.data.crops.augment import (
    NUM_UNIFORMS,
    Blur,
    ColorJitter,
    CropDraw,
    CropRule,
    draw_crop,
)
from ssl_platform.data.crops.multicrop import CropGroup, MultiCrop

VECTORS = Path(__file__).parent.parent / "vectors"
PHOTOGRAPHS = [np.ascontiguousarray(image) for image in load_sample_images().images]
RULES = [
    CropRule(
        size=size,
        scale=scale,
        ratio=(3 / 4, 4 / 3),
        flip=0.5,
        jitter=ColorJitter(1.0, 0.8, 0.8, 0.8, 0.2),
        grayscale=0.2,
        blur=Blur(1.0, (0.1, 2.0), "gaussian23"),
    )
    for size, scale in ((224, (0.14, 1.0)), (96, (0.05, 0.14)))
]
compiled_only = pytest.mark.skipif(
    not native_crop.AVAILABLE, reason="the compiled kernel is not built"
)
both = pytest.mark.parametrize(
    "crops", [pytest.param(native_crop, marks=compiled_only), opencv_crop], ids=["compiled", "cv2"]
)


def whole(image: np.ndarray, **changes) -> CropDraw:
    """The crop that is the whole of a square image, but for the changes."""
    plain = CropDraw(
        size=len(image),
        top=0,
        left=0,
        height=len(image),
        width=image.shape[1],
        flip=False,
        jitter=(),
        grayscale=False,
        sigma=None,
    )
    return dataclasses.replace(plain, **changes)


def difference(ours: np.ndarray, theirs: Image.Image) -> np.ndarray:
    return np.abs(ours.astype(int) - np.asarray(theirs).astype(int))


def drawn_crops() -> list[tuple[np.ndarray, CropDraw, Image.Image]]:
    """Photographs, draws of training, and torchvision's resized crops for them."""
    rng = np.random.default_rng(0)
    found = []
    for image in PHOTOGRAPHS:
        for rule in RULES:
            for _ in range(10):
                draw = draw_crop(*image.shape[:2], rule, rng.random(NUM_UNIFORMS).tolist())
                box = (draw.top, draw.left, draw.height, draw.width)
                theirs = F.resized_crop(Image.fromarray(image), *box, [draw.size, draw.size])
                found.append((image, draw, F.hflip(theirs) if draw.flip else theirs))
    return found


DRAWN = drawn_crops()
square = np.ascontiguousarray(PHOTOGRAPHS[1][100:324, 200:424])


@compiled_only
def test_the_compiled_resize_is_pillow_s_but_for_a_level_here_and_there():
    means = []
    for image, draw, theirs in DRAWN:
        plain = dataclasses.replace(draw, jitter=(), grayscale=False, sigma=None)
        found = difference(native_crop.apply_crop(image, plain, "pil"), theirs)
        assert found.max() <= 1
        means.append(found.mean())
    # releases of Pillow differ in which direction comes first, and so in what is rounded first
    assert np.mean(means) < 0.15


@pytest.mark.parametrize(
    ("box", "size"), [((0, 0, 427, 640), 96), ((50, 60, 100, 110), 224), ((7, 9, 3, 500), 96)]
)
def test_opencv_resizes_about_like_pillow(box, size):
    top, left, height, width = box
    draw = whole(square, size=size, top=top, left=left, height=height, width=width, flip=True)
    theirs = F.hflip(F.resized_crop(Image.fromarray(PHOTOGRAPHS[1]), *box, [size, size]))
    assert difference(opencv_crop.apply_crop(PHOTOGRAPHS[1], draw, "pil"), theirs).mean() < 2


@both
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.0, 1.3, 1.8])
@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation"])
def test_jitter_is_torchvision_s(crops, operation, factor):
    ours = crops.apply_crop(square, whole(square, jitter=((operation, factor),)), "pil")
    theirs = getattr(F, f"adjust_{operation}")(Image.fromarray(square), factor)
    assert difference(ours, theirs).max() <= (1 if crops is opencv_crop else 0)


@both
def test_hue_is_near_torchvision_s(crops):
    means = []
    for _, draw, theirs in DRAWN:
        shift = dict(draw.jitter)["hue"]
        image = np.asarray(theirs)
        ours = crops.apply_crop(image, whole(image, jitter=(("hue", shift),)), "pil")
        means.append(difference(ours, F.adjust_hue(theirs, shift)).mean())
    assert np.mean(means) < 0.6


@both
@pytest.mark.parametrize("shift", [-0.5, -0.2, -0.07, 0.0, 0.1, 0.5])
def test_hue_is_never_far_from_torchvision_s(crops, shift):
    ours = crops.apply_crop(square, whole(square, jitter=(("hue", shift),)), "pil")
    found = difference(ours, F.adjust_hue(Image.fromarray(square), shift))
    assert np.percentile(found, 99) <= 6


@both
def test_grayscale_is_torchvision_s(crops):
    ours = crops.apply_crop(square, whole(square, grayscale=True), "pil")
    assert difference(ours, F.to_grayscale(Image.fromarray(square), 3)).max() <= 1


@both
@pytest.mark.parametrize("size", [1, 2, 5, 28, 96])
def test_blur_is_the_23_tap_convolution(crops, size):
    image = cv2.resize(PHOTOGRAPHS[0], (size, size))
    kernels = json.loads((VECTORS / "gaussian_blur_kernel.json").read_text())["kernels"]
    for sigma, kernel in kernels.items():
        ours = crops.apply_crop(image, whole(image, sigma=float(sigma)), "gaussian23")
        padded = image.astype(np.float64)
        for axis in (0, 1):
            widths = [(11, 11) if a == axis else (0, 0) for a in range(3)]
            padded = np.pad(padded, widths, mode="reflect" if size > 1 else "edge")
            padded = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
        assert np.abs(ours - padded).max() <= 1.0


@both
def test_blur_is_near_pillow_s(crops):
    means = []
    for _, draw, theirs in DRAWN:
        image = np.asarray(theirs)
        ours = crops.apply_crop(image, whole(image, sigma=draw.sigma), "gaussian23")
        means.append(difference(ours, theirs.filter(ImageFilter.GaussianBlur(draw.sigma))).mean())
    assert np.mean(means) < 0.4


@both
def test_pil_blur_is_pillow_s(crops):
    ours = crops.apply_crop(square, whole(square, sigma=1.3), "pil")
    theirs = Image.fromarray(square).filter(ImageFilter.GaussianBlur(1.3))
    assert difference(ours, theirs).max() == 0


@both
def test_jitter_is_applied_in_the_order_of_the_draw(crops):
    steps = (("contrast", 1.7), ("hue", 0.1), ("brightness", 0.4), ("saturation", 1.5))
    for order in (steps, steps[::-1]):
        one_by_one = square
        for step in order:
            one_by_one = crops.apply_crop(one_by_one, whole(square, jitter=(step,)), "pil")
        at_once = crops.apply_crop(square, whole(square, jitter=order), "pil")
        assert np.array_equal(at_once, one_by_one)


@compiled_only
@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.integers(1, 40),
    box=st.tuples(*[st.floats(0, 1)] * 4),
    flip=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_box_of_any_image_is_cut_as_pillow_does(shape, size, box, flip, seed):
    height, width = shape
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    top, left = int(box[0] * (height - 1)), int(box[1] * (width - 1))
    box_height, box_width = (
        1 + int(box[2] * (height - 1 - top)),
        1 + int(box[3] * (width - 1 - left)),
    )
    draw = whole(
        image, size=size, top=top, left=left, height=box_height, width=box_width, flip=flip
    )
    pillow = F.resized_crop(Image.fromarray(image), top, left, box_height, box_width, [size, size])
    theirs = F.hflip(pillow) if flip else pillow
    ours = native_crop.apply_crop(image, draw, "gaussian23")
    # Means of small boxes often end in .5, which Pillow's integer weights round either way: a level
    # for each direction in which something is resized.
    assert difference(ours, theirs).max() <= (box_height != size) + (box_width != size)
    blurred = dataclasses.replace(draw, sigma=2.0, jitter=(("hue", 0.5), ("contrast", 1.8)))
    assert native_crop.apply_crop(image, blurred, "gaussian23").shape == (size, size, 3)


@both
def test_views_and_read_only_images_are_cut_like_copies(crops):
    turned = PHOTOGRAPHS[0][::-1, ::2]
    copy = np.ascontiguousarray(turned)
    copy.setflags(write=False)
    for _, draw, _ in DRAWN[:4]:
        small = dataclasses.replace(draw, top=3, left=5, height=200, width=150)
        ours = crops.apply_crop(turned, small, "gaussian23")
        assert np.array_equal(ours, crops.apply_crop(copy, small, "gaussian23"))


@both
def test_threads_do_not_disturb_each_other(crops):
    def cut(number: int) -> np.ndarray:
        image, draw, _ = DRAWN[number % len(DRAWN)]
        return crops.apply_crop(image, draw, "gaussian23")

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(cut, range(80)))
    assert all(np.array_equal(crop, cut(number)) for number, crop in enumerate(together))


@compiled_only
@pytest.mark.parametrize(
    "arguments",
    [
        {"box": (0, 0, 8, 9)},
        {"box": (-1, 0, 4, 4)},
        {"box": (0, 0, 0, 4)},
        {"box": (2**31 - 1, 0, 2, 2)},
        {"image": np.zeros((8, 8, 4), np.uint8)},
        {"image": np.zeros((8, 8, 3), np.float32)},
        {"out": np.zeros((4, 5, 3), np.uint8)},
        {"kernel": np.ones(4, np.float32)},
        {"kernel": np.ones(3, np.float64)},
        {"jitter": [(4, 1.0)]},
    ],
)
def test_the_kernel_refuses_what_would_reach_beyond_its_memory(arguments):
    given = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "out": np.zeros((4, 4, 3), np.uint8),
        "box": (0, 0, 8, 8),
        "flip": False,
        "jitter": [],
        "grayscale": False,
        "kernel": None,
    } | arguments
    with pytest.raises(ValueError):
        native_crop._augment.crop(*given.values())


@both
def test_the_log_says_once_what_makes_the_crops(crops: ModuleType, caplog, monkeypatch):
    monkeypatch.setattr(native_crop, "AVAILABLE", crops is native_crop)
    with caplog.at_level(logging.INFO):
        multicrop = MultiCrop(
            crops={"small": CropGroup(size=8, count=2, scale=(0.1, 1.0))},
            ratio=(0.75, 1.33),
            flip=0.5,
            jitter=RULES[0].jitter,
            grayscale=0.2,
            blur=RULES[0].blur,
        )
    (line,) = caplog.messages
    assert line.startswith("crops: compiled kernel" if crops is native_crop else "crops: OpenCV")
    draws = multicrop.draw(*square.shape[:2], np.random.default_rng(3))
    expected = [crops.apply_crop(square, draw, "gaussian23") for draw in draws]
    ours = multicrop(square, np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(ours, expected, strict=True))
