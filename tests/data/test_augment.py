"""Crops against Pillow and torchvision with the same parameters, and what is drawn for them."""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFilter
from torchvision.transforms import functional as F

from ssl_platform.data.augment import (
    NUM_UNIFORMS,
    Blur,
    ColorJitter,
    CropDraw,
    CropRule,
    apply_crop,
    draw_crop,
)

VECTORS = Path(__file__).parent.parent / "vectors"
RULE = CropRule(
    size=96,
    scale=(0.05, 0.14),
    ratio=(3 / 4, 4 / 3),
    flip=0.5,
    jitter=ColorJitter(0.8, 0.8, 0.8, 0.8, 0.2),
    grayscale=0.2,
    blur=Blur(0.5, (0.1, 2.0), "gaussian23"),
)
NOTHING = CropDraw(
    size=224,
    top=0,
    left=0,
    height=224,
    width=224,
    flip=False,
    jitter=(),
    grayscale=False,
    sigma=None,
)


@pytest.fixture(scope="module")
def photograph() -> np.ndarray:
    """(375, 500, 3) uint8 with the 1/f spectrum of photographs."""
    rng = np.random.default_rng(0)
    frequency = np.hypot(np.fft.fftfreq(375)[:, None], np.fft.rfftfreq(500)[None])
    frequency[0, 0] = 1
    spectrum = np.fft.rfft2(rng.standard_normal((3, 375, 500))) / frequency**1.3
    planes = np.fft.irfft2(spectrum, (375, 500))
    mixed = np.tensordot([[1, 0.4, 0.1], [1, 0, -0.3], [1, -0.4, 0.1]], planes, 1)
    pixels = np.clip(110 + 55 * mixed / mixed.std(), 0, 255)
    return np.ascontiguousarray(pixels.astype(np.uint8).transpose(1, 2, 0))


def difference(ours: np.ndarray, theirs: Image.Image) -> np.ndarray:
    return np.abs(ours.astype(int) - np.asarray(theirs).astype(int))


@pytest.mark.parametrize(
    ("box", "size", "bound"),
    [((10, 20, 300, 320), 224, 0.8), ((50, 60, 100, 110), 224, 0.3), ((5, 9, 99, 101), 96, 0.6)],
)
def test_resized_crop_is_near_torchvision(photograph, box, size, bound):
    top, left, height, width = box
    draw = dataclasses.replace(
        NOTHING, size=size, top=top, left=left, height=height, width=width, flip=True
    )
    theirs = F.hflip(F.resized_crop(Image.fromarray(photograph), *box, [size, size]))
    assert difference(apply_crop(photograph, draw, "pil"), theirs).mean() < bound


@pytest.mark.parametrize("factor", [0.2, 0.7, 1.0, 1.3, 1.8])
@pytest.mark.parametrize(
    ("operation", "mean_bound", "max_bound"),
    [("brightness", 0.02, 1), ("contrast", 0.3, 1), ("saturation", 0.5, 2)],
)
def test_jitter_is_near_torchvision(photograph, operation, factor, mean_bound, max_bound):
    image = photograph[:224, :224]
    ours = apply_crop(image, dataclasses.replace(NOTHING, jitter=((operation, factor),)), "pil")
    theirs = getattr(F, f"adjust_{operation}")(Image.fromarray(image), factor)
    assert difference(ours, theirs).mean() <= mean_bound
    assert difference(ours, theirs).max() <= max_bound


@pytest.mark.parametrize("shift", [-0.2, -0.07, 0.0, 0.1, 0.2, 0.5])
def test_hue_is_near_torchvision(photograph, shift):
    image = photograph[:224, :224]
    ours = apply_crop(image, dataclasses.replace(NOTHING, jitter=(("hue", shift),)), "pil")
    found = difference(ours, F.adjust_hue(Image.fromarray(image), shift))
    assert found.mean() < 1.0
    assert np.percentile(found, 99) <= 6


def test_grayscale_is_torchvision_s(photograph):
    image = photograph[:224, :224]
    ours = apply_crop(image, dataclasses.replace(NOTHING, grayscale=True), "pil")
    assert difference(ours, F.to_grayscale(Image.fromarray(image), 3)).max() <= 1


@pytest.mark.parametrize("size", [1, 5, 28, 96])
def test_blur_is_the_23_tap_convolution(photograph, size):
    image = cv2.resize(photograph, (size, size))
    kernels = json.loads((VECTORS / "gaussian_blur_kernel.json").read_text())["kernels"]
    for sigma, kernel in kernels.items():
        draw = dataclasses.replace(NOTHING, size=size, height=size, width=size, sigma=float(sigma))
        ours = apply_crop(image, draw, "gaussian23")
        padded = image.astype(np.float64)
        for axis in (0, 1):
            widths = [(11, 11) if a == axis else (0, 0) for a in range(3)]
            padded = np.pad(padded, widths, mode="reflect" if size > 1 else "edge")
            padded = np.apply_along_axis(np.convolve, axis, padded, kernel, "valid")
        assert np.abs(ours - padded).max() <= 1.0


def test_pil_blur_is_pillow_s(photograph):
    image = photograph[:224, :224]
    ours = apply_crop(image, dataclasses.replace(NOTHING, sigma=1.3), "pil")
    theirs = Image.fromarray(image).filter(ImageFilter.GaussianBlur(1.3))
    assert difference(ours, theirs).max() == 0


@settings(max_examples=200, deadline=None)
@given(
    height=st.integers(1, 700),
    width=st.integers(1, 700),
    low=st.floats(0.01, 1),
    span=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_a_drawn_crop_lies_in_the_image_and_in_its_ranges(height, width, low, span, seed):
    rule = dataclasses.replace(RULE, scale=(low, low + span * (1 - low)))
    uniforms = np.random.default_rng(seed).random(NUM_UNIFORMS).tolist()
    draw = draw_crop(height, width, rule, uniforms)
    assert draw.height >= 1 <= draw.width
    assert 0 <= draw.top <= draw.top + draw.height <= height
    assert 0 <= draw.left <= draw.left + draw.width <= width
    assert draw.sigma is None or 0.1 <= draw.sigma <= 2.0
    factors = dict(draw.jitter)
    assert len(factors) == len(draw.jitter) in (0, 4)
    assert all(abs(f) <= 0.2 if name == "hue" else 0.2 <= f <= 1.8 for name, f in factors.items())


def test_draws_follow_their_distributions():
    rng = np.random.default_rng(0)
    draws = [draw_crop(400, 500, RULE, rng.random(NUM_UNIFORMS).tolist()) for _ in range(6000)]

    def share(values) -> float:
        return float(np.mean(list(values)))

    area = np.array([d.height * d.width / 200_000 for d in draws])
    log_ratio = np.log([d.width / d.height for d in draws])
    assert area.mean() == pytest.approx((0.05 + 0.14) / 2, rel=0.02)
    assert log_ratio.mean() == pytest.approx(0, abs=0.02)
    assert log_ratio.std() == pytest.approx(2 * np.log(4 / 3) / np.sqrt(12), rel=0.05)
    assert share(d.flip for d in draws) == pytest.approx(0.5, abs=0.03)
    assert share(bool(d.jitter) for d in draws) == pytest.approx(0.8, abs=0.03)
    assert share(d.grayscale for d in draws) == pytest.approx(0.2, abs=0.03)
    assert share(d.sigma is not None for d in draws) == pytest.approx(0.5, abs=0.03)
    first = [d.jitter[0][0] for d in draws if d.jitter]
    for name in ("brightness", "contrast", "saturation", "hue"):
        assert share(f == name for f in first) == pytest.approx(0.25, abs=0.03)


def test_a_image_that_no_box_fits_gives_its_middle():
    draw = draw_crop(10, 1000, dataclasses.replace(RULE, scale=(1.0, 1.0)), [0.5] * NUM_UNIFORMS)
    assert (draw.top, draw.left, draw.height, draw.width) == (0, 493, 10, 13)


def test_jitter_of_zero_strength_is_left_out():
    rule = dataclasses.replace(RULE, jitter=ColorJitter(1.0, 0.3, 0.3, 0.0, 0.0))
    draw = draw_crop(32, 32, rule, [0.5] * NUM_UNIFORMS)
    assert sorted(name for name, _ in draw.jitter) == ["brightness", "contrast"]
