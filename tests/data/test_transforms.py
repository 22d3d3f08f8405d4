"""Multi-crop and centre crop as wholes."""

import math

import numpy as np
import pytest
from PIL import Image
from swav_ops import swav_ops
from torchvision import transforms

from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.crops.groups import CropGroup
from ssl_platform.data.crops.multicrop import MultiCrop
from ssl_platform.registry import TRANSFORMS, load_components

OPTIONS = {
    "crops": {"large": CropGroup(32, 2, (0.14, 1.0)), "small": CropGroup(20, 3, (0.05, 0.14))},
    "ratio": (3 / 4, 4 / 3),
    "ops": swav_ops(),
}
FLIP = {"name": "HorizontalFlip", "probability": 0.5}
BLUR = {"name": "GaussianBlur", "probability": 0.5, "sigma": [0.1, 2.0], "kind": "pil"}


def noise(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (28, 28), (333, 500)])
def test_crops_have_their_sizes_for_any_image(shape):
    multicrop = MultiCrop(**OPTIONS)
    crops = multicrop(noise(*shape), np.random.default_rng(0))
    assert multicrop.crop_sizes == [32, 32, 20, 20, 20]
    assert multicrop.num_crops == 5
    assert [(crop.shape, crop.dtype) for crop in crops] == [
        ((size, size, 3), np.uint8) for size in multicrop.crop_sizes
    ]


def test_crops_depend_on_the_generator_alone_and_differ():
    multicrop, image = MultiCrop(**OPTIONS), noise(64, 64)
    first, again, other = (multicrop(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a, b) for a, b in zip(first, other, strict=True))
    assert not np.array_equal(first[0], first[1])


def test_equal_sizes_become_neighbours_and_a_group_can_be_off():
    crops = {
        "a": CropGroup(32, 1, (0.2, 1.0)),
        "b": CropGroup(20, 1, (0.2, 1.0)),
        "c": CropGroup(32, 1, (0.1, 0.2)),
        "d": CropGroup(16, 0, (0.1, 0.2)),
        "e": CropGroup((32, 32), 1, (0.1, 0.2)),
        "f": CropGroup((32, 20), 1, (0.1, 0.2)),
        "g": CropGroup((20, 32), 1, (0.1, 0.2)),
    }
    multicrop = MultiCrop(**{**OPTIONS, "crops": crops})
    assert multicrop.crop_sizes == [32, 32, 32, 20, (32, 20), (20, 32)]
    shapes = [crop.shape[:2] for crop in multicrop(noise(64, 80), np.random.default_rng(0))]
    assert shapes == [(32, 32)] * 3 + [(20, 20), (32, 20), (20, 32)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"crops": {"large": {"size": 32, "count": 2, "scale": [1.0, 0.5]}}},
            "crops.large.scale=[1.0, 0.5]: must be two rising numbers in [0, 1]",
        ),
        (
            {"crops": {"large": {"size": 0, "count": 2, "scale": [0.5, 1.0]}}},
            "crops.large.size=0: at least 1",
        ),
        (
            {"crops": {"large": {"size": 32, "count": 0, "scale": [0.5, 1.0]}}},
            "crops={large}: at least one group needs count 1 or more",
        ),
        (
            {"crops": {"large": {"size": [32, 0], "count": 1, "scale": [0.5, 1.0]}}},
            "crops.large.size=[32, 0]: at least 1 pixel, or [height, width]",
        ),
        ({"ops": {"flip": FLIP | {"probability": 1.2}}}, "ops.flip.probability=1.2: from 0 to 1"),
        (
            {"ops": {"flip": FLIP | {"probability": math.nan}}},
            "ops.flip.probability=nan: from 0 to 1",
        ),
        (
            {"ops": {"blur": BLUR | {"sigma": [0.0, 2.0]}}},
            "ops.blur.sigma=[0.0, 2.0]: must be two rising numbers in [0.01, 100]",
        ),
        (
            {"ops": {"flip": FLIP | {"probability": -1}, "blur": BLUR | {"kind": "box"}}},
            "ops.flip.probability=-1: from 0 to 1\n"
            "ops.blur.kind=box: should be 'gaussian23' or 'pil'",
        ),
        ({"ops": {"flip": {"probability": 1}}}, "ops.flip.name: which crop op? choose from "),
        ({"ops": {"flip": 0.5}}, "ops.flip=0.5: an op, {name: ..., ...}, or null for none"),
        (
            {"ops": {"flip": {"name": "HorizontalFlop", "probability": 1}}},
            "ops.flip.name=HorizontalFlop: no such crop op; did you mean 'HorizontalFlip'?",
        ),
        (
            {"ops": {"flip": {"name": "HorizontalFlip"}}},
            "ops.flip.probability: HorizontalFlip needs a value (float)",
        ),
    ],
)
def test_options_that_cannot_work_are_named(change, message):
    load_components()
    with pytest.raises(ValueError) as caught:
        TRANSFORMS.build({"name": "MultiCrop", **OPTIONS, **change})
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("shape", [(375, 500), (500, 375), (28, 28), (1, 40), (257, 256)])
def test_center_crop_is_torchvision_s(shape):
    image = noise(*shape)
    theirs = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])
    (ours,) = CenterCrop(resize=256, size=224)(image, np.random.default_rng(0))
    assert np.array_equal(ours, np.asarray(theirs(Image.fromarray(image))))


@pytest.mark.parametrize("turned", [False, True])
def test_center_crop_of_a_long_strip_is_that_of_its_middle(turned):
    """Scaled as a whole this one would take 100 GB."""
    strip = noise(2, 1_000_000)
    strips = [strip, strip[:, 499_900:500_100]]
    crops = [
        CenterCrop(resize=256, size=224)(image.transpose(1, 0, 2) if turned else image, None)[0]
        for image in strips
    ]
    assert np.array_equal(*crops)


@pytest.mark.parametrize("shape", [(60, 50), (40, 90)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_center_crop_takes_any_number_of_channels_and_unequal_sides(shape, channels):
    image = noise(*shape, channels)
    theirs = transforms.Compose([transforms.Resize((30, 45)), transforms.CenterCrop((25, 40))])
    (ours,) = CenterCrop(resize=(30, 45), size=(25, 40))(image, None)
    assert CenterCrop(resize=(30, 45), size=(25, 40)).crop_sizes == [(25, 40)]
    for channel in range(channels):
        expected = theirs(Image.fromarray(np.ascontiguousarray(image[..., channel])))
        assert np.array_equal(ours[..., channel], np.asarray(expected))


def test_center_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"^size=224: must lie in 1\.\.200, the value of resize$"):
        CenterCrop(resize=200, size=224)
    with pytest.raises(ValueError, match=r"^size=\[64, 224\]: must lie in 1\.\.96 x 200, the"):
        CenterCrop(resize=(96, 200), size=(64, 224))
