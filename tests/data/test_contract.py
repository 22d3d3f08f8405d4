"""What data sets and transforms from outside give, and what is said when it is something else."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from ssl_platform.data.contract import check_dataset, check_transform, prepare, read_image
from ssl_platform.data.crops.center_crop import CenterCrop
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.loading.batch_reader import BadImageLimit, BatchReader
from ssl_platform.data.look import look
from ssl_platform.errors import DataError

PIXELS = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
WANTED = "read() has to give a numpy array (H, W, 3) uint8, RGB"


class Mine(ImageDataset):
    """Gives the same image again and again."""

    def __init__(self, image=PIXELS, labels=None, classes=None, length=4):
        self.image, self.labels, self.classes, self.length = image, labels, classes, length

    def __len__(self):
        return self.length

    def read(self, index):
        if isinstance(self.image, Exception):
            raise self.image
        return self.image

    def describe(self, index):
        return f"{index}.png"


def mistake(check: Callable[..., Any], *args: Any) -> str:
    """What a check says, which is one line."""
    with pytest.raises(ValueError, match=type(args[0]).__name__) as caught:
        check(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


IMAGES = {
    "u8x4": (np.zeros((8, 9, 4), np.uint8), "uint8 (8, 9, 4)", ": image[..., :3]"),
    "u8x1": (np.zeros((8, 9, 1), np.uint8), "uint8 (8, 9, 1)", ": np.repeat(image, 3, axis=2)"),
    "u8hw": (np.zeros((8, 9), np.uint8), "uint8 (8, 9)", ": np.stack([image] * 3, axis=-1)"),
    "f32": (PIXELS.astype("f4"), "float32 (8, 8, 3)", "; bring the values to 0..255 and "),
    "u16": (PIXELS.astype("u2"), "uint16 (8, 8, 3)", "; bring the values to 0..255 and "),
    "bool": (PIXELS > 9, "bool (8, 8, 3)", ": image.astype(np.uint8) * 255"),
    "chw": (PIXELS.transpose(2, 0, 1), "uint8 (3, 8, 8)", ": image.transpose(1, 2, 0)"),
    "empty": (np.zeros((0, 8, 3), np.uint8), "uint8 (0, 8, 3)", "; this one has no pixels"),
    "tensor": (torch.from_numpy(PIXELS), "a Tensor, uint8 (8, 8, 3)", ": image.numpy()"),
    "pil": (Image.fromarray(PIXELS), "a Image", ': np.asarray(image.convert("RGB"))'),
    "pair": ((PIXELS, 3), "a tuple of 2", ""),
    "none": (None, "None", ""),
}


@pytest.mark.parametrize("kind", IMAGES)
def test_an_image_of_another_kind_is_one_line_with_the_set_what_came_and_what_is_right(kind):
    image, given, cure = IMAGES[kind]
    line = f"Mine[0] ('0.png') gave {given}, {WANTED}{cure}"
    assert mistake(check_dataset, Mine(image)).startswith(line)


@pytest.mark.parametrize(
    "image", [PIXELS, PIXELS[::-1, ::2], PIXELS.transpose(1, 0, 2), PIXELS.view(np.memmap)]
)
def test_any_array_of_bytes_in_three_channels_is_an_image(image):
    assert check_dataset(Mine(image)) is image


def test_what_read_raises_is_told_with_its_place():
    line = mistake(check_dataset, Mine(KeyError("no such record")))
    assert line.startswith("Mine[0] ('0.png'): read() raised KeyError: 'no such record'")
    assert f"({__file__}, line " in line


class BadLater(Mine):
    """Only the images from ``first`` to before ``last`` are right."""

    def __init__(self, first, last, otherwise):
        super().__init__()
        self.first, self.last, self.otherwise = first, last, otherwise

    def read(self, index):
        if self.first <= index < self.last:
            return PIXELS
        if isinstance(self.otherwise, Exception):
            raise self.otherwise
        return self.otherwise


def test_where_the_first_image_is_unreadable_another_one_is_tried():
    unreadable = UnreadableImage("x", "cut short")
    assert check_dataset(BadLater(2, 4, unreadable)) is PIXELS
    assert check_dataset(BadLater(4, 4, unreadable)) is None


@pytest.mark.parametrize("otherwise", [PIXELS[:, :, 0], RuntimeError("gone")])
def test_a_later_image_of_another_kind_is_one_line_while_it_trains(otherwise):
    images, limit = BadLater(0, 2, otherwise), BadImageLimit(0.0, 4, replace_bad=True)
    read = BatchReader(images, CenterCrop(resize=8, size=8), 0, 0, limit=limit)
    crops, indices = [np.zeros((3, 8, 8, 3), np.uint8)], np.zeros(3, np.int64)
    with pytest.raises(DataError, match=r"^BadLater\[2\] \('2.png'\)"):
        read([(0, 0), (0, 1), (0, 2)], crops, indices)


LABELS = {
    "list": ([0, 1, 0, 1], "has labels that are a list of 4; labels have to be a numpy array (4,)"),
    "float": (np.zeros(4), "has labels that are float64 (4,); labels have to be"),
    "bool": (np.zeros(4, bool), "has labels that are bool (4,)"),
    "short": (np.zeros(3, np.int64), "has labels (3,) for 4 images"),
    "one-hot": (np.zeros((4, 2), np.int64), "has labels (4, 2) for 4 images"),
    "negative": (np.array([0, 1, -2, 1]), "has the label -2; from 0 on, -1 where there is none"),
    "huge": (np.array([0, 1, 2_000_000, 1]), "has the label 2000000 among 4 images; number"),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_that_are_none_are_told(kind):
    labels, told = LABELS[kind]
    assert mistake(check_dataset, Mine(labels=labels)).startswith(f"Mine {told}")


def test_labels_of_any_whole_numbers_are_taken():
    for dtype in (np.int64, np.int32, np.uint8, np.uint64, ">i8"):
        dataset = Mine(labels=np.array([0, 1, 0, 1], dtype), classes=np.array(["ant", "bee"]))
        assert check_dataset(dataset) is PIXELS
        assert dataset.labels.dtype == np.int64  # the only ones that torch takes for an index
        assert dataset.num_classes == 2
        assert dataset.summary() == "4 images in 2 classes (ant, bee)"
    assert check_dataset(Mine(labels=np.array([0, -1, 0, 1]), classes=["ant", "bee"])) is PIXELS


CLASSES = {
    "few": (["ant"], "has 1 classes and labels up to 1; the name of each class, or None"),
    "number": (2, "has classes that are a int; a list with the name of each class, or None"),
    "numbers": ([0, 1], "has classes that are no names; a list of str, or None"),
}


@pytest.mark.parametrize("kind", CLASSES)
def test_classes_that_do_not_name_the_labels_are_told(kind):
    classes, told = CLASSES[kind]
    named = Mine(labels=np.array([0, 1, 0, 1]), classes=classes)
    assert mistake(check_dataset, named) == f"Mine {told}"


@pytest.mark.parametrize(("length", "told"), [(0, "has no image"), (2.5, "len() of it raised")])
def test_a_length_that_is_none_is_told(length, told):
    assert told in mistake(check_dataset, Mine(length=length))


def test_a_set_that_forgets_labels_or_describes_by_a_number_or_is_none_is_told():
    forgetful = Mine()
    del forgetful.labels
    with pytest.raises(ValueError, match=r"^Mine has no labels; set self.labels, None where"):
        check_dataset(forgetful)
    numbered = type("Mine", (Mine,), {"describe": lambda self, index: index})()
    with pytest.raises(ValueError, match=r"^Mine\[0\]: describe\(\) gave a int, it has to give a"):
        check_dataset(numbered)
    with pytest.raises(ValueError, match=r"^list has to be an ssl_platform.data.dataset.Image"):
        check_dataset([])


class Prepared(Mine):
    """Can be read once it has been prepared, unless that fails."""

    def __init__(self, error=None):
        super().__init__()
        self.error, self.is_ready = error, False

    def prepare(self):
        if self.error:
            raise self.error
        self.is_ready = True

    def read(self, index):
        if not self.is_ready:
            raise AttributeError("not prepared")
        return PIXELS


def test_a_set_is_prepared_for_the_check_where_it_has_to_be():
    assert check_dataset(Prepared()) is PIXELS
    for action in (check_dataset, prepare):
        with pytest.raises(
            (ValueError, DataError), match=r"Prepared: prepare\(\) raised OSError: no"
        ):
            action(Prepared(OSError("no disk")))


class Crops:
    """Gives what it is told to."""

    def __init__(self, given, sizes=(8, 8, 4), num_crops=3):
        self.given, self.crop_sizes, self.num_crops = given, list(sizes), num_crops

    def __call__(self, image, rng):
        return self.given(image) if callable(self.given) else self.given


CROPS = [PIXELS, PIXELS, PIXELS[:4, :4]]
TRANSFORMS = {
    "few": (Crops(CROPS[:2]), "gave 2 crops where crop_sizes names 3"),
    "array": (Crops(PIXELS), "gave uint8 (8, 8, 3) where crop_sizes names 3"),
    "none": (Crops(None), "gave None where crop_sizes names 3"),
    "grey": (
        Crops([*CROPS[:2], PIXELS[:4, :4, 0]]),
        "gave uint8 (4, 4) as crop 2, whose size is 4",
    ),
    "float": (Crops([PIXELS / 255, *CROPS[1:]]), "gave float64 (8, 8, 3) as crop 0"),
    "size": (Crops([PIXELS] * 3), "gave uint8 (8, 8, 3) as crop 2, whose size is 4"),
    "count": (Crops(CROPS, num_crops=2), "has num_crops=2 and crop_sizes=[8, 8, 4]"),
    "sizes": (Crops(CROPS, sizes=(8, 4, 8)), "has crop_sizes=[8, 4, 8]; crops of equal size"),
    "raises": (Crops(lambda image: 1 / 0), ": of uint8 (8, 8, 3) it raised ZeroDivisionError"),
    "nothing": (object(), " has to have num_crops and crop_sizes"),
}


@pytest.mark.parametrize("kind", TRANSFORMS)
def test_a_transform_that_gives_something_else_is_one_line(kind):
    transform, told = TRANSFORMS[kind]
    assert told in mistake(check_transform, transform, PIXELS)


def test_a_transform_that_gives_its_crops_is_right():
    check_transform(Crops(CROPS), PIXELS)
    check_transform(Crops(CROPS), None)


def test_lack_of_memory_is_no_fault_of_a_set():
    with pytest.raises(MemoryError):
        read_image(Mine(MemoryError()), 0)


def test_a_set_is_prepared_once_however_often_it_is_read_through():
    class Counted(Mine):
        times = 0

        def prepare(self):
            self.times += 1

    dataset = Counted()
    prepare(dataset)
    prepare(dataset)
    assert dataset.times == 1


def test_a_number_of_classes_that_is_none_is_told(monkeypatch):
    monkeypatch.setattr(Mine, "num_classes", None)
    assert check_dataset(Mine()) is PIXELS
    monkeypatch.setattr(Mine, "num_classes", "4")
    told = "Mine has num_classes that is a str; an int, or None"
    assert mistake(check_dataset, Mine()) == told


def test_an_image_of_the_look_that_raises_is_one_line():
    with pytest.raises(DataError, match=r"^Mine\[\d\].*gave float64"):
        look(Mine(image=PIXELS / 255), seed=0)
