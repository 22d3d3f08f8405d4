"""What is drawn for a crop."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ssl_platform.data.crops.augment import NUM_UNIFORMS, Blur, ColorJitter, CropRule, draw_crop

RULE = CropRule(
    size=96,
    scale=(0.05, 0.14),
    ratio=(3 / 4, 4 / 3),
    flip=0.5,
    jitter=ColorJitter(0.8, 0.8, 0.8, 0.8, 0.2),
    grayscale=0.2,
    blur=Blur(0.5, (0.1, 2.0), "gaussian23"),
)


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
