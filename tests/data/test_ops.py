"""Ops of crops against torchvision, with the same parameters and by their distributions."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.datasets import load_sample_images
from torchvision import transforms
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from ssl_platform.data.crops import native_crop, opencv_crop, pixels
from ssl_platform.data.crops.draw import CropDraw
from ssl_platform.data.crops.geometry import Erasing, QuarterTurns, Rotation
from ssl_platform.data.crops.groups import CropGroup
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.data.crops.ops import (
    ColorJitter,
    DrawnOp,
    GaussianBlur,
    Grayscale,
    HorizontalFlip,
    Posterize,
    Solarize,
    VerticalFlip,
)
from ssl_platform.errors import DataError

PHOTOGRAPH = np.ascontiguousarray(load_sample_images().images[0][100:260, 200:440])
COUNTS = [1, 2, 3, 4, 5, 9]
makers = pytest.mark.parametrize(
    "apply_crop",
    [
        pytest.param(
            native_crop.apply_crop,
            marks=pytest.mark.skipif(not native_crop.AVAILABLE, reason="the kernel is not built"),
        ),
        opencv_crop.apply_crop,
    ],
    ids=["compiled", "cv2"],
)


def noise(channels: int, height: int = 40, width: int = 50) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


def steps(op: DrawnOp, size: tuple[int, int] = (40, 50), number: int = 1, seed: int = 0) -> list:
    rng = np.random.default_rng(seed)
    drawn = [op.draw(rng.random(op.num_uniforms).tolist(), *size) for _ in range(number)]
    return [step for one in drawn for step in one]


def changed(apply_crop, image: np.ndarray, *done) -> np.ndarray:
    size = image.shape[:2]
    return apply_crop(image, CropDraw(size, (0, 0, *size), done))


@makers
@pytest.mark.parametrize("threshold", [0, 1, 77.5, 128, 255, 256])
def test_solarize_is_torchvision_s(apply_crop, threshold):
    (step,) = steps(Solarize(probability=1.0, threshold=threshold))
    theirs = F.solarize(Image.fromarray(PHOTOGRAPH), threshold)
    assert np.array_equal(changed(apply_crop, PHOTOGRAPH, step), np.asarray(theirs))


@makers
@pytest.mark.parametrize("bits", range(9))
def test_posterize_is_torchvision_s(apply_crop, bits):
    (step,) = steps(Posterize(probability=1.0, bits=bits))
    theirs = F.posterize(torch.from_numpy(PHOTOGRAPH).permute(2, 0, 1), bits).permute(1, 2, 0)
    assert np.array_equal(changed(apply_crop, PHOTOGRAPH, step), theirs.numpy())


@makers
def test_flips_are_torchvision_s(apply_crop):
    for op, theirs in ((HorizontalFlip, F.hflip), (VerticalFlip, F.vflip)):
        (step,) = steps(op(probability=1.0))
        ours = changed(apply_crop, PHOTOGRAPH, step)
        assert np.array_equal(ours, np.asarray(theirs(Image.fromarray(PHOTOGRAPH))))


@makers
@pytest.mark.parametrize("number", [1, 2, 3])
def test_quarter_turns_are_torchvision_s(apply_crop, number):
    image = PHOTOGRAPH[:160, :160]
    ours = changed(apply_crop, image, (pixels.quarter_turns, number))
    assert np.array_equal(ours, np.asarray(F.rotate(Image.fromarray(image), 90 * number)))


@makers
@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("fill", [0, 99, [10, 200, 30]])
def test_rotation_is_torchvision_s(apply_crop, interpolation, fill):
    op = Rotation(probability=1.0, degrees=(-30, 60), interpolation=interpolation, fill=fill)
    for step in steps(op, number=4):
        theirs = F.rotate(
            Image.fromarray(PHOTOGRAPH), step[1][0], InterpolationMode(interpolation), fill=fill
        )
        assert np.array_equal(changed(apply_crop, PHOTOGRAPH, step), np.asarray(theirs))


@makers
@pytest.mark.parametrize("fill", [0, 7, [1, 2, 3], "noise"])
def test_erasing_fills_a_box_and_nothing_else(apply_crop, fill):
    op = Erasing(probability=1.0, scale=(0.02, 0.33), ratio=(0.3, 3.3), fill=fill)
    for step in steps(op, size=PHOTOGRAPH.shape[:2], number=5):
        ours = changed(apply_crop, PHOTOGRAPH, step)
        top, left, height, width, _ = step[1]
        inside = ours[top : top + height, left : left + width]
        if fill == "noise":
            assert stats.kstest(inside.ravel() / 256, "uniform").statistic < 0.02
        else:
            assert (inside == fill).all()
        rest = ours.copy()
        rest[top : top + height, left : left + width] = PHOTOGRAPH[
            top : top + height, left : left + width
        ]
        assert np.array_equal(rest, PHOTOGRAPH)
        assert np.array_equal(changed(apply_crop, PHOTOGRAPH, step), ours)


def test_erased_boxes_are_distributed_as_torchvision_s():
    scale, ratio, size, number = (0.02, 0.33), (0.3, 3.3), (64, 96), 1500
    op = Erasing(probability=1.0, scale=scale, ratio=ratio, fill=0)
    ours = np.array([step[1][:4] for step in steps(op, size=size, number=number)])
    torch.manual_seed(0)
    image = torch.zeros(1, *size)
    theirs = np.array(
        [transforms.RandomErasing.get_params(image, scale, ratio, [0.0])[:4] for _ in range(number)]
    )
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    areas = [boxes[:, 2] * boxes[:, 3] for boxes in (ours, theirs)]
    assert stats.ks_2samp(*areas).pvalue > 1e-3


def test_a_box_that_never_fits_erases_nothing():
    op = Erasing(probability=1.0, scale=(1.0, 1.0), ratio=(1.0, 1.0), fill=0)
    assert not steps(op, number=20)


def test_each_op_is_done_as_often_as_its_probability_says():
    for op in (
        HorizontalFlip(probability=0.3),
        VerticalFlip(probability=0.3),
        Grayscale(probability=0.3),
        GaussianBlur(probability=0.3, sigma=(0.1, 2.0), kind="pil"),
        ColorJitter(probability=0.3, brightness=0.4, contrast=0.0, saturation=0.0, hue=0.0),
        Solarize(probability=0.3, threshold=128),
        Posterize(probability=0.3, bits=4),
        QuarterTurns(probability=0.3, turns=[1, 2, 3]),
        Rotation(probability=0.3, degrees=(-10, 10), interpolation="nearest", fill=0),
        Erasing(probability=0.3, scale=(0.1, 0.2), ratio=(1.0, 1.0), fill=0),
    ):
        assert len(steps(op, number=4000)) / 4000 == pytest.approx(0.3, abs=0.03), op


def test_parameters_are_uniform_in_their_ranges():
    rotation = Rotation(probability=1.0, degrees=(-30, 90), interpolation="nearest", fill=0)
    angles = [value[0] for _, value in steps(rotation, number=3000)]
    assert stats.kstest((np.array(angles) + 30) / 120, "uniform").pvalue > 1e-3
    turns = [value for _, value in steps(QuarterTurns(probability=1.0, turns=[1, 3]), number=3000)]
    assert np.bincount(turns, minlength=4) == pytest.approx([0, 1500, 0, 1500], abs=120)


@pytest.mark.parametrize("channels", COUNTS)
def test_ops_work_on_any_number_of_channels_one_by_one(channels):
    image = noise(channels, 40, 40)
    done = [
        (pixels.mirror, None),
        (pixels.upside_down, None),
        (pixels.brightness, 1.3),
        (pixels.solarize, 100),
        (pixels.posterize, 4),
        (pixels.gaussian_blur, 1.1),
        (pixels.pil_blur, 1.1),
        (pixels.quarter_turns, 1),
        (pixels.rotate, (33.0, Image.Resampling.BILINEAR, [9] * channels)),
        (pixels.erase, (3, 4, 5, 6, 77)),
    ]
    for box in ((0, 0, 40, 40), (5, 6, 30, 20)):  # made smaller, and larger
        for size in ((24, 24), (48, 48)):
            whole = opencv_crop.apply_crop(image, CropDraw(size, box, done))
            for channel in range(channels):
                alone = np.ascontiguousarray(image[..., channel : channel + 1])
                ours = opencv_crop.apply_crop(
                    alone, CropDraw(size, box, [*done[:8], _alone(done[8], channel), done[9]])
                )
                assert np.array_equal(whole[..., channel], ours[..., 0])


def _alone(step, channel: int):
    function, (angle, resampling, fill) = step
    return function, (angle, resampling, [fill[channel]])


@pytest.mark.parametrize("channels", [1, 2, 4, 5])
def test_ops_that_need_colour_refuse_other_channels_in_words(channels):
    jitter = {"brightness": 0.4, "contrast": 0.4}
    transform = MultiCrop(
        crops={
            "large": CropGroup(16, 1, (0.2, 1.0)),
            "small": CropGroup(8, 1, (0.2, 1.0), ops={"jitter": {"saturation": 0.0, "hue": 0.1}}),
            "off": CropGroup(8, 0, (0.2, 1.0), ops={"jitter": {"saturation": 0.9}}),
        },
        ratio=(1.0, 1.0),
        ops={
            "jitter": {
                "name": "ColorJitter",
                "probability": 1,
                **jitter,
                "saturation": 1,
                "hue": 0,
            },
            "gray": Grayscale(probability=0.2),
            "no_gray": Grayscale(probability=0.0),
            "erase": Erasing(probability=0.0, scale=(0.1, 0.2), ratio=(1, 1), fill=[1, 2, 3]),
        },
    )
    with pytest.raises(DataError) as caught:
        transform(noise(channels), np.random.default_rng(0))
    needed = f"needs red, green and blue, and the images have {channels} channel"
    needed += "; set it to 0" if channels == 1 else "s; set it to 0"
    fill = "ops.erase.fill=[1, 2, 3]: one level, or one for each channel of the images, which have"
    assert str(caught.value).splitlines() == [
        f"ops.jitter.saturation=1.0: {needed}",
        f"ops.gray.probability=0.2: {needed}",
        f"{fill} {channels}",
        f"crops.small.ops.jitter.hue=0.1: {needed}",
    ]
    transform(noise(3), np.random.default_rng(0))


@pytest.mark.parametrize("channels", COUNTS)
def test_multicrop_takes_any_number_of_channels(channels):
    jitter = ColorJitter(probability=1.0, brightness=0.4, contrast=0.4, saturation=0.0, hue=0.0)
    transform = MultiCrop(
        crops={"large": CropGroup((20, 30), 2, (0.2, 1.0)), "small": CropGroup(9, 2, (0.1, 0.2))},
        ratio=(3 / 4, 4 / 3),
        ops={"flip": HorizontalFlip(probability=0.5), "jitter": jitter},
    )
    crops = transform(noise(channels), np.random.default_rng(0))
    assert [crop.shape for crop in crops] == [(20, 30, channels)] * 2 + [(9, 9, channels)] * 2
    assert all(crop.dtype == np.uint8 for crop in crops)
