"""Multi-crop and centre crop as wholes."""

import math

import numpy as np
import pytest
from PIL import Image
from torchvision import transforms

from ssl_platform.data.crops.augment import Blur, ColorJitter
from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.crops.multicrop import CropGroup, MultiCrop
from ssl_platform.registry import TRANSFORMS, load_components

OPTIONS = {
    "crops": {"large": CropGroup(32, 2, (0.14, 1.0)), "small": CropGroup(20, 3, (0.05, 0.14))},
    "ratio": (3 / 4, 4 / 3),
    "flip": 0.5,
    "jitter": ColorJitter(0.8, 0.8, 0.8, 0.8, 0.2),
    "grayscale": 0.2,
    "blur": Blur(0.5, (0.1, 2.0), "gaussian23"),
}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


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
    }
    assert MultiCrop(**{**OPTIONS, "crops": crops}).crop_sizes == [32, 32, 20]


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
        ({"flip": 1.2}, "flip=1.2: from 0 to 1"),
        ({"flip": math.nan}, "flip=nan: from 0 to 1"),
        (
            {"blur": {"probability": 0.5, "sigma": [0.0, 2.0], "kind": "pil"}},
            "blur.sigma=[0.0, 2.0]: must be two rising numbers in [0.01, 100]",
        ),
        (
            {"flip": -1, "grayscale": 2},
            "flip=-1: from 0 to 1\ngrayscale=2: from 0 to 1",
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


def test_center_crop_larger_than_the_image_is_refused():
    with pytest.raises(ValueError, match=r"^size=224: must lie in 1\.\.200, the value of resize$"):
        CenterCrop(resize=200, size=224)
