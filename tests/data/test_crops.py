"""Crops by the compiled kernel and by OpenCV, against Pillow and torchvision with the same
parameters on real photographs."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loaders import multicrop
from PIL import Image, ImageFilter
from sklearn.datasets import load_sample_images
from swav_ops import drawn, swav_ops
from torchvision.transforms import functional as F

from ssl_platform.data.crops import native_crop, opencv_crop, pixels
from ssl_platform.data.crops.draw import CropDraw, CropRule

VECTORS = Path(__file__).parent.parent / "vectors"
PHOTOGRAPHS = [np.ascontiguousarray(image) for image in load_sample_images().images]
OPS = list(swav_ops(jitter=1.0, blur=1.0).values())
RULES = [
    CropRule(size=size, scale=scale, ratio=(3 / 4, 4 / 3), ops=OPS)
    for size, scale in (((224, 224), (0.14, 1.0)), ((96, 96), (0.05, 0.14)))
]
MIRROR, UPSIDE_DOWN = (pixels.mirror, None), (pixels.upside_down, None)
GRAY = (pixels.grayscale, None)
compiled_only = pytest.mark.skipif(
    not native_crop.AVAILABLE, reason="the compiled kernel is not built"
)
both = pytest.mark.parametrize(
    "crops", [pytest.param(native_crop, marks=compiled_only), opencv_crop], ids=["compiled", "cv2"]
)


def whole(image: np.ndarray, *steps, **changes) -> CropDraw:
    """The crop that is the whole of an image, but for the changes."""
    size = image.shape[:2]
    return CropDraw(size, (0, 0, *size), steps)._replace(**changes)


def difference(ours: np.ndarray, theirs: Image.Image) -> np.ndarray:
    return np.abs(ours.astype(int) - np.asarray(theirs).astype(int))


def drawn_crops() -> list[tuple[np.ndarray, CropDraw, Image.Image]]:
    """Photographs, draws of training, and torchvision's resized crops for them."""
    rng = np.random.default_rng(0)
    found = []
    for image in PHOTOGRAPHS:
        for rule in RULES:
            for _ in range(10):
                draw = drawn(*image.shape[:2], rule, rng)
                theirs = F.resized_crop(Image.fromarray(image), *draw.box, list(draw.size))
                is_mirrored = MIRROR in draw.steps
                found.append((image, draw, F.hflip(theirs) if is_mirrored else theirs))
    return found


DRAWN = drawn_crops()
SIGMAS = np.tile(np.linspace(0.1, 2.0, 10), 4).tolist()  # the same for each photograph and rule
square = np.ascontiguousarray(PHOTOGRAPHS[1][100:324, 200:424])


@compiled_only
def test_the_compiled_resize_is_pillow_s_but_for_a_level_here_and_there():
    means = []
    for image, draw, theirs in DRAWN:
        plain = draw._replace(steps=[step for step in draw.steps if step == MIRROR])
        found = difference(native_crop.apply_crop(image, plain), theirs)
        assert found.max() <= 1
        means.append(found.mean())
    # releases of Pillow differ in which direction comes first, and so in what is rounded first
    assert np.mean(means) < 0.15


@pytest.mark.parametrize(
    ("box", "size"),
    [
        ((0, 0, 427, 640), (96, 96)),
        ((50, 60, 100, 110), (224, 224)),
        ((7, 9, 3, 500), (96, 96)),
        ((0, 0, 427, 640), (64, 160)),
    ],
)
def test_opencv_resizes_about_like_pillow(box, size):
    draw = CropDraw(size, box, [MIRROR])
    theirs = F.hflip(F.resized_crop(Image.fromarray(PHOTOGRAPHS[1]), *box, list(size)))
    assert difference(opencv_crop.apply_crop(PHOTOGRAPHS[1], draw), theirs).mean() < 2


@both
@pytest.mark.parametrize("factor", [0.0, 0.2, 0.7, 1.0, 1.3, 1.8])
@pytest.mark.parametrize("operation", ["brightness", "contrast", "saturation"])
def test_jitter_is_torchvision_s(crops, operation, factor):
    ours = crops.apply_crop(square, whole(square, (getattr(pixels, operation), factor)))
    theirs = getattr(F, f"adjust_{operation}")(Image.fromarray(square), factor)
    assert difference(ours, theirs).max() <= (1 if crops is opencv_crop else 0)


@both
def test_hue_is_near_torchvision_s(crops):
    means = []
    for _, draw, theirs in DRAWN:
        shift = dict(draw.steps)[pixels.hue]
        image = np.asarray(theirs)
        ours = crops.apply_crop(image, whole(image, (pixels.hue, shift)))
        means.append(difference(ours, F.adjust_hue(theirs, shift)).mean())
    assert np.mean(means) < 0.6


@both
@pytest.mark.parametrize("shift", [-0.5, -0.2, -0.07, 0.0, 0.1, 0.5])
def test_hue_is_never_far_from_torchvision_s(crops, shift):
    ours = crops.apply_crop(square, whole(square, (pixels.hue, shift)))
    found = difference(ours, F.adjust_hue(Image.fromarray(square), shift))
    assert np.percentile(found, 99) <= 6


@both
def test_grayscale_is_torchvision_s(crops):
    ours = crops.apply_crop(square, whole(square, GRAY))
    assert difference(ours, F.to_grayscale(Image.fromarray(square), 3)).max() <= 1


@both
@pytest.mark.parametrize("size", [1, 2, 5, 28, 96])
def test_blur_is_the_23_tap_convolution(crops, size):
    image = cv2.resize(PHOTOGRAPHS[0], (size, size))
    kernels = json.loads((VECTORS / "gaussian_blur_kernel.json").read_text())["kernels"]
    for sigma, kernel in kernels.items():
        ours = crops.apply_crop(image, whole(image, (pixels.gaussian_blur, float(sigma))))
        padded = image.astype(np.float64)
        for axis in (0, 1):
            widths = [(11, 11) if a == axis else (0, 0) for a in range(3)]
            padded = np.pad(padded, widths, mode="reflect" if size > 1 else "edge")
            padded = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
        assert np.abs(ours - padded).max() <= 1.0


@both
def test_blur_is_near_pillow_s(crops):
    """Over the range of the recipes, whatever is drawn."""
    means = []
    for (_, _, theirs), sigma in zip(DRAWN, SIGMAS, strict=True):
        image = np.asarray(theirs)
        ours = crops.apply_crop(image, whole(image, (pixels.gaussian_blur, sigma)))
        means.append(difference(ours, theirs.filter(ImageFilter.GaussianBlur(sigma))).mean())
    assert np.mean(means) < 0.4


@both
def test_pil_blur_is_pillow_s(crops):
    ours = crops.apply_crop(square, whole(square, (pixels.pil_blur, 1.3)))
    theirs = Image.fromarray(square).filter(ImageFilter.GaussianBlur(1.3))
    assert difference(ours, theirs).max() == 0


@both
def test_steps_are_applied_in_the_order_of_the_draw(crops):
    """Those that only OpenCV or Pillow know, those of a plug-in and flips among them."""
    steps = [
        (pixels.contrast, 1.7),
        (pixels.hue, 0.1),
        MIRROR,
        (pixels.erase, (20, 30, 90, 80, [200, 10, 10])),
        (pixels.gaussian_blur, 1.5),
        (pixels.solarize, 100),
        (pixels.quarter_turns, 1),
        (lambda crop, value: np.roll(crop, value, axis=0), 40),
        (pixels.upside_down, None),
        GRAY,
        (pixels.pil_blur, 0.7),
        (pixels.brightness, 0.4),
        (pixels.posterize, 3),
        (pixels.saturation, 1.5),
    ]
    for order in (steps, steps[::-1]):
        one_by_one = square
        for step in order:
            one_by_one = crops.apply_crop(one_by_one, whole(square, step))
        at_once = crops.apply_crop(square, whole(square, *order))
        assert np.array_equal(at_once, one_by_one)


@compiled_only
@settings(max_examples=150, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
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
    draw = CropDraw(size, (top, left, box_height, box_width), [MIRROR, UPSIDE_DOWN] if flip else [])
    pillow = F.resized_crop(Image.fromarray(image), *draw.box, list(size))
    theirs = F.vflip(F.hflip(pillow)) if flip else pillow
    ours = native_crop.apply_crop(image, draw)
    # Means of small boxes often end in .5, which Pillow's integer weights round either way: a level
    # for each direction in which something is resized.
    assert difference(ours, theirs).max() <= (box_height != size[0]) + (box_width != size[1])
    steps = [(pixels.hue, 0.5), (pixels.contrast, 1.8), (pixels.gaussian_blur, 2.0)]
    assert native_crop.apply_crop(image, draw._replace(steps=steps)).shape == (*size, 3)


@both
def test_views_and_read_only_images_are_cut_like_copies(crops):
    turned = PHOTOGRAPHS[0][::-1, ::2]
    copy = np.ascontiguousarray(turned)
    copy.setflags(write=False)
    for _, draw, _ in DRAWN[:4]:
        small = draw._replace(box=(3, 5, 200, 150))
        ours = crops.apply_crop(turned, small)
        assert np.array_equal(ours, crops.apply_crop(copy, small))


@both
def test_threads_do_not_disturb_each_other(crops):
    def cut(number: int) -> np.ndarray:
        image, draw, _ = DRAWN[number % len(DRAWN)]
        return crops.apply_crop(image, draw)

    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(cut, range(80)))
    assert all(np.array_equal(crop, cut(number)) for number, crop in enumerate(together))


@compiled_only
@pytest.mark.parametrize("steps", [[(7,)], [7], 7, [(0, "x")], [(7, 1.0)], [(0, None)]])
def test_the_kernel_refuses_steps_of_another_form(steps):
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises((TypeError, BufferError)):
        native_crop._augment.crop(image, image.copy(), (0, 0, 8, 8), False, False, steps)


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
        {"out": np.zeros((4, 5, 4), np.uint8)},
        {"out": np.zeros((4, 0, 3), np.uint8)},
        {"steps": [(7, np.ones(4, np.float32))]},
        {"steps": [(7, np.ones(3, np.float64))]},
        {"steps": [(0, 1.0), (7, np.ones((3, 3), np.float32))]},
        {"steps": [(8, 1.0)]},
        {"steps": [(-1, 1.0)]},
        {"steps": [(6, 9.0)]},
    ],
)
def test_the_kernel_refuses_what_would_reach_beyond_its_memory(arguments):
    given = {
        "image": np.zeros((8, 8, 3), np.uint8),
        "out": np.zeros((4, 4, 3), np.uint8),
        "box": (0, 0, 8, 8),
        "mirrored": False,
        "upside_down": False,
        "steps": [],
    } | arguments
    with pytest.raises(ValueError):
        native_crop._augment.crop(*given.values())


@both
def test_the_log_says_once_what_makes_the_crops(crops: ModuleType, caplog, monkeypatch):
    monkeypatch.setattr(native_crop, "AVAILABLE", crops is native_crop)
    resolve_name("ssl_platform.data.crops.multicrop:_tell").cache_clear()
    with caplog.at_level(logging.INFO):
        transform = multicrop()
        multicrop()
    (line,) = caplog.messages
    assert line.startswith("crops: compiled kernel" if crops is native_crop else "crops: OpenCV")
    draws = transform.draw(*square.shape[:2], np.random.default_rng(3))
    expected = [crops.apply_crop(square, draw) for draw in draws]
    ours = transform(square, np.random.default_rng(3))
    assert all(np.array_equal(a, b) for a, b in zip(ours, expected, strict=True))
