"""What is drawn for a crop."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swav_ops import JITTER, drawn, swav_ops

from ssl_platform.data.crops import pixels
from ssl_platform.data.crops.draw import NUM_BOX_UNIFORMS, CropRule, draw_box
from ssl_platform.data.crops.ops import ColorJitter

OPS = list(swav_ops().values())
RULE = CropRule(size=(96, 96), scale=(0.05, 0.14), ratio=(3 / 4, 4 / 3), ops=OPS)
COLOURS = (pixels.brightness, pixels.contrast, pixels.saturation, pixels.hue)


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
    draw = drawn(height, width, rule, np.random.default_rng(seed))
    top, left, box_height, box_width = draw.box
    assert box_height >= 1 <= box_width
    assert 0 <= top <= top + box_height <= height
    assert 0 <= left <= left + box_width <= width
    steps = dict(draw.steps)
    assert len(steps) == len(draw.steps)
    assert 0.1 <= steps.get(pixels.gaussian_blur, 1.0) <= 2.0
    factors = {function: value for function, value in draw.steps if function in COLOURS}
    assert len(factors) in (0, 4)
    assert all(
        abs(f) <= 0.2 if name is pixels.hue else 0.2 <= f <= 1.8 for name, f in factors.items()
    )


def test_draws_follow_their_distributions():
    rng = np.random.default_rng(0)
    draws = [drawn(400, 500, RULE, rng) for _ in range(6000)]
    steps = [dict(draw.steps) for draw in draws]
    boxes = [draw.box for draw in draws]

    def share(values) -> float:
        return float(np.mean(list(values)))

    area = np.array([height * width / 200_000 for *_, height, width in boxes])
    log_ratio = np.log([width / height for *_, height, width in boxes])
    assert area.mean() == pytest.approx((0.05 + 0.14) / 2, rel=0.02)
    assert log_ratio.mean() == pytest.approx(0, abs=0.02)
    assert log_ratio.std() == pytest.approx(2 * np.log(4 / 3) / np.sqrt(12), rel=0.05)
    assert share(pixels.mirror in s for s in steps) == pytest.approx(0.5, abs=0.03)
    assert share(pixels.hue in s for s in steps) == pytest.approx(0.8, abs=0.03)
    assert share(pixels.grayscale in s for s in steps) == pytest.approx(0.2, abs=0.03)
    assert share(pixels.gaussian_blur in s for s in steps) == pytest.approx(0.5, abs=0.03)
    colours = [[function for function in s if function in COLOURS] for s in steps]
    first = [functions[0] for functions in colours if functions]
    for function in COLOURS:
        assert share(f is function for f in first) == pytest.approx(0.25, abs=0.03)


def test_a_image_that_no_box_fits_gives_its_middle():
    box = draw_box(10, 1000, (1.0, 1.0), RULE.ratio, [0.5] * NUM_BOX_UNIFORMS)
    assert box == (0, 493, 10, 13)


def test_jitter_of_zero_strength_is_left_out():
    jitter = ColorJitter(probability=1.0, brightness=0.3, contrast=0.3, saturation=0.0, hue=0.0)
    steps = jitter.draw([0.5] * jitter.num_uniforms, 32, 32)
    assert [function for function, _ in steps] == [pixels.brightness, pixels.contrast]


def test_the_order_of_jitter_is_any_with_equal_probability():
    jitter, rng = ColorJitter(probability=1.0, **JITTER), np.random.default_rng(0)
    orders = [
        tuple(function for function, _ in jitter.draw(rng.random(9).tolist(), 32, 32))
        for _ in range(4800)
    ]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 24 and sum((count - 200) ** 2 / 200 for count in counts) < 50  # chi2
