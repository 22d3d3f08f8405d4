"""What is known of some images, and of the machine that is to learn from them."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Facts:
    """What a look at a folder, or at a list, has found.

    Attributes:
        path: as the user gave it, made absolute.
        is_list: whether it is a list of images and no folder.
        number: of images.
        summary: of the set in one line, with what was left out.
        class_sizes: images of each class that has any; none where the images have no classes.
        tried: images that were read, or could not be.
        unreadable: what could not be: ``name: reason``.
        short_sides: of the images read, in pixels, in order.
        flat: how many of them are of one colour.
        is_grey: whether they are all grey.
        channels: that are kept of each: 1, 3, or the bands of the files.
        stored: types of values of more than 8 bits, ``uint16``.
        transparent: how many are so in part.
        compared: images that were looked through for copies.
        copies: of these, how many have the same bytes as another one before them.
        first_copy: two names of the same bytes; none where there are no copies.
        read_seconds: to read and decode one of them, on one core.
    """

    path: str
    is_list: bool
    number: int
    summary: str
    class_sizes: tuple[int, ...]
    tried: int
    unreadable: tuple[str, ...]
    short_sides: tuple[int, ...]
    flat: int
    is_grey: bool
    channels: int
    stored: tuple[str, ...]
    transparent: int
    compared: int
    copies: int
    first_copy: tuple[str, ...]
    read_seconds: float

    @property
    def num_classes(self) -> int:
        """Classes with images; 0 without labels."""
        return len(self.class_sizes)

    @property
    def is_labelled(self) -> bool:
        """Whether there are classes to tell apart, at least two images in one of them."""
        return self.num_classes >= 2 and max(self.class_sizes) >= 2

    @property
    def side(self) -> int:
        """The short side of the images in the middle of the order, in pixels."""
        return self.short_sides[len(self.short_sides) // 2]

    @property
    def small_side(self) -> int:
        """The short side that nine of ten images have at least, in pixels."""
        return self.short_sides[len(self.short_sides) // 10]

    @property
    def different(self) -> int:
        """About how many images there are without the copies."""
        return round(self.number * (1 - self.copies / max(self.compared, 1)))


@dataclass(frozen=True)
class Machine:
    """What a run may use.

    Attributes:
        device: cpu or cuda.
        name: of the device, for people.
        cores: that this process may use.
        memory: bytes of this machine, or of its share of it.
        device_memory: bytes of the GPU; those of the machine where there is none.
    """

    device: str
    name: str
    cores: int
    memory: int
    device_memory: int


@dataclass(frozen=True)
class Measured:
    """What a step of a candidate takes here.

    Attributes:
        step_seconds: forward, backward and update of one image, with its crops.
        read_seconds: to decode one image and cut its crops, on one core.
        image_bytes: memory of one image's activations.
        threads: with which the step was the fastest.
    """

    step_seconds: float
    read_seconds: float
    image_bytes: int
    threads: int


@dataclass
class Case:
    """All that a rule may look at.

    Attributes:
        facts, machine: see there.
        size: the name of the row of `rules.SIZES`, which decides trunk and crops.
        hours: that the training may take.
        measured: None while candidates are still to be measured.
        values: of the keys that rules before this one have decided, and those that the user gave.
    """

    facts: Facts
    machine: Machine
    size: Any
    hours: float
    measured: Measured | None = None
    values: dict[str, Any] = field(default_factory=dict)
