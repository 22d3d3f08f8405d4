"""A made-up VOC2007: two classes, told apart by their colour, some images difficult."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"cat": 0, "dog": 2}  # channel that is bright where the class is present


def a_voc_tree(folder: Path, *, num_trainval: int, num_test: int) -> Path:
    """Write images and lists; returns the folder ``VOC2007``. Images number on over the splits."""
    root = folder / "VOC2007"
    (root / "JPEGImages").mkdir(parents=True)
    (root / "ImageSets" / "Main").mkdir(parents=True)
    rng, first = np.random.default_rng(0), 0
    for split, num in (("trainval", num_trainval), ("test", num_test)):
        numbers = range(first, first + num)
        marks = {name: {} for name in COLOURS}
        for number in numbers:
            pixels = rng.integers(0, 90, (40, 48, 3), dtype=np.uint8)
            for place, (name, channel) in enumerate(COLOURS.items()):
                mark = [1, -1, -1, 1, 0, -1][(number + place) % 6]
                pixels[..., channel] += 120 * (mark == 1)
                marks[name][number] = mark
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{number:06d}.jpg")
        for name, by_number in marks.items():
            lines = [f"{number:06d} {mark:2d}" for number, mark in by_number.items()]
            file = root / "ImageSets" / "Main" / f"{name}_{split}.txt"
            file.write_text("\n".join(lines) + "\n")
        first += num
    return root
