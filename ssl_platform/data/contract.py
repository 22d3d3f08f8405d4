"""What data sets and transforms of plug-ins have to give, and the error line where they do not.

What their code raises is reported with the set, the image and the line of code: the author of a
plug-in has to mend it, and a traceback through the platform would name neither.
"""

import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import numpy as np

from ssl_platform.console.working import working
from ssl_platform.data.dataset import ImageDataset, UnreadableImage
from ssl_platform.data.decoding.pixels import COLOURS, Notes
from ssl_platform.errors import DataError, blame, kind_of
from ssl_platform.ops.image_size import height_and_width, in_words, is_image_size

WANTED_IMAGE = "read() has to give a numpy array (H, W, {}) uint8"
WANTED_CROP = "a transform has to give one numpy array (height, width, {}) uint8 for each crop"
MAX_TRIED = 8  # images, where the first cannot be read
MAX_SPARE_CLASSES = 100_000  # class numbers beyond one for each image: a table has a row for each


def read_image(dataset: ImageDataset, index: int, notes: Notes | None = None) -> np.ndarray:
    """Image ``index`` of a data set, which keeps to the contract.

    Args:
        notes: what is unusual about it is written there; None where nobody asks.

    Raises:
        UnreadableImage: raised by the set.
        DataError: the set gave something else, or raised something else.
    """
    with _blamed(
        lambda: f"{_named(dataset, index)}: read()",
        "; an image that cannot be read is UnreadableImage(name, reason)",
    ):
        image: Any = dataset.read_noting(index, notes) if notes is not None else dataset.read(index)
    is_image = isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim == 3
    if is_image and image.shape[2] == dataset.channels and image.size > 0:
        return image
    wanted = WANTED_IMAGE.format(dataset.channels) + (
        ", RGB" if dataset.channels == COLOURS else ""
    )
    cure = _cure(image, dataset.channels)
    raise DataError(f"{_named(dataset, index)} gave {kind_of(image)}, {wanted}{cure}")


def make_crops(transform: Any, image: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
    """The crops of an image by a transform that keeps to the contract.

    Raises:
        DataError: it gave something else, or raised.
    """
    name = type(transform).__name__
    with _blamed(lambda: f"{name}: of {kind_of(image)} it"):
        crops: Any = transform(image, rng)
    sizes, channels = transform.crop_sizes, image.shape[2]
    wanted = WANTED_CROP.format(channels)
    if not isinstance(crops, list | tuple) or len(crops) != len(sizes):
        many = isinstance(crops, list | tuple)
        given = f"{len(crops)} crops" if many else kind_of(crops)
        raise DataError(
            f"{name} gave {given} where crop_sizes names {len(sizes)}; {wanted}, in a list"
        )
    for number, (crop, size) in enumerate(zip(crops, sizes, strict=True)):
        is_array = isinstance(crop, np.ndarray) and crop.dtype == np.uint8
        if not is_array or crop.shape != (*height_and_width(size), channels):
            raise DataError(
                f"{name} gave {kind_of(crop)} as crop {number}, whose size is {in_words(size)} by "
                f"crop_sizes; {wanted}"
            )
    return list(crops)


def settle_labels(dataset: ImageDataset) -> None:
    """Convert labels of any integer type to int64, which torch takes as an index."""
    labels: Any = getattr(dataset, "labels", None)
    is_whole = isinstance(labels, np.ndarray) and labels.dtype.kind in "iu"
    if is_whole and labels.dtype != np.int64:
        with suppress(AttributeError):  # a property
            dataset.labels = labels.astype(np.int64)


def prepare(dataset: ImageDataset) -> None:
    """Prepare a data set, once.

    Raises:
        DataError: it raised, whatever that is.
    """
    if dataset.is_prepared:
        return
    name = type(dataset).__name__
    with _blamed(lambda: f"{name}: prepare()"), working(f"{name} prepares its images"):
        dataset.prepare()
    dataset.is_prepared = True


def check_dataset(dataset: Any) -> np.ndarray | None:
    """Hold a data set against the contract, one image of it included.

    Returns:
        The image; None where the first few cannot be read.

    Raises:
        ValueError: one line that says what it has and what it has to have.
    """
    with _as_value_error():
        name = type(dataset).__name__
        if not isinstance(dataset, ImageDataset):
            raise DataError(f"{name} has to be an ssl_platform.data.dataset.ImageDataset")
        with _blamed(lambda: f"{name}: len() of it"):
            length = len(dataset)
        with _blamed(lambda: f"{name}: channels of it"):
            channels: Any = dataset.channels
        if not _is_whole(channels) or channels < 1:
            raise DataError(f"{name} has channels={channels!r}; a whole number, 1 or more, e.g. 3")
        settle_labels(dataset)
        if length < 1:
            raise DataError(f"{name} has no image")
        _check_labels(name, dataset, length)
        with _blamed(lambda: f"{name}: num_classes of it"):
            number: Any = dataset.num_classes
        if number is not None and not _is_whole(number):
            raise DataError(f"{name} has num_classes that is {kind_of(number)}; an int, or None")
        return _first_image(dataset, length)


def check_transform(transform: Any, image: np.ndarray | None) -> None:
    """Hold a transform against the contract, by an image where there is one.

    Raises:
        ValueError: one line that says what it has and what it has to have.
    """
    name = type(transform).__name__
    try:
        count, sizes = transform.num_crops, transform.crop_sizes
    except Exception as error:
        raise ValueError(
            f"{name} has to have num_crops and crop_sizes, the side of each crop in pixels, or its "
            f"height and width ({blame(error)})"
        ) from error
    is_list = isinstance(sizes, Sequence) and all(map(is_image_size, sizes))
    if not is_list or not sizes or count != len(sizes):
        raise ValueError(
            f"{name} has num_crops={count} and crop_sizes={sizes}; crop_sizes is a list of the "
            "side of each crop in pixels, or its height and width, num_crops its length"
        )
    both = list(map(height_and_width, sizes))
    if len(set(both)) != 1 + sum(a != b for a, b in pairwise(both)):
        raise ValueError(f"{name} has crop_sizes={sizes}; crops of equal size have to be adjacent")
    if not callable(transform):
        raise ValueError(f"{name} has to be called with an image and a random generator")
    if image is not None:
        with _as_value_error():
            make_crops(transform, image, np.random.default_rng(0))


@contextmanager
def _blamed(what: Callable[[], str], cure: str = "") -> Iterator[None]:
    """Where somebody's code raises, say what it was asked for."""
    try:
        yield
    except (UnreadableImage, DataError, MemoryError):
        raise
    except Exception as error:
        raise DataError(f"{what()} raised {blame(error)}{cure}") from error


@contextmanager
def _as_value_error() -> Iterator[None]:
    """Before anything has started, what is wrong with a set is a mistake in the config."""
    try:
        yield
    except DataError as error:
        raise ValueError(str(error)) from error


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _named(dataset: ImageDataset, index: int) -> str:
    """``Mine[0] ('a.png')``."""
    place = f"{type(dataset).__name__}[{index}]"
    try:
        name: Any = dataset.describe(index)
    except Exception:  # describe() is held against the contract by itself
        return place
    return place if name == place else f"{place} ({name!r})"


def _first_image(dataset: ImageDataset, length: int) -> np.ndarray | None:
    """The first of a few images that can be read; ``describe`` has to say which it is."""
    for index in range(min(length, MAX_TRIED)):
        try:
            image = _unprepared(dataset, index)
        except UnreadableImage:
            continue
        _check_description(dataset, index)
        return image
    return None


def _check_description(dataset: ImageDataset, index: int) -> None:
    place = f"{type(dataset).__name__}[{index}]"
    with _blamed(lambda: f"{place}: describe()"):
        name: Any = dataset.describe(index)
    if not isinstance(name, str):
        raise DataError(
            f"{place}: describe() gave {kind_of(name)}, it has to give a str: a path, or a name "
            "with the number"
        )


def _unprepared(dataset: ImageDataset, index: int) -> np.ndarray:
    """Image ``index``, prepared for only where it has to be: that may take long."""
    if type(dataset).prepare is not ImageDataset.prepare:
        try:
            return read_image(dataset, index)
        except DataError:
            prepare(dataset)
    return read_image(dataset, index)


def _check_labels(name: str, dataset: ImageDataset, length: int) -> None:
    labels: Any = getattr(dataset, "labels", kind_of)  # None means that there are none
    if labels is kind_of:
        raise DataError(f"{name} has no labels; set self.labels, None where there are none")
    if labels is None:
        return
    wanted = f"labels have to be a numpy array ({length},) int64, or None"
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise DataError(
            f"{name} has labels that are {kind_of(labels)}; {wanted}: "
            "np.asarray(labels, dtype=np.int64)"
        )
    if labels.shape != (length,):
        raise DataError(f"{name} has labels {labels.shape} for {length} images; {wanted}")
    if labels.min() < -1:
        raise DataError(f"{name} has the label {labels.min()}; from 0 on, -1 where there is none")
    if labels.max() >= length + MAX_SPARE_CLASSES:
        raise DataError(
            f"{name} has the label {labels.max()} among {length} images; number the classes from 0 "
            "on: np.unique(labels, return_inverse=True)[1]"
        )
    _check_classes(name, dataset.classes, int(labels.max()) + 1)


def _check_classes(name: str, classes: Any, num_classes: int) -> None:
    """Names are there for all classes that have images, or for none."""
    if classes is None:
        return
    try:
        count = operator.index(len(classes))
        are_names = all(isinstance(classes[number], str) for number in range(count))
    except Exception as error:
        raise DataError(
            f"{name} has classes that are {kind_of(classes)}; a list with the name of each class, "
            "or None"
        ) from error
    if not are_names:
        raise DataError(f"{name} has classes that are no names; a list of str, or None")
    if count < num_classes:
        raise DataError(
            f"{name} has {count} classes and labels up to {num_classes - 1}; the name of each "
            "class, or None"
        )


def _cure(image: Any, channels: int) -> str:
    """What to write instead, where that is plain to see."""
    if not isinstance(image, np.ndarray):
        if hasattr(image, "convert"):
            return ': np.asarray(image.convert("RGB"))' if channels == COLOURS else ""
        return ": image.numpy()" if hasattr(image, "numpy") else ""
    if image.size == 0:
        return "; this one has no pixels"
    if image.dtype == np.bool_:
        return (
            f": image.astype(np.uint8) * 255, {'three channels' if channels == 3 else 'all'} of it"
        )
    if image.dtype != np.uint8:
        return "; bring the values to 0..255 and .astype(np.uint8)"
    if image.ndim == 2:
        grey = (
            ": np.stack([image] * 3, axis=-1), or grey as it is: image[..., None] and channels = 1"
        )
        return {COLOURS: grey, 1: ": image[..., None]"}.get(channels, "")
    if image.ndim != 3:
        return ""
    if image.shape[0] == channels != image.shape[2]:
        return ": image.transpose(1, 2, 0)"
    as_colours = {1: ": np.repeat(image, 3, axis=2)", 4: ": image[..., :3]"}
    cure = as_colours.get(image.shape[2], "") if channels == COLOURS else ""
    return f"{cure}{', or' if cure else ';'} channels = {image.shape[2]} in its class"
