"""The picture of the crops."""

import numpy as np
import pytest

from ssl_platform.hooks.crops import HEADER, crop_sheet


def column(height: int, width: int, number: int = 3) -> np.ndarray:
    rng = np.random.default_rng(height + width)
    return rng.integers(0, 200, (number, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("large", "small", "scale"),
    [
        ((32, 32), (16, 16), 6),
        ((224, 224), (96, 96), 1),
        ((40, 30), (20, 24), 5),
        ((500, 4), (9, 9), 2),
    ],
)
def test_small_crops_are_enlarged_by_one_whole_number(large, small, scale):
    columns = [column(*large), column(*large), column(*small)]
    sheet = crop_sheet(columns, ["large", "large", "small"])
    width = sheet.shape[1] // 3
    for number, crops in enumerate(columns):
        first = crops[0].repeat(scale, axis=0).repeat(scale, axis=1)
        left = number * width
        found = sheet[HEADER : HEADER + first.shape[0], left : left + first.shape[1]]
        assert (found == first).all()


def headers(*names: str) -> np.ndarray:
    """Where something is written above the crops."""
    return (crop_sheet([column(32, 32)] * len(names), names)[:HEADER] < 128).any(axis=(0, 2))


def test_each_group_has_its_name_above_its_first_crop():
    written = headers("large", "large", "small")
    width = len(written) // 3
    assert written[: width // 2].any() and written[2 * width :].any()
    assert not written[width : 2 * width].any()


def test_a_long_name_stays_above_its_own_crops():
    written = headers("a" * 300, "b")
    middle = len(written) // 2
    assert written[: middle - 10].any() and not written[middle - 4 : middle].any()


def test_a_name_of_any_letters_is_written():
    assert headers("größe\n\x1b", "図").any()
